"""`tandem validate` and `tandem schema`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Call

GOOD = "nodes:\n  - node_id: a\n    action: {kind: command, argv: [echo, hi]}\n"


def test_valid_file_is_said_to_be_valid(call: Call, write: Callable[[str, str], str]) -> None:
    answer = call("validate", write("good.yaml", GOOD))
    assert (answer.code, answer.out, answer.err) == (0, "good.yaml: valid, 1 node\n", "")


def test_missing_file_is_not_found(call: Call) -> None:
    answer = call("validate", "nope.yaml")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err == "error: there is no file nope.yaml\n"


def test_directory_is_not_found(call: Call) -> None:
    answer = call("run", ".")
    assert answer.code == 4
    assert answer.err == "error: . is a directory; name the file with the automation\n"


CYCLE = """\
nodes:
  - {node_id: a, depends_on: [c], action: {kind: command, argv: [x]}}
  - {node_id: b, depends_on: [a], action: {kind: command, argv: [x]}}
  - {node_id: c, depends_on: [b], action: {kind: command, argv: [x]}}
"""


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        pytest.param(b"", ["bad.yaml:1:1: the file is empty [file_empty]"], id="empty"),
        pytest.param(
            bytes(range(256)) * 8, ["bad.yaml:1:1: this is no text file [not_text]"], id="binary"
        ),
        pytest.param(b"nodes: []\nnodes: []\n", ["bad.yaml:2:1:", "nodes"], id="duplicate key"),
        pytest.param(b"nodes:\n\t- node_id: a\n", ["bad.yaml:2:1:", "tab"], id="tab"),
        pytest.param(b"[" * 10_000, ["bad.yaml:1:", "deep"], id="deep nesting"),
        pytest.param(CYCLE.encode(), ["a → c → b → a", "cycle"], id="cycle"),
        pytest.param(
            GOOD.replace("argv", "arvg").encode(),
            ["bad.yaml:3:", "nodes[0].action.arvg", "did you mean `argv`?"],
            id="near miss",
        ),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_bad_file_is_explained_without_a_traceback(
    call: Call, tmp_path: Path, command: str, content: bytes, wanted: list[str]
) -> None:
    (tmp_path / "work" / "bad.yaml").write_bytes(content)
    answer = call(command, "bad.yaml")
    said = answer.out + answer.err
    assert answer.code == 3
    assert all(word in said for word in wanted), said
    assert "Traceback" not in said


def test_every_problem_of_every_file_is_listed(
    call: Call, write: Callable[[str, str], str]
) -> None:
    two = write("two.yaml", GOOD.replace("node_id", "nodeid") + "extra: 1\n")
    answer = call("validate", write("good.yaml", GOOD), two, "nope.yaml", "--json")
    assert answer.code == 3
    good, bad, missing = answer.json
    assert (good["valid"], good["nodes"]) == (True, 1)
    assert {problem["code"] for problem in bad["problems"]} >= {"field_unknown"}
    assert len(bad["problems"]) >= 2
    assert all(problem["line"] and problem["column"] for problem in bad["problems"])
    assert missing["error"] == "there is no file nope.yaml"


def test_what_cannot_run_here_is_a_warning(call: Call, write: Callable[[str, str], str]) -> None:
    text = "agents: [{agent_id: w, display_name: W}]\nnodes: [{node_id: a, agent_id: w}]\n"
    answer = call("validate", write("agent.yaml", text))
    assert answer.code == 0, answer.out
    assert "agent.yaml: warning: " in answer.out
    assert "pip install 'tandem-engine[agents]'" in answer.out


HASTY = """\
nodes:
  - node_id: a
    action: {kind: command, argv: [echo, hi]}
    retry_policy:
      backoff: {initial_delay_ms: 5s, jitter_ms: 1s}
  - node_id: b
    action: {kind: command, argv: [echo, hi]}
    retry_policy: {delay_ms: 5s}
"""


def test_delay_without_a_strategy_is_a_warning_with_its_place(
    call: Call, write: Callable[[str, str], str]
) -> None:
    file = write("hasty.yaml", HASTY)
    answer = call("validate", file)
    assert (answer.code, answer.err) == (0, "")
    first, second, verdict = answer.out.splitlines()
    assert first == (
        "hasty.yaml:5:7: warning: nodes[0].retry_policy.backoff: no delay follows from "
        "`initial_delay_ms`, `jitter_ms` without a `strategy` (write `strategy: fixed` or "
        "`strategy: exponential` beside it, or `strategy: none` if no delay is meant) "
        "[backoff_without_strategy]"
    )
    assert second.startswith("hasty.yaml:8:5: warning: ")
    assert verdict == "hasty.yaml: valid, 2 nodes"
    (found,) = call("validate", file, "--json").json
    assert (found["valid"], found["problems"]) == (True, [])
    assert [(w["node_id"], w["line"], w["column"]) for w in found["warnings"]] == [
        ("a", 5, 7),
        ("b", 8, 5),
    ]
    assert call("validate", write("calm.yaml", HASTY.replace("5s", "5s, strategy: fixed"))).out == (
        "calm.yaml: valid, 2 nodes\n"
    )


def test_run_warns_and_goes_on(call: Call, write: Callable[[str, str], str]) -> None:
    file = write("hasty.yaml", HASTY)
    answer = call("run", file, "-q")
    assert answer.code == 0
    assert [line.split(" ")[:2] for line in answer.err.splitlines()] == [
        ["hasty.yaml:5:7:", "warning:"],
        ["hasty.yaml:8:5:", "warning:"],
    ]
    answer = call("run", file, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert [(line["line"], line["code"]) for line in answer.lines if line["type"] == "warning"] == [
        (5, "backoff_without_strategy"),
        (8, "backoff_without_strategy"),
    ]


def test_schema_is_printed_or_written(call: Call, tmp_path: Path) -> None:
    printed = call("schema")
    written = call("schema", "-o", "schema.json")
    assert (printed.code, written.code, written.out) == (0, 0, "")
    assert printed.json["properties"]["nodes"]["type"] == "array"
    assert json.loads((tmp_path / "work" / "schema.json").read_text()) == printed.json


def test_schema_into_a_missing_folder_is_not_found(call: Call) -> None:
    assert call("schema", "-o", "nowhere/schema.json").code == 4
