"""Automations from files and from data: what is accepted, what is refused, and how it is said."""

import json
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.adapters.files.document import (
    automation_json_schema,
    load_automation,
    parse_automation,
)
from tandem.domain.automation import Automation, canonical_document, parse_document
from tandem.domain.errors import InvalidAutomation, NotFound, Problem
from tandem.domain.node import NodeKind

FULL = """\
name: Price change
status: active
schedule: {type: cron, cron_expression: "0 5 * * 1-5", timezone: Europe/Berlin,
           misfire_policy: {type: catch_up, max_runs: 2}}
workspace_root: /srv/prices
execution: {profile: strict, max_parallel_agents: 4, max_total_runtime_ms: 2h, workspace: shared}
concurrency: {key: "prices-${inputs.region}", limit: 1}
inputs:
  region: {type: string, default: eu}
agents:
  - agent_id: ops
    tool_policy: {allowlist: [read, write], denylist: []}
    mcp_policy: {allowed_connections: [{server: x, run_as: {type: current_actor}}]}
scope_policy: {readable_paths: [a], denied_paths: [b]}
watch_conditions: [{kind: handoff_available, artifact_type: x}]
handoff_config: {auto_approve: false}
nodes:
  - node_id: fetch
    action: {kind: http, url: "https://example.org/${inputs.region}", expect_status: [200]}
    timeout_ms: 30s
  - node_id: propose
    agent_id: ops
    objective: Propose prices from ${nodes.fetch.output.body}.
    depends_on: [fetch]
    input_refs: [{from_step_id: fetch, alias: data}]
    knowledge: {reuse_mode: disabled, read_spaces: [{scope: global}]}
    output_contract:
      kind: structured_json
      schema: {type: object, required: [items]}
      enforcement: {required_sections: [reasons], repair_budget: 1}
      verification: {argv: [python3, check.py], timeout_ms: 1m}
    retry_policy: {maxAttempts: 4, retryOn: [timed_out], strategy: exponential, delay_ms: 2s}
  - node_id: cool_off
    depends_on: [propose]
    wait: {kind: timer, delay_ms: 4h}
  - node_id: sign_off
    depends_on: [cool_off]
    gate:
      required: true
      decisions: [approve, rework]
      rework_targets: [propose]
      expiry_policy: {expires_after_ms: 1d, on_expiry: escalate, escalate_to: lead}
  - node_id: apply
    depends_on: [sign_off, propose]
    action: {kind: command, argv: [./apply, "${nodes.propose.output.items}"], env: {MODE: live}}
    effects: external
    effects_probe: [./applied]
    sandbox: false
    resources: {cpus: 1, memory_mb: 512, labels: [prod]}
"""


