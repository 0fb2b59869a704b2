"""A mistake of shape hides no other mistake, and is not said twice."""

import copy
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tandem.adapters.files.document import parse_automation
from tandem.adapters.files.tree import Path, path_text
from tandem.adapters.files.yaml_loader import load_yaml
from tandem.domain.errors import InvalidAutomation
from tests.adapters.test_automation_file import FULL

Found = set[tuple[str, str]]
"""The code and the path of each problem."""

WRONG: Final = ({"?": 1}, [[]], 2.5)
"""What is right nowhere but where anything is."""

RIGHT: Final = (("nodes", 4, "resources", "cpus"), 2.5)
"""Where it is right after all."""

MISTAKES: Final[dict[Path, object]] = {
    ("schedule", "timezone"): "Nowhere",
    ("agents", 1): {"agent_id": " "},
    ("concurrency", "key"): "${inputs.nope}",
    ("nodes", 0, "action", "url"): "ftp://x/${inputs.nope}",
    ("nodes", 0, "action", "expect_status"): [9],
    ("nodes", 1, "objective"): "${nodes.nope.output}",
    ("nodes", 1, "output_contract", "required_files"): ["/etc/x"],
    ("nodes", 1, "output_contract", "verification", "argv"): [" "],
    ("nodes", 1, "input_refs", 0, "from_step_id"): "nope",
    ("nodes", 2, "wait", "delay_ms"): 0,
    ("nodes", 2, "timeout_ms"): 5,
    ("nodes", 3, "gate", "rework_targets"): ["nope"],
    ("nodes", 3, "gate", "decisions"): ["approve", "approve"],
    ("nodes", 3, "gate", "expiry_policy", "remind_every_ms"): 0,
    ("nodes", 4, "action", "argv"): ["./a", "${nodes.nope.output}"],
    ("nodes", 4, "action", "env", "MODE"): "${inputs.nope}",
    ("nodes", 4, "action", "cwd"): "../x",
    ("nodes", 4, "depends_on", 2): "nope",
}

# What decides how a part is read at all: without it nobody can say what else is wrong there.
DECIDING: Final[dict[Path, Path]] = {
    ("nodes", 0, "action", "kind"): ("nodes", 0, "action"),
    ("nodes", 4, "action", "kind"): ("nodes", 4, "action"),
    ("nodes", 2, "wait"): ("nodes", 2),
    ("nodes", 2, "wait", "kind"): ("nodes", 2),
    ("nodes", 3, "gate", "required"): ("nodes", 3, "gate"),
    ("nodes", 3, "gate", "decisions", 0): ("nodes", 3, "gate", "decisions"),
    ("nodes", 3, "gate", "decisions", 1): ("nodes", 3, "gate", "decisions"),
    ("agents", 0): ("agents",),
}


def test_a_mistake_of_shape_is_said_where_it_is_and_nowhere_else() -> None:
    document = full()
    assert found_in(document) == set()
    for path in places(document):
        if is_name_of_node(path) or is_free(path):
            continue
        for value in WRONG:
            found = found_in(replaced(document, path, value))
            assert {there for _, there in found if not is_within(there, path)} == set(), path
            assert found or (path, value) == RIGHT or path[0] == "inputs", (path, value)


def test_a_mistake_of_shape_hides_no_broken_rule() -> None:
    document = full()
    for path, value in MISTAKES.items():
        document = replaced(document, path, value)
    rules = found_in(document)
    assert len(rules) == len(MISTAKES) + 1  # the URL is wrong in two ways
    for path in places(document):
        if is_free(path):
            continue
        for value in WRONG:
            found = found_in(replaced(document, path, value))
            hidden = {rule for rule in rules - found if not is_within(rule[1], path)}
            assert hidden == {rule for rule in hidden if may_hide(path, rule)}, path
            if not is_name_of_node(path):
                assert {new for new in found - rules if not is_within(new[1], path)} == set()


def test_a_kind_that_is_evidently_meant_hides_nothing() -> None:
    document = replaced(full(), ("nodes", 4, "action", "kind"), "comand")
    document["nodes"][4]["action"] |= {"env": {"MODE": "${inputs.nope}"}, "argvs": []}
    assert found_in(document) == {
        ("field_value", "nodes[4].action.kind"),
        ("field_unknown", "nodes[4].action.argvs"),
        ("reference_unknown_input", "nodes[4].action.env.MODE"),
    }


@pytest.mark.parametrize("given", ["xyz", 3, None])
def test_nothing_is_said_of_a_part_whose_kind_is_unknown(given: object) -> None:
    document = replaced(full(), ("nodes", 4, "action", "kind"), given)
    document["nodes"][4]["action"]["env"]["MODE"] = "${inputs.nope}"
    (problem,) = found_in(document)
    assert problem[1].startswith("nodes[4].action")


def test_a_name_that_must_be_quoted_is_still_a_name() -> None:
    document = {
        "automation_id": "x",
        "nodes": [
            {"node_id": 7, "agent_id": "a"},
            {"node_id": "b", "depends_on": ["7"], "agent_id": "a"},
        ],
    }
    assert found_in(document) == {
        ("field_type", "nodes[0].node_id"),
        ("agent_unknown", "nodes[0].agent_id"),
        ("agent_unknown", "nodes[1].agent_id"),
    }


def test_what_json_cannot_keep_hides_nothing_either() -> None:
    document = full()
    document["nodes"][0]["metadata"] = {"a": [1, float("nan")]}
    document["nodes"][0]["timeout_ms"] = 2**70
    document["nodes"][1]["sandbox"] = "no"
    document["nodes"][4]["action"]["cwd"] = "/"
    assert found_in(document) == {
        ("not_json", "nodes[0].metadata.a[1]"),
        ("not_json", "nodes[0].timeout_ms"),
        ("field_type", "nodes[1].sandbox"),
        ("path_invalid", "nodes[4].action.cwd"),
    }


def full() -> dict[str, Any]:
    value = load_yaml(FULL, file="full.yaml").value
    assert isinstance(value, dict)
    return {"automation_id": "x", **value}


def found_in(document: object) -> Found:
    try:
        parse_automation(document)
    except InvalidAutomation as error:
        found = [(problem.code, problem.path) for problem in error.problems]
        assert len(set(found)) == len(found)
        return set(found)
    return set()


def places(value: object, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def replaced(document: dict[str, Any], path: Path, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    container: Any = changed
    for step in path[:-1]:
        container = container[step]
    if isinstance(container, list) and path[-1] == len(container):
        container.append(value)
    else:
        container[path[-1]] = value
    return changed


def is_within(text: str, path: Path) -> bool:
    """Whether a problem is told at `path`; a schema and a list are told as a whole."""
    return text.startswith(path_text(path)) or path_text(path).startswith(f"{text}[")


def is_free(path: Path) -> bool:
    """Whether what is there has a schema of its own, or is told by another name."""
    return "schema" in path or "retry_policy" in path[:-1] or path == ("nodes",)


def is_name_of_node(path: Path) -> bool:
    """Whether a node loses its name there, so that others name what is not there."""
    return path[:1] == ("nodes",) and (len(path) == 2 or path[2:] == ("node_id",))


def may_hide(path: Path, rule: tuple[str, str]) -> bool:
    if path[0] == "inputs":
        return rule[0] == "reference_unknown_input"
    return path in DECIDING and rule[1].startswith(path_text(DECIDING[path]))
