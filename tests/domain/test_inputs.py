"""Inputs: declarations in both forms, defaults, and what is said about wrong values."""

import pytest

from tandem.domain.errors import InvalidAutomation, Problem
from tandem.domain.inputs import check_inputs, declared_names, fill_inputs, input_schema
from tandem.domain.json import JsonObject

SHORT: JsonObject = {
    "topic": {"type": "string", "description": "what about"},
    "rows": {"type": "integer", "default": 5, "minimum": 1},
    "note": {"type": "string", "required": False},
}
LONG: JsonObject = {
    "type": "object",
    "properties": {
        "topic": {"type": "string"},
        "options": {
            "type": "object",
            "properties": {"depth": {"type": "integer", "default": 2}},
        },
        "where": {
            "type": "object",
            "default": {},
            "properties": {"city": {"type": "string", "default": "Bonn"}},
        },
    },
    "required": ["topic"],
}


def problems_of(declared: "JsonObject | None", given: JsonObject) -> list[Problem]:
    with pytest.raises(InvalidAutomation) as caught:
        fill_inputs(declared, given)
    return list(caught.value.problems)


def test_shorthand_becomes_a_closed_object_schema() -> None:
    assert input_schema(SHORT) == {
        "type": "object",
        "properties": {
            "topic": {"type": "string", "description": "what about"},
            "rows": {"type": "integer", "default": 5, "minimum": 1},
            "note": {"type": "string"},
        },
        "required": ["topic"],
        "additionalProperties": False,
    }


def test_required_true_beside_a_default_asks_for_the_input() -> None:
    schema = input_schema({"a": {"type": "string", "default": "x", "required": True}})
    assert schema["required"] == ["a"]


def test_required_list_of_a_nested_object_is_kept() -> None:
    schema = input_schema({"a": {"type": "object", "required": ["b"]}})
    assert schema["properties"] == {"a": {"type": "object", "required": ["b"]}}


def test_inputs_may_be_called_type_and_properties() -> None:
    declared: JsonObject = {
        "type": {"type": "string"},
        "properties": {"type": "object", "default": {}},
    }
    assert fill_inputs(declared, {"type": "x"}) == {"type": "x", "properties": {}}


def test_object_schema_is_closed_unless_it_says_otherwise() -> None:
    assert declared_names(input_schema(LONG)) == {"topic", "options", "where"}
    assert input_schema({"properties": {"a": True}})["additionalProperties"] is False
    for opening in (
        {"additionalProperties": True},
        {"patternProperties": {"^x": True}},
        {"allOf": [{}]},
        {"additionalProperties": False, "patternProperties": {"^x": True}},
    ):
        schema = input_schema({"type": "object", "properties": {"a": True}, **opening})
        assert declared_names(schema) is None
        assert fill_inputs(schema, {"x1": 2}) == {"x1": 2}


def test_reference_at_the_root_is_a_schema() -> None:
    declared: JsonObject = {
        "$ref": "#/$defs/all",
        "$defs": {"all": {"type": "object", "required": ["a"]}},
    }
    assert fill_inputs(declared, {"a": 1}) == {"a": 1}
    (problem,) = problems_of(declared, {})
    assert problem.path == "inputs"


def test_no_declaration_means_no_inputs() -> None:
    assert fill_inputs(None, {}) == {}
    assert fill_inputs({}, {}) == {}
    (problem,) = problems_of(None, {"a": 1})
    assert (problem.code, problem.path) == ("input_unknown", "inputs.a")
    assert problem.hint == "this automation declares no inputs"


def test_defaults_fill_what_is_missing_and_nothing_else() -> None:
    assert fill_inputs(SHORT, {"topic": "bees"}) == {"topic": "bees", "rows": 5}
    assert fill_inputs(SHORT, {"topic": "bees", "rows": 7}) == {"topic": "bees", "rows": 7}