def write(folder: Path, text: str, name: str = "report.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path, **limits: int) -> list[Problem]:
    with pytest.raises(InvalidAutomation) as caught:
        load_automation(path, **limits)
    return list(caught.value.problems)


def data_problems(data: object) -> list[Problem]:
    with pytest.raises(InvalidAutomation) as caught:
        parse_automation(data)
    return list(caught.value.problems)


def simple(**fields: Any) -> dict[str, Any]:
    node = {"node_id": "a", "action": {"kind": "command", "argv": ["true"]}}
    return {"automation_id": "x", "nodes": [{**node, **fields}]}


def problem_of(**fields: Any) -> Problem:
    document = simple(**fields)
    if "wait" in fields:
        del document["nodes"][0]["action"]
    (problem,) = data_problems(document)
    return problem


# What is accepted


def test_full_document_is_read(tmp_path: Path) -> None:
    automation = load_automation(write(tmp_path, FULL, "Price Change.yaml"))
    assert automation.automation_id == "price-change"
    assert [node.kind for node in automation.nodes] == [
        NodeKind.HTTP,
        NodeKind.AGENT,
        NodeKind.WAIT,
        NodeKind.APPROVAL,
        NodeKind.COMMAND,
    ]
    assert automation.nodes[1].max_attempts == 4
    assert automation.nodes[2].wait is not None
    assert automation.execution is not None
    assert automation.execution.max_total_runtime_ms == 7_200_000
    assert automation.parallel_max == 4
    assert parse_document(canonical_document(automation)) == automation


def test_long_and_short_form_mean_the_same(tmp_path: Path) -> None:
    node = "{node_id: a, action: {kind: command, argv: [x]}}"
    short = load_automation(write(tmp_path, f"nodes: [{node}]"))
    long = load_automation(write(tmp_path, f"flow: {{nodes: [{node}]}}"))
    assert short == long


def test_json_file_means_the_same_as_yaml(tmp_path: Path) -> None:
    document = simple(objective="\U0001f600 tab\there")
    text = json.dumps(document, indent="\t")
    from_json = load_automation(write(tmp_path, text, "x.json"))
    assert from_json == parse_automation(document)
    assert "\\ud83d" in text


@pytest.mark.parametrize(
    ("name", "automation_id"),
    [
        ("report.yaml", "report"),
        ("My Report (v2).yml", "my-report-v2"),
        (".tandem.yaml", "tandem"),
        ("日本.yaml", "automation"),
        ("a..b.yaml", "a.b"),
        ("x" * 150 + ".yaml", "x" * 100),
    ],
)
def test_file_name_gives_the_id(tmp_path: Path, name: str, automation_id: str) -> None:
    text = "nodes: [{node_id: a, action: {kind: command, argv: [x]}}]"
    automation = load_automation(write(tmp_path, text, name))
    assert automation.automation_id == automation_id
    assert automation.name == automation_id
    named = load_automation(write(tmp_path, f"automation_id: own\n{text}", name))
    assert named.automation_id == "own"


def test_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(
        b"\xef\xbb\xbfnodes:\r\n  - node_id: a\r\n    action: {kind: command, argv: [x]}\r\n"
    )
    assert load_automation(path).nodes[0].node_id == "a"


def test_anchors_may_be_used(tmp_path: Path) -> None:
    text = (
        "nodes:\n"
        "  - {node_id: a, action: &run {kind: command, argv: [x]}}\n"
        "  - {node_id: b, action: *run, depends_on: [a]}\n"
    )
    first, second = load_automation(write(tmp_path, text)).nodes
    assert first.action == second.action


# Files


def test_missing_file_and_directory_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no file .*none\.yaml"):
        load_automation(tmp_path / "none.yaml")
    with pytest.raises(NotFound, match="is a directory"):
        load_automation(tmp_path)
    with pytest.raises(NotFound, match="cannot be read"):
        load_automation(write(tmp_path, "x") / "below")
    with pytest.raises(NotFound, match="cannot be read"):
        load_automation(Path("a\0b"))


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        (b"", "file_empty", (1, 1)),
        (b" \n\t\n", "file_empty", (1, 1)),
        (b"# only a comment\n", "file_empty", (1, 1)),
        (b"---\n", "file_empty", (1, 1)),
        (b"a: \x00", "not_text", (1, 1)),
        ("nodes: ä".encode("utf-16"), "not_text", (1, 1)),
        (b"a: 1\nb: \xff", "not_text", (2, 4)),
        (b"- a\n- b\n", "field_type", (1, 1)),
        (b"hello", "field_type", (1, 1)),
        (b"a: 1\n---\nb: 2\n", "several_documents", (2, 1)),
    ],
)
def test_files_that_hold_no_document(
    tmp_path: Path, content: bytes, code: str, place: tuple[int, int]
) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    (problem,) = problems_of(path)
    assert (problem.code, (problem.line, problem.column)) == (code, place)
    assert problem.file == str(path)


def test_size_and_depth_are_bounded(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "a: 1234567"), size_bytes_max=9)
    assert problem.code == "file_too_large"
    (problem,) = problems_of(write(tmp_path, "a: [[[1]]]"), depth_max=3)
    assert problem.code == "document_too_deep"
    (problem,) = problems_of(write(tmp_path, "a: " + "[" * 10_000))
    assert problem.code == "document_too_deep"


# Problems: all at once, in order, with their places


