"""The inputs of a run: what the document declares, what was given, what the defaults add."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final, TypeGuard

from tandem.domain.errors import InvalidAutomation, Problem
from tandem.domain.json import JsonObject, JsonValue
from tandem.domain.schema_check import InvalidSchema, Violation, compile_schema

NAMES_SHOWN_MAX: Final = 10

# Keywords that let a schema accept names it does not list under `properties`.
_OPENING_KEYWORDS: Final = frozenset(
    {
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "propertyNames",
        "$ref",
        "$dynamicRef",
        "allOf",
        "anyOf",
        "oneOf",
        "if",
        "dependentSchemas",
    }
)
_EMPTY: Final[JsonObject] = {"type": "object", "properties": {}, "additionalProperties": False}


def input_schema(declared: "JsonObject | None") -> JsonObject:
    """Return the JSON Schema of the inputs as one object schema.

    A schema of type `object` is kept; it accepts only the names it lists unless it says otherwise.
    A map from names to schemas is the shorthand for its properties: there an input is required
    when it has no `default`, unless `required` says otherwise. Nothing declared means no inputs.

    Raises:
        InvalidAutomation: `declared` is neither.
    """
    if declared is None:
        return _EMPTY
    if not _is_object_schema(declared):
        return _from_shorthand(declared)
    if declared.get("type", "object") != "object":
        raise InvalidAutomation(
            [
                Problem(
                    code="inputs_invalid",
                    message="the inputs of a run are an object",
                    path="inputs.type",
                    hint="use `type: object`, with an entry of `properties` for each input",
                )
            ]
        )
    if _OPENING_KEYWORDS.isdisjoint(declared):
        return {"type": "object", **declared, "additionalProperties": False}
    return {"type": "object", **declared}


def declared_names(schema: JsonObject) -> frozenset[str] | None:
    """Return the names that `schema` (of `input_schema`) accepts, `None` when it is open."""
    if schema.get("additionalProperties") is not False or "patternProperties" in schema:
        return None
    return frozenset(_properties(schema))


def declares(declared: "JsonObject | None", name: str) -> bool:
    """Say whether a declaration names this input.

    Raises:
        InvalidAutomation: the declaration is no schema.
    """
    return name in _properties(input_schema(declared))


def fill_inputs(declared: "JsonObject | None", given: JsonObject) -> JsonObject:
    """Return `given` with the defaults of what is missing, checked against the declaration.

    Defaults of nested objects are filled where their object is there.

    Raises:
        InvalidAutomation: with one problem for each input that is missing, unknown or wrong.
    """
    if declared is None and not given:
        return {}
    schema = input_schema(declared)
    try:
        checker = compile_schema(_without_required(schema))
    except InvalidSchema as error:
        raise InvalidAutomation([_schema_problem(error, declared)]) from error
    filled = _filled(schema, given)
    names = declared_names(schema)
    unknown = [] if names is None else [name for name in given if name not in names]
    problems = [_unknown_input(name, sorted(names or ())) for name in unknown]
    problems += [_missing_input(name) for name in _required(schema) if name not in filled]
    known = {name: value for name, value in filled.items() if name not in unknown}
    problems += [_violation_problem(v) for v in checker.violations(known)]
    if problems:
        raise InvalidAutomation(problems)
    return filled


def check_inputs(declared: "JsonObject | None") -> list[Problem]:
    """Return what is wrong with a declaration: its schema, and defaults that do not fit it."""
    try:
        schema = input_schema(declared)
        compile_schema(schema)
    except InvalidAutomation as error:
        return list(error.problems)
    except InvalidSchema as error:
        return [_schema_problem(error, declared)]
    place = (
        "inputs.properties" if declared is not None and _is_object_schema(declared) else "inputs"
    )
    return [
        problem
        for name, property_schema in _properties(schema).items()
        for problem in _default_problems(schema, name, property_schema, f"{place}.{name}")
    ]


def _default_problems(
    schema: JsonObject, name: str, property_schema: JsonValue, path: str
) -> list[Problem]:
    if not isinstance(property_schema, Mapping) or "default" not in property_schema:
        return []
    # Checked through the whole schema, whose `$defs` the property may refer to.
    alone = compile_schema(_without_required(schema))
    value = _with_defaults(property_schema, property_schema["default"])
    return [
        Problem(
            code="input_default_invalid",
            message=f"the default of input `{name}` does not fit: {violation.message}",
            path=f"{path}.default",
        )
        for violation in alone.violations({name: value})
        if violation.path[:1] == (name,)
    ]


def _is_object_schema(declared: JsonObject) -> bool:
    if isinstance(declared.get("type"), str | list):
        return True
    properties = declared.get("properties")
    if isinstance(properties, Mapping):
        return all(isinstance(value, Mapping | bool) for value in properties.values())
    return "$ref" in declared and isinstance(declared["$ref"], str)


def _from_shorthand(declared: JsonObject) -> JsonObject:
    wrong = [name for name, value in declared.items() if not isinstance(value, Mapping)]
    if wrong:
        raise InvalidAutomation([_not_described(name) for name in wrong])
    properties: dict[str, JsonValue] = {}
    required: list[JsonValue] = []
    for name, described in declared.items():
        assert isinstance(described, Mapping)
        marked = described.get("required")
        if isinstance(marked, bool):
            described = {k: v for k, v in described.items() if k != "required"}
        if marked is True or (marked is not False and "default" not in described):
            required.append(name)
        properties[name] = described
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _with_defaults(schema: JsonValue, value: JsonValue) -> JsonValue:
    if isinstance(schema, Mapping) and isinstance(value, Mapping):
        return _filled(schema, value)
    return value


def _filled(schema: JsonObject, value: JsonObject) -> JsonObject:
    filled = dict(value)
    for name, inner in _properties(schema).items():
        if name in filled:
            filled[name] = _with_defaults(inner, filled[name])
        elif isinstance(inner, Mapping) and "default" in inner:
            filled[name] = _with_defaults(inner, inner["default"])
    return filled


def _without_required(schema: JsonObject) -> JsonObject:
    return {key: value for key, value in schema.items() if key != "required"}


def _required(schema: JsonObject) -> list[str]:
    required = schema.get("required")
    return [name for name in required if isinstance(name, str)] if _is_list(required) else []


def _is_list(value: JsonValue) -> TypeGuard[Sequence[JsonValue]]:
    return isinstance(value, list | tuple)


def _properties(schema: JsonObject) -> JsonObject:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _not_described(name: str) -> Problem:
    return Problem(
        code="inputs_invalid",
        message=f"input `{name}` is not described by an object",
        path=f"inputs.{name}",
        hint="write for example {type: string, default: hello}",
    )


def _schema_problem(error: InvalidSchema, declared: "JsonObject | None") -> Problem:
    path = error.path
    if path[:1] == ("properties",) and declared is not None and not _is_object_schema(declared):
        path = path[1:]
    return Problem(code="inputs_schema_invalid", message=str(error), path=_input_path(path))


def _violation_problem(violation: Violation) -> Problem:
    return Problem(
        code="input_invalid", message=violation.message, path=_input_path(violation.path)
    )


def _input_path(path: tuple[str | int, ...]) -> str:
    return "inputs" + "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path)


def _missing_input(name: str) -> Problem:
    return Problem(
        code="input_missing",
        message=f"input `{name}` is missing and has no default",
        path=f"inputs.{name}",
    )


def _unknown_input(name: str, names: list[str]) -> Problem:
    close = get_close_matches(name, names, n=1)
    if close:
        hint = f"did you mean `{close[0]}`?"
    elif names:
        shown = ", ".join(names[:NAMES_SHOWN_MAX])
        hint = f"inputs: {shown}" + (", …" if len(names) > NAMES_SHOWN_MAX else "")
    else:
        hint = "this automation declares no inputs"
    return Problem(
        code="input_unknown",
        message=f"there is no input `{name}`",
        path=f"inputs.{name}",
        hint=hint,
    )