def test_defaults_of_nested_objects_are_filled_where_the_object_is() -> None:
    assert fill_inputs(LONG, {"topic": "x"}) == {"topic": "x", "where": {"city": "Bonn"}}
    filled = fill_inputs(LONG, {"topic": "x", "options": {}, "where": {"city": "Ulm"}})
    assert filled == {"topic": "x", "options": {"depth": 2}, "where": {"city": "Ulm"}}


def test_filling_leaves_its_arguments_alone() -> None:
    given: JsonObject = {"topic": "x", "options": {}}
    fill_inputs(LONG, given)
    assert given == {"topic": "x", "options": {}}


def test_every_violation_is_a_problem_with_its_path() -> None:
    problems = problems_of(SHORT, {"rows": 0, "note": 3, "topc": "x"})
    assert [(p.code, p.path) for p in problems] == [
        ("input_unknown", "inputs.topc"),
        ("input_missing", "inputs.topic"),
        ("input_invalid", "inputs.rows"),
        ("input_invalid", "inputs.note"),
    ]
    assert problems[0].hint == "did you mean `topic`?"
    assert problems[2].message == "0 is less than the minimum of 1"


def test_path_leads_into_nested_values() -> None:
    declared: JsonObject = {"rows": {"type": "array", "items": {"type": "integer"}}}
    (problem,) = problems_of(declared, {"rows": [1, "x"]})
    assert problem.path == "inputs.rows[1]"


def test_unknown_input_without_a_near_name_lists_the_inputs() -> None:
    (problem,) = problems_of(SHORT, {"topic": "x", "zzzzz": 1})
    assert problem.hint == "inputs: note, rows, topic"
    many: JsonObject = {f"name{n}": {"default": 1} for n in range(30)}
    (problem,) = problems_of(many, {"zzzzz": 1})
    assert problem.hint.endswith(", …")


@pytest.mark.parametrize(
    ("declared", "code", "path"),
    [
        ({"a": "string"}, "inputs_invalid", "inputs.a"),
        ({"type": "array"}, "inputs_invalid", "inputs.type"),
        ({"a": {"type": "strin"}}, "inputs_schema_invalid", "inputs.a.type"),
        (
            {"type": "object", "properties": {"a": {"type": "strin"}}},
            "inputs_schema_invalid",
            "inputs.properties.a.type",
        ),
        ({"type": "object", "required": "a"}, "inputs_schema_invalid", "inputs.required"),
        ({"a": {"$ref": "http://127.0.0.1/x"}}, "inputs_schema_invalid", "inputs"),
        ({"a": {"type": "integer", "default": "x"}}, "input_default_invalid", "inputs.a.default"),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}},
            "input_default_invalid",
            "inputs.properties.a.default",
        ),
    ],
)
def test_wrong_declaration_is_one_problem(declared: JsonObject, code: str, path: str) -> None:
    (problem,) = check_inputs(declared)
    assert (problem.code, problem.path) == (code, path)


def test_several_wrong_entries_are_all_named() -> None:
    problems = check_inputs({"a": "string", "b": 3, "c": {}})
    assert [problem.path for problem in problems] == ["inputs.a", "inputs.b"]


@pytest.mark.parametrize("declared", [None, {}, SHORT, LONG, {"type": "object", "properties": {}}])
def test_right_declaration_has_no_problem(declared: "JsonObject | None") -> None:
    assert check_inputs(declared) == []


def test_default_may_use_the_definitions_of_the_schema() -> None:
    declared: JsonObject = {
        "type": "object",
        "$defs": {"word": {"type": "string"}},
        "properties": {"a": {"$ref": "#/$defs/word", "default": "x"}, "b": {"default": 1}},
        "required": ["c"],
    }
    assert check_inputs(declared) == []


def test_filling_by_a_wrong_schema_says_so() -> None:
    (problem,) = problems_of({"a": {"type": "strin"}}, {"a": 1})
    assert problem.code == "inputs_schema_invalid"


def test_names_in_required_that_are_no_texts_do_no_harm() -> None:
    with pytest.raises(InvalidAutomation):
        fill_inputs({"type": "object", "required": ["a", 3]}, {})