def test_every_mistake_of_a_file_is_reported_in_one_pass(tmp_path: Path) -> None:
    text = (
        "name: x\n"
        "statu: active\n"
        "agents:\n"
        "  - {agent_id: w, tool_polcy: {}}\n"
        "inputs: {topic: {type: strin}}\n"
        "nodes:\n"
        "  - node_id: a\n"
        "    depends_on: [c]\n"
        "    action: {kind: comand}\n"
        "  - node_id: b\n"
        "    depends_on: [a, zz]\n"
        '    action: {kind: command, argv: [x, "${nodes.dd.output}"]}\n'
        "    sandbox: yes\n"
        "  - node_id: c\n"
        "    depends_on: [b]\n"
        "    timeout_ms: 12:30\n"
        "    stage_kind: revew\n"
        "  - {node_id: d, agent_id: nobody, input_refs: [{from_step_id: a}], node_id: e}\n"
    )
    path = write(tmp_path, text)
    assert [(p.line, p.column, p.path, p.code) for p in problems_of(path)] == [
        (2, 1, "statu", "field_unknown"),
        (4, 19, "agents[0].tool_polcy", "field_unknown"),
        (5, 18, "inputs.topic.type", "inputs_schema_invalid"),
        (8, 5, "nodes[0].depends_on", "dependency_cycle"),
        (9, 14, "nodes[0].action.kind", "field_value"),
        (11, 21, "nodes[1].depends_on[1]", "dependency_unknown"),
        (12, 39, "nodes[1].action.argv[1]", "reference_unknown_node"),
        (13, 14, "nodes[1].sandbox", "yaml_ambiguous"),
        (16, 17, "nodes[2].timeout_ms", "yaml_ambiguous"),
        (17, 5, "nodes[2].stage_kind", "field_value"),
        (18, 18, "nodes[3].agent_id", "agent_unknown"),
        (18, 49, "nodes[3].input_refs[0].alias", "field_missing"),
        (18, 69, "nodes[3].node_id", "duplicate_key"),
    ]
    assert all(problem.file == str(path) for problem in problems_of(path))


def test_problem_shows_file_line_path_hint_and_code(tmp_path: Path) -> None:
    path = write(tmp_path, "nodes:\n  - node_id: a\n    agnt_id: w\n    agent_id: w\n")
    with pytest.raises(InvalidAutomation) as caught:
        load_automation(path)
    assert (
        f"{path}:3:5: nodes[0].agnt_id: there is no key `agnt_id` here"
        " (did you mean `agent_id`?) [field_unknown]"
    ) in str(caught.value)


def test_places_are_found_in_the_long_form_too(tmp_path: Path) -> None:
    text = "flow:\n  nodes:\n    - node_id: a\n      depends_on: [zz]\n      agent_id: 5\n"
    assert [(p.line, p.path) for p in problems_of(write(tmp_path, text))] == [
        (4, "nodes[0].depends_on[0]"),
        (5, "nodes[0].agent_id"),
    ]


def test_places_inside_aliases_are_those_of_the_alias(tmp_path: Path) -> None:
    text = (
        "nodes:\n  - node_id: a\n    action: &k {kind: command}\n  - node_id: b\n    action: *k\n"
    )
    problems = problems_of(write(tmp_path, text))
    assert [(p.line, p.code) for p in problems] == [
        (3, "action_command_invalid"),
        (5, "action_command_invalid"),
    ]


def test_traps_alone_make_a_document_wrong(tmp_path: Path) -> None:
    text = "nodes: [{node_id: a, objective: no, action: {kind: command, argv: [x]}}]"
    (problem,) = problems_of(write(tmp_path, text))
    assert problem.code == "yaml_ambiguous"


def test_data_problems_have_paths_but_no_places() -> None:
    problem = problem_of(nod="x")
    assert (problem.path, problem.line, problem.file) == ("nodes[0].nod", 0, "")


def test_nodes_may_be_given_once() -> None:
    node = simple()["nodes"]
    (problem,) = data_problems({"automation_id": "x", "nodes": node, "flow": {"nodes": node}})
    assert (problem.code, problem.path) == ("nodes_twice", "nodes")


def test_missing_nodes_and_id_are_said() -> None:
    assert [(p.code, p.path) for p in data_problems({})] == [
        ("field_missing", "automation_id"),
        ("no_nodes", "nodes"),
    ]


@pytest.mark.parametrize("flow", [None, [], {"nodes": {}}, {"nodes": None}, {"x": []}, {}])
def test_flow_of_the_wrong_shape(flow: object) -> None:
    problems = data_problems({"automation_id": "x", "flow": flow})
    assert problems
    assert all(p.code in ("field_type", "field_missing", "field_unknown") for p in problems)


@pytest.mark.parametrize(
    ("fields", "path", "message", "hint"),
    [
        ({"nod": 1}, "nod", "there is no key `nod` here", "did you mean `node_id`?"),
        ({"zzzzzz": 1}, "zzzzzz", "there is no key `zzzzzz` here", "keys here: node_id, agent_id"),
        (
            {"output_contract": {"shema": {}}},
            "output_contract.shema",
            "there is no key `shema` here",
            "did you mean `schema`?",
        ),
        (
            {"retry_policy": {"maxAttempt": 3}},
            "retry_policy.maxAttempt",
            "there is no key `maxAttempt` here",
            "did you mean `maxAttempts`?",
        ),
        (
            {"action": {"kind": "command", "argv": ["x"], "agrv": []}},
            "action.agrv",
            "there is no key `agrv` here",
            "did you mean `argv`?",
        ),
        (
            {"action": {"kind": "command", "argv": ["x"], "output": {"fromat": "json"}}},
            "action.output.fromat",
            "there is no key `fromat` here",
            "did you mean `format`?",
        ),
        (
            {"wait": {"kind": "approval", "approval": 1}},
            "wait.approval",
            "there is no key `approval` here",
            "keys here: kind, decisions, expires_after_ms, timeout",
        ),
        (
            {"action": {"argv": ["x"]}},
            "action",
            "`kind` is missing; it is one of: command, python, http, agent",
            "",
        ),
        (
            {"action": {"kind": "comand"}},
            "action.kind",
            "`comand` is not one of: command, python, http, agent",
            "did you mean `command`?",
        ),
        (
            {"action": {"kind": "mcp_tool"}},
            "action.kind",
            "`mcp_tool` is not available in this version; there are: command",
            "",
        ),
        ({"action": {"kind": ["x"]}}, "action.kind", "`['x']` is not one of: command", ""),
        ({"action": "x"}, "action", "must be a mapping, not a text", ""),
        (
            {"wait": {"kind": "timr"}},
            "wait.kind",
            "is not one of: timer, approval, webhook, external_condition",
            "did you mean `timer`?",
        ),
        (
            {"wait": {"kind": "timer", "wake_at": {"value": 3}}},
            "wait.wake_at",
            "`source` is missing; it is one of: literal, node_output",
            "",
        ),
        ({"objective": 5}, "objective", "must be a text, not a number", "quote it"),
        ({"objective": True}, "objective", "must be a text, not a boolean", "quote it"),
        ({"objective": ["x"]}, "objective", "must be a text, not a list", ""),
        (
            {"depends_on": None},
            "depends_on",
            "must be a list, not null",
            "remove the key or give it a value",
        ),
        ({"depends_on": "a"}, "depends_on", "must be a list, not a text", ""),
        ({"depends_on": {}}, "depends_on", "must be a list, not a mapping", ""),
        ({"sandbox": "true"}, "sandbox", "must be true or false, not a text", ""),
        ({"sandbox": 1}, "sandbox", "must be true or false, not a number", ""),
        ({"max_tool_calls": "5"}, "max_tool_calls", "must be a whole number, not a text", ""),
        ({"max_tool_calls": 1.5}, "max_tool_calls", "must be a whole number, not `1.5`", ""),
        ({"max_tool_calls": -1}, "max_tool_calls", "must be at least 0, not `-1`", ""),
        ({"timeout_ms": 0}, "timeout_ms", "must be more than 0, not `0`", ""),
        ({"timeout_ms": "5 min"}, "timeout_ms", "`5 min` is not a duration: write", ""),
        ({"timeout_ms": 2**60}, "timeout_ms", "must be at most 9007199254740991", ""),
        ({"resources": {"cpus": "1"}}, "resources.cpus", "must be a number, not a text", ""),
        ({"stage_kind": "revew"}, "stage_kind", "`revew` is not one of:", "did you mean `review`?"),
        ({"stage_kind": "x" * 99}, "stage_kind", "`" + "x" * 40 + "…` is not one of:", ""),
        ({"gate": 3}, "gate", "must be a mapping, not a number", ""),
        (
            {"action": {"kind": "python", "function": "a.b"}},
            "action.function",
            "`a.b` is not of the form package.module:function",
            "",
        ),
        (
            {"action": {"kind": "command", "argv": ["x"], "env": {"A-B": "x"}}},
            "action.env.A-B",
            "`A-B` is no name of an environment variable",
            "",
        ),
        (
            {"action": {"kind": "command", "argv": ["x"], "env": {"A": 5}}},
            "action.env.A",
            "must be a text, not a number",
            "quote it",
        ),
        (
            {"action": {"kind": "command", "argv": ["x"], "exit_codes": []}},
            "action.exit_codes",
            "must not be empty",
            "",
        ),
        ({"output_contract": {"kind": ""}}, "output_contract.kind", "must not be empty", ""),
        (
            {"retry_policy": {"strategy": "fixed", "backoff": {}}},
            "retry_policy",
            "`strategy` belongs inside `backoff`, which is given too",
            "",
        ),
        ({"for_each": {"items": 3}}, "for_each", "`items` must be a list or a reference", ""),
        ({"for_each": {}}, "for_each.items", "`items` is missing", ""),
    ],
)
def test_mistakes_of_shape_are_said_in_plain_words(
    fields: dict[str, Any], path: str, message: str, hint: str
) -> None:
    problem = problem_of(**fields)
    assert problem.path == f"nodes[0].{path}"
    assert message in problem.message
    assert problem.hint.startswith(hint) if hint else problem.hint == ""


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        (
            "schedule",
            {"type": "manual", "misfire_policy": {"type": "x"}},
            "schedule.misfire_policy.type",
        ),
        ("executor", "gpu", "executor"),
        ("agents", ["x"], "agents[0]"),
        ("inputs", [], "inputs"),
        ("concurrency", {"limit": 1}, "concurrency.key"),
        ("execution", {"max_total_cost_usd": -1}, "execution.max_total_cost_usd"),
    ],
)
def test_mistakes_at_the_top(field: str, value: object, path: str) -> None:
    (problem,) = data_problems({**simple(), field: value})
    assert problem.path == path


def test_unknown_key_at_the_top_may_be_meant_as_nodes() -> None:
    document = simple()
    document["node"] = document.pop("nodes")
    problems = data_problems(document)
    assert [(p.code, p.hint) for p in problems] == [
        ("field_unknown", "did you mean `nodes`?"),
        ("no_nodes", ""),
    ]


def test_what_only_follows_from_another_mistake_is_not_said() -> None:
    document = {
        "automation_id": 5,
        "agents": "x",
        "inputs": [],
        "nodes": [
            {"node_id": "a", "agent_id": "w", "objective": "${inputs.x}"},
            {"node_id": "b", "depends_on": [3], "agnt_id": "w"},
            {
                "node_id": "c",
                "agent_id": "w",
                "depends_on": ["b"],
                "input_refs": [{"from_step_id": "a", "alias": "x"}],
            },
            3,
        ],
    }
    problems = data_problems(document)
    assert [(p.code, p.path) for p in problems] == [
        ("field_type", "automation_id"),
        ("field_type", "agents"),
        ("field_type", "nodes[1].depends_on[0]"),
        ("field_unknown", "nodes[1].agnt_id"),
        ("field_type", "nodes[3]"),
        ("field_type", "inputs"),
    ]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (float("nan"), "nodes[0].metadata"),
        (float("inf"), "nodes[0].metadata"),
        (2**64, "nodes[0].metadata"),
        (-(2**63) - 1, "nodes[0].metadata"),
        ("\ud800", "nodes[0].metadata"),
        ({1: 2}, "nodes[0].metadata"),
        ({"\ud800": 2}, "nodes[0].metadata"),
        ([{1, 2}], "nodes[0].metadata[0]"),
        ({"a": b"x"}, "nodes[0].metadata.a"),
    ],
)
def test_values_that_json_cannot_keep_are_refused(value: object, path: str) -> None:
    problem = problem_of(metadata=value)
    assert (problem.code, problem.path) == ("not_json", path)


def test_values_that_json_can_keep_are_kept() -> None:
    metadata = {"a": 2**64 - 1, "b": -(2**63), "c": 1e300, "d": "日本\0", "e": [None, True]}
    automation = parse_automation(simple(metadata=metadata))
    assert automation.nodes[0].metadata == metadata
    assert parse_document(canonical_document(automation)) == automation


def test_data_that_contains_itself_is_refused() -> None:
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    assert problem_of(metadata=metadata).code == "not_json"


def test_large_numbers_in_files_keep_their_value_or_are_refused(tmp_path: Path) -> None:
    text = "nodes: [{node_id: a, metadata: %s, action: {kind: command, argv: [x]}}]"
    assert load_automation(write(tmp_path, text % (2**63))).nodes[0].metadata == 2**63
    (problem,) = problems_of(write(tmp_path, text % (2**70)))
    assert (problem.code, problem.line) == ("not_json", 1)
    (problem,) = problems_of(write(tmp_path, text % "1e999"))
    assert problem.code == "not_json"


# The schema for editors


def test_json_schema_is_valid_and_accepts_the_full_document(tmp_path: Path) -> None:
    import yaml

    schema = automation_json_schema()
    jsonschema_rs.meta.validate(schema)
    validator = jsonschema_rs.validator_for(schema)
    document = yaml.safe_load(FULL)
    assert [error.message for error in validator.iter_errors(document)] == []
    assert load_automation(write(tmp_path, FULL))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"nodes": [], "flow": {"nodes": []}},
        {"nodes": [{"node_id": "a", "nod": 1}]},
        {"nodes": [{"node_id": "a", "timeout_ms": "5 minutes"}]},
        {"nodes": [{"node_id": "a", "action": {"kind": "comand"}}]},
        {"nodes": [{"node_id": "a", "output_contract": {"output_schema": {}}}]},
        {"nodes": [{}]},
    ],
)
def test_json_schema_refuses_what_the_loader_refuses(document: dict[str, Any]) -> None:
    assert not jsonschema_rs.validator_for(automation_json_schema()).is_valid(document)
    with pytest.raises(InvalidAutomation):
        parse_automation(document, automation_id_default="x")


def test_json_schema_is_plain_json() -> None:
    assert json.loads(json.dumps(automation_json_schema())) == automation_json_schema()


# Anything at all


@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_automation_or_a_refusal(tmp_path_factory: Any, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    for name in ("any.yaml", "any.json"):
        (folder / name).write_bytes(content)
        with pytest.raises(InvalidAutomation) as caught:
            load_automation(folder / name)
        assert caught.value.problems


keys = st.sampled_from([*Automation.model_fields, "nodes"])
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["nodes", "node_id", "kind", "type", "action", "wait", "gate", "depends_on", "argv"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(keys, junk, max_size=6))
def test_any_data_ends_in_an_automation_or_a_refusal(data: dict[str, Any]) -> None:
    try:
        automation = parse_automation(data, automation_id_default="x")
    except InvalidAutomation as error:
        problems = error.problems
    else:
        problems = ()
        assert isinstance(automation, Automation)
    assert all(problem.message and problem.code for problem in problems)


def test_three_thousand_nodes_are_read_in_seconds(tmp_path: Path) -> None:
    nodes = "".join(
        f"  - node_id: n{i}\n    depends_on: [{f'n{i - 1}' if i else ''}]\n"
        "    action: {kind: command, argv: [echo, hello]}\n"
        for i in range(3000)
    )
    path = write(tmp_path, f"nodes:\n{nodes}")
    started = time.process_time()
    assert len(load_automation(path).nodes) == 3000
    assert time.process_time() - started < 4
