"""Every rule between the parts of an automation."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.domain.automation import Automation
from tandem.domain.errors import Problem
from tandem.domain.validation import NODES_MAX, NearestName, check_automation

AGENTS = [{"agent_id": "writer"}]
TIMEOUT = {"expires_after_ms": 1000, "on_timeout": "cancel"}


def step(node_id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A node that is right by itself."""
    action = {"kind": "command", "argv": ["true"]}
    return {"node_id": node_id, "depends_on": list(depends_on), "action": action, **fields}


def bare(node_id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A node without an action."""
    return {"node_id": node_id, "depends_on": list(depends_on), **fields}


def echo(node_id: str, text: str, *depends_on: str) -> dict[str, Any]:
    return step(node_id, *depends_on, action={"kind": "command", "argv": ["echo", text]})


def problems_of(*nodes: dict[str, Any], **fields: Any) -> list[Problem]:
    document = {"automation_id": "a", "agents": AGENTS, "flow": {"nodes": list(nodes)}, **fields}
    return check_automation(Automation.model_validate(document))


def found(*nodes: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in problems_of(*nodes, **fields)]


def found_in_wait(wait: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    """What is wrong with a node `w` that depends on `a`."""
    return [
        (code, path.removeprefix("nodes[1]"))
        for code, path in found(step("a"), bare("w", "a", wait=wait, **fields))
    ]


def found_in_action(action: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    return [
        (code, path.removeprefix("nodes[0]"))
        for code, path in found(step("a", **{"action": action, **fields}))
    ]


# The document


def test_right_automation_has_no_problem() -> None:
    assert (
        found(
            echo("a", "${inputs.topic}"),
            bare("b", "a", agent_id="writer", objective="Use ${nodes.a.output} and ${X}"),
            bare("ok", "b", gate={"required": True, "rework_targets": ["b"]}),
            step(
                "c",
                "ok",
                input_refs=[{"from_step_id": "a", "alias": "x"}],
                output_contract={"schema": {"type": "object"}, "required_files": ["out/x.md"]},
            ),
            inputs={"topic": {"type": "string"}},
            concurrency={"key": "k-${inputs.topic}", "limit": 2},
            workspace_root="/ws",
        )
        == []
    )


def test_automation_without_nodes() -> None:
    assert found() == [("no_nodes", "nodes")]


def test_too_many_nodes_are_refused_at_once() -> None:
    assert found(*[step("a")] * (NODES_MAX + 1)) == [("too_many_nodes", "nodes")]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        " ",
        "a/b",
        "..",
        "a..b",
        ".",
        "a`b",
        "a\nb",
        "a\\b",
        "x" * 129,
        " a",
        "a ",
        "\x7f",
        "a\u2028",
    ],
)
def test_bad_ids_are_refused(bad: str) -> None:
    assert ("node_id_invalid", "nodes[0].node_id") in found(step(bad))
    assert ("automation_id_invalid", "automation_id") in found(step("a"), automation_id=bad)


@pytest.mark.parametrize("good", ["a", "a.b", "Schritt 1", "é-ü_2", "x" * 128, "日本", "$x"])
def test_good_ids_are_accepted(good: str) -> None:
    assert found(step(good), automation_id=good) == []


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\0", "x" * 201])
def test_a_name_is_one_printable_line(name: str) -> None:
    assert found(step("a"), name=name) == [("name_invalid", "name")]


def test_a_name_has_any_script_and_200_characters() -> None:
    assert found(step("a"), name="ü" * 200) == []


@pytest.mark.parametrize(
    "fields", [{"workspace_root": "/w\0"}, {"metadata": {"workspace_root": "/w\0"}}]
)
def test_workspace_root_has_no_nul(fields: dict[str, Any]) -> None:
    assert found(step("a"), **fields) == [("nul_character", "workspace_root")]


def test_workspace_root_is_absolute() -> None:
    assert found(step("a"), workspace_root="ws") == [
        ("workspace_root_not_absolute", "workspace_root")
    ]


def test_schedule_needs_what_its_type_names() -> None:
    assert found(step("a"), schedule={"type": "cron", "timezone": " "}) == [
        ("schedule_timezone_unknown", "schedule.timezone"),
    ]
    assert found(step("a"), schedule={"type": "cron", "cron_expression": "0 5 * * *"}) == []


@pytest.mark.parametrize(
    ("concurrency", "problem"),
    [
        ({"key": "k", "limit": 0}, ("concurrency_limit_invalid", "concurrency.limit")),
        ({"key": "${nodes.a.output}"}, ("reference_not_upstream", "concurrency.key")),
        ({"key": "${inputs.x}"}, ("reference_unknown_input", "concurrency.key")),
        ({"key": "${input.x}"}, ("reference_malformed", "concurrency.key")),
    ],
)
def test_concurrency(concurrency: dict[str, Any], problem: tuple[str, str]) -> None:
    assert found(step("a"), concurrency=concurrency) == [problem]


def test_agents_have_ids_of_their_own() -> None:
    agents = [{"agent_id": "x"}, {"agent_id": " "}, {"agent_id": "x"}]
    assert found(step("a"), agents=agents) == [
        ("agent_id_invalid", "agents[1].agent_id"),
        ("agent_duplicate", "agents[2].agent_id"),
    ]


def test_declaration_of_inputs_is_checked() -> None:
    inputs = {"a": {"type": "integer", "default": "x"}, "b": {}}
    assert found(echo("n", "${inputs.b}"), inputs=inputs) == [
        ("input_default_invalid", "inputs.a.default")
    ]


def test_wrong_declaration_of_inputs_silences_what_follows_from_it() -> None:
    assert found(echo("n", "${inputs.zzz}"), inputs={"a": "string"}) == [
        ("inputs_invalid", "inputs.a")
    ]


# The graph


def test_duplicate_node_ids_name_the_first() -> None:
    (problem,) = problems_of(step("a"), step("b"), step("a"))
    assert (problem.code, problem.path) == ("node_duplicate", "nodes[2].node_id")
    assert problem.node_id == "a"
    assert "nodes[0]" in problem.message


def test_unknown_dependency_suggests_the_nearest_node() -> None:
    problems = problems_of(step("collect"), step("b", "colect", "zzz"))
    assert [(p.code, p.path, p.hint) for p in problems] == [
        ("dependency_unknown", "nodes[1].depends_on[0]", "did you mean `collect`?"),
        ("dependency_unknown", "nodes[1].depends_on[1]", ""),
    ]


def test_dependency_that_is_listed_twice() -> None:
    assert found(step("a"), step("b", "a", "a")) == [
        ("dependency_duplicate", "nodes[1].depends_on[1]")
    ]


def test_cycle_is_shown_as_a_path_from_its_first_node() -> None:
    (problem,) = problems_of(step("x", "b"), step("b", "c"), step("c", "a"), step("a", "b"))
    assert problem.code == "dependency_cycle"
    assert problem.message.endswith("in a circle: b → c → a → b")
    assert (problem.path, problem.node_id) == ("nodes[1].depends_on", "b")


def test_node_that_depends_on_itself() -> None:
    (problem,) = problems_of(step("a", "a"))
    assert problem.message.endswith("a → a")


def test_every_separate_cycle_is_reported() -> None:
    problems = problems_of(
        step("a", "b"), step("b", "a"), step("c", "d"), step("d", "c"), step("e", "a", "c")
    )
    assert [p.message.rsplit(": ", 1)[1] for p in problems] == ["a → b → a", "c → d → c"]


def test_long_cycle_is_shortened() -> None:
    nodes = [step(f"n{i}", f"n{(i + 1) % 500}") for i in range(500)]
    (problem,) = problems_of(*nodes)
    assert "n0 → n1 → " in problem.message
    assert "→ (481 more) →" in problem.message
    assert problem.message.endswith("→ n499 → n0")


@given(st.integers(1, 12), st.data())
def test_a_cycle_is_reported_exactly_when_there_is_one(count: int, data: st.DataObject) -> None:
    graph = [
        data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=3))
        for _ in range(count)
    ]
    reach = [set(after) for after in graph]
    for _ in range(count):
        for after in reach:
            after.update(*[reach[other] for other in after])
    in_cycle = {position for position, after in enumerate(reach) if position in after}
    problems = problems_of(*[step(f"n{i}", *(f"n{d}" for d in graph[i])) for i in range(count)])
    assert {problem.code for problem in problems} == ({"dependency_cycle"} if in_cycle else set())
    for problem in problems:
        shown = problem.message.rsplit(": ", 1)[1].split(" → ")
        steps = [int(name[1:]) for name in shown]
        assert steps[0] == steps[-1]
        assert all(after in graph[before] for before, after in pairwise(steps))


def test_input_refs_name_nodes_that_are_done() -> None:
    refs = [
        {"from_step_id": "a", "alias": "x"},
        {"from_step_id": "c", "alias": "y"},
        {"from_step_id": "aa", "alias": "x"},
        {"from_step_id": "b", "alias": " "},
    ]
    problems = problems_of(step("a"), step("m", "a"), step("b", "m", input_refs=refs), step("c"))
    assert [(p.code, p.path, p.hint) for p in problems] == [
        (
            "input_ref_not_upstream",
            "nodes[2].input_refs[1].from_step_id",
            "add `c` to `depends_on`",
        ),
        ("input_ref_unknown", "nodes[2].input_refs[2].from_step_id", "did you mean `a`?"),
        ("input_alias_duplicate", "nodes[2].input_refs[2].alias", ""),
        ("input_ref_not_upstream", "nodes[2].input_refs[3].from_step_id", ""),
        ("input_alias_invalid", "nodes[2].input_refs[3].alias", ""),
    ]


def test_of_nodes_behind_a_cycle_only_the_cycle_is_said() -> None:
    refs = [{"from_step_id": "a", "alias": "x"}]
    assert found(step("a", "b"), step("b", "a"), step("c", "b", input_refs=refs)) == [
        ("dependency_cycle", "nodes[0].depends_on")
    ]


def test_rework_targets_are_known_nodes() -> None:
    gate = {"required": True, "rework_targets": ["a", "aa"]}
    assert found(step("a"), bare("g", "a", gate=gate)) == [
        ("rework_target_unknown", "nodes[1].gate.rework_targets[1]")
    ]
    metadata = {"approval": {"rework_targets": ["zz"]}}
    assert found(bare("g", metadata=metadata)) == [
        ("rework_target_unknown", "nodes[0].metadata.approval.rework_targets[0]")
    ]


def test_expiry_policy_in_metadata_is_checked() -> None:
    metadata = {"approval": {"expiry_policy": {"expires": "soon"}}}
    assert found(bare("g", metadata=metadata)) == [
        ("gate_metadata_invalid", "nodes[0].metadata.approval")
    ]


# Agents


def test_agent_nodes_need_a_known_agent() -> None:
    problems = problems_of(bare("a"), bare("b", agent_id="writr"), bare("c", agent_id="writer"))
    assert [(p.code, p.path) for p in problems] == [
        ("agent_missing", "nodes[0]"),
        ("agent_unknown", "nodes[1].agent_id"),
    ]
    assert problems[1].hint == "did you mean `writer`?"


def test_other_nodes_need_no_agent() -> None:
    assert (
        found(
            step("a"),
            step("b", agent_id="writer"),
            bare("g", gate={"required": True}),
            bare("h", agent_id="nobody", gate={"required": True}),
            bare("w", agent_id="nobody", wait={"kind": "timer", "delay_ms": 5}),
        )
        == []
    )
    assert found(step("a", agent_id="nobody")) == [("agent_unknown", "nodes[0].agent_id")]


# Waits, with the codes of the contract


@pytest.mark.parametrize(
    ("wait", "problems"),
    [
        ({"kind": "timer", "delay_ms": 1}, []),
        ({"kind": "timer", "wake_at": {"source": "literal", "value": 5}}, []),
        (
            {"kind": "timer", "wake_at": {"source": "node_output", "node_id": "a"}},
            [],
        ),
        ({"kind": "timer"}, [("timer_wake_conflict", ".wait")]),
        (
            {"kind": "timer", "delay_ms": 1, "wake_at": {"source": "literal", "value": 5}},
            [("timer_wake_conflict", ".wait")],
        ),
        ({"kind": "timer", "delay_ms": 0}, [("timer_delay_invalid", ".wait.delay_ms")]),
        *(
            (
                {"kind": "timer", "wake_at": {"source": "literal", "value": value}},
                [("timer_wake_at_invalid", ".wait.wake_at.value")],
            )
            for value in (0, -1, "5", True, None, 1.5)
        ),
        (
            {"kind": "timer", "delay_ms": 1, "timeout": {"expires_after_ms": 0}},
            [("wait_timeout_invalid", ".wait.timeout.expires_after_ms")],
        ),
        (
            {"kind": "timer", "delay_ms": 1, "timeout": {**TIMEOUT, "remind_every_ms": 0}},
            [("wait_timeout_invalid", ".wait.timeout.remind_every_ms")],
        ),
        *(
            (
                {
                    "kind": "timer",
                    "delay_ms": 1,
                    "timeout": {**TIMEOUT, "on_timeout": "escalate", "escalate_to": to},
                },
                [("wait_timeout_invalid", ".wait.timeout")],
            )
            for to in (None, " ")
        ),
        (
            {
                "kind": "timer",
                "delay_ms": 1,
                "timeout": {**TIMEOUT, "on_timeout": "escalate", "escalate_to": "lead"},
            },
            [],
        ),
        ({"kind": "timer", "delay_ms": 1, "timeout": {**TIMEOUT, "on_timeout": "resume"}}, []),
        ({"kind": "approval", "decisions": ["a", "b"]}, []),
        *(
            (
                {"kind": "approval", "decisions": decisions},
                [("approval_decisions_invalid", ".wait.decisions")],
            )
            for decisions in ([], ["a", " "], ["Ok", "oK "])
        ),
        (
            {"kind": "approval", "decisions": ["a"], "expires_after_ms": 0},
            [("approval_expiry_invalid", ".wait.expires_after_ms")],
        ),
        (
            {"kind": "approval", "decisions": ["a"], "expires_after_ms": 5, "timeout": TIMEOUT},
            [("approval_timeout_conflict", ".wait.expires_after_ms")],
        ),
        (
            {
                "kind": "approval",
                "decisions": ["a"],
                "timeout": {**TIMEOUT, "on_timeout": "resume"},
            },
            [("approval_timeout_resume_forbidden", ".wait.timeout.on_timeout")],
        ),
        (
            {
                "kind": "webhook",
                "trigger_id": " ",
                "correlation": {
                    "field": "body_digest",
                    "value": {"source": "literal", "value": None},
                },
                "timeout": {"expires_after_ms": 0},
            },
            [
                ("webhook_trigger_invalid", ".wait.trigger_id"),
                ("webhook_correlation_invalid", ".wait.correlation.value"),
                ("wait_timeout_invalid", ".wait.timeout.expires_after_ms"),
            ],
        ),
        (
            {
                "kind": "webhook",
                "trigger_id": "t",
                "correlation": {
                    "field": "body_digest",
                    "value": {"source": "node_output", "node_id": " "},
                },
                "timeout": TIMEOUT,
            },
            [("webhook_correlation_invalid", ".wait.correlation.value")],
        ),
        (
            {
                "kind": "external_condition",
                "condition_key": {"source": "literal", "value": None},
                "timeout": TIMEOUT,
                "payload_schema": {"type": "nope"},
            },
            [
                ("external_condition_invalid", ".wait.condition_key"),
                ("schema_invalid", ".wait.payload_schema"),
            ],
        ),
        (
            {
                "kind": "external_condition",
                "condition_key": {"source": "literal", "value": "k"},
                "timeout": TIMEOUT,
                "payload_schema": {"type": "object"},
            },
            [],
        ),
    ],
)
def test_wait_rules(wait: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    assert found_in_wait(wait) == problems


@pytest.mark.parametrize("place", ["timer", "webhook", "external_condition"])
@pytest.mark.parametrize(
    ("binding", "problem"),
    [
        ({"node_id": "zz"}, ("wait_binding_unknown_node", "node_id")),
        ({"node_id": "m"}, ("wait_binding_not_dependency", "node_id")),
        (
            {"node_id": "a", "json_pointer": "x/y"},
            ("wait_binding_invalid_json_pointer", "json_pointer"),
        ),
        ({"node_id": "a", "json_pointer": ""}, None),
        ({"node_id": "a", "json_pointer": "/x"}, None),
    ],
)
def test_wait_bindings(
    place: str, binding: dict[str, Any], problem: tuple[str, str] | None
) -> None:
    binding = {"source": "node_output", **binding}
    where, wait = {
        "timer": ("wake_at", {"wake_at": binding}),
        "webhook": (
            "correlation.value",
            {
                "trigger_id": "t",
                "timeout": TIMEOUT,
                "correlation": {"field": "body_digest", "value": binding},
            },
        ),
        "external_condition": ("condition_key", {"timeout": TIMEOUT, "condition_key": binding}),
    }[place]
    # `m` is upstream of the wait, but not one of its own dependencies.
    nodes = (step("m"), step("a", "m"), bare("w", "a", wait={"kind": place, **wait}))
    expected = [] if problem is None else [(problem[0], f"nodes[2].wait.{where}.{problem[1]}")]
    assert found(*nodes) == expected


def test_wait_beside_gate_action_or_execution_policy() -> None:
    wait = {"kind": "timer", "delay_ms": 5}
    assert found_in_wait(wait, gate={"required": False}) == [("wait_gate_conflict", "")]
    assert found_in_wait(wait, action={"kind": "agent"}) == [("wait_with_action", ".action")]
    policies = {
        "tool_policy": {},
        "mcp_policy": {},
        "retry_policy": {},
        "timeout_ms": 5,
        "max_tool_calls": 5,
        "idle_timeout_ms": 5,
    }
    assert found_in_wait(wait, **policies) == [
        ("wait_node_has_execution_policy", f".{name}") for name in policies
    ]


def test_required_gate_is_checked_like_a_wait() -> None:
    gate = {
        "required": True,
        "decisions": ["a", "A"],
        "expiry_policy": {
            "expires_after_ms": 0,
            "remind_every_ms": 0,
            "on_expiry": "escalate",
        },
    }
    assert found(bare("g", gate=gate)) == [
        ("approval_decisions_invalid", "nodes[0].gate.decisions"),
        ("wait_timeout_invalid", "nodes[0].gate.expiry_policy.expires_after_ms"),
        ("wait_timeout_invalid", "nodes[0].gate.expiry_policy.remind_every_ms"),
        ("wait_timeout_invalid", "nodes[0].gate.expiry_policy"),
    ]


def test_gate_may_resume_when_it_expires_and_may_be_silent() -> None:
    expiry = {"expires_after_ms": 5, "on_expiry": "resume"}
    assert found(bare("g", gate={"required": True, "expiry_policy": expiry})) == []
    assert found(step("g", gate={"required": False, "decisions": ["a", "a"]})) == []


# Actions


@pytest.mark.parametrize(
    ("action", "problems"),
    [
        ({"argv": []}, [("action_command_invalid", ".action")]),
        ({"argv": [" "]}, [("action_command_invalid", ".action.argv[0]")]),
        ({"argv": ["x"], "script": "y"}, [("action_command_invalid", ".action.script")]),
        ({"shell": True}, [("action_command_invalid", ".action")]),
        ({"shell": True, "script": " \n"}, [("action_command_invalid", ".action")]),
        (
            {"shell": True, "script": "x", "argv": ["y"]},
            [("action_command_invalid", ".action.argv")],
        ),
        ({"shell": True, "script": "echo ${HOME}"}, []),
        ({"argv": ["x", "a\0b"]}, [("nul_character", ".action.argv[1]")]),
        ({"shell": True, "script": "a\0"}, [("nul_character", ".action.script")]),
        ({"argv": ["x"], "env": {"A": "\0"}}, [("nul_character", ".action.env.A")]),
        ({"argv": ["x"], "cwd": "sub/dir"}, []),
        ({"argv": ["x"], "cwd": "."}, []),
        ({"argv": ["x"], "cwd": "/etc"}, [("path_invalid", ".action.cwd")]),
        ({"argv": ["x"], "cwd": "~/x"}, [("path_invalid", ".action.cwd")]),
        ({"argv": ["x"], "cwd": "a/../../b"}, [("path_invalid", ".action.cwd")]),
        ({"argv": ["x"], "cwd": ""}, [("path_invalid", ".action.cwd")]),
        (
            {"argv": ["x"], "cwd": "a\0"},
            [("nul_character", ".action.cwd")],
        ),
        (
            {"argv": ["x"], "output": {"format": "file"}},
            [("action_output_path_missing", ".action.output")],
        ),
        ({"argv": ["x"], "output": {"format": "file", "path": "out.md"}}, []),
        (
            {"argv": ["x"], "output": {"format": "file", "path": "../out.md"}},
            [("path_invalid", ".action.output.path")],
        ),
        (
            {"argv": ["x"], "output": {"format": "json", "path": "out.md"}},
            [("action_output_path_unused", ".action.output.path")],
        ),
    ],
)
def test_command_rules(action: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    assert found_in_action({"kind": "command", **action}) == problems


def test_python_rules() -> None:
    action = {"kind": "python", "function": "a:b", "python_path": ["lib", "/x"], "env": {"A": "\0"}}
    assert found_in_action(action) == [
        ("path_invalid", ".action.python_path[1]"),
        ("nul_character", ".action.env.A"),
    ]


@pytest.mark.parametrize(
    ("action", "problems"),
    [
        ({"url": "https://x"}, []),
        ({"url": "${inputs.url}/x"}, []),
        ({"url": "ftp://x"}, [("action_http_invalid", ".action.url")]),
        ({"url": ""}, [("action_http_invalid", ".action.url")]),
        (
            {"url": "http://x", "json_body": {}, "text_body": ""},
            [("action_http_invalid", ".action.text_body")],
        ),
        (
            {"url": "http://x", "expect_status": [200, 99, 600]},
            [
                ("action_http_invalid", ".action.expect_status[1]"),
                ("action_http_invalid", ".action.expect_status[2]"),
            ],
        ),
    ],
)
def test_http_rules(action: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    nodes = step("a", action={"kind": "http", **action})
    codes = [
        (code, path.removeprefix("nodes[0]"))
        for code, path in found(nodes, inputs={"url": {"type": "string"}})
    ]
    assert codes == problems


def test_gate_runs_nothing() -> None:
    assert found(step("g", gate={"required": True})) == [("gate_with_action", "nodes[0].action")]
    assert found(step("g", stage_kind="approval")) == [("gate_with_action", "nodes[0].action")]


def test_effects_probe_needs_effects_outside() -> None:
    assert found(step("a", effects_probe=["x"])) == [
        ("effects_probe_without_effects", "nodes[0].effects_probe")
    ]
    assert found(step("a", effects="external", effects_probe=["x", "y"])) == []
    assert found(step("a", effects="external", effects_probe=[" ", "\0"])) == [
        ("action_command_invalid", "nodes[0].effects_probe[0]"),
        ("nul_character", "nodes[0].effects_probe[1]"),
    ]


def test_output_contract_rules() -> None:
    contract = {
        "schema": {"properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}},
        "required_files": ["ok.md", "/etc/x"],
        "verification": {"argv": [""]},
    }
    assert found(step("a", output_contract=contract)) == [
        ("schema_invalid", "nodes[0].output_contract.schema"),
        ("path_invalid", "nodes[0].output_contract.required_files[1]"),
        ("action_command_invalid", "nodes[0].output_contract.verification.argv[0]"),
    ]
    assert found(step("a", output_contract={"required_files": ["a/b.md"]})) == []


def test_for_each_is_not_available() -> None:
    (problem,) = problems_of(step("a", for_each={"items": [1]}))
    assert problem.code == "for_each_not_available"
    assert problem.message == "for_each is not available in this version"


# References


def test_references_name_nodes_that_are_done() -> None:
    problems = problems_of(
        step("a"),
        step("m", "a"),
        echo(
            "b", "${nodes.a.output} ${nodes.m.output.x} ${nodes.c.output} ${nodes.mm.output}", "m"
        ),
        step("c"),
        echo("d", "${nodes.d.output}"),
    )
    assert [(p.code, p.path) for p in problems] == [
        ("reference_not_upstream", "nodes[2].action.argv[1]"),
        ("reference_unknown_node", "nodes[2].action.argv[1]"),
        ("reference_not_upstream", "nodes[4].action.argv[1]"),
    ]
    assert problems[0].hint == "add `c` to `depends_on`"
    assert problems[1].hint == "did you mean `m`?"
    assert "own output" in problems[2].message


def test_references_name_declared_inputs() -> None:
    text = "${inputs.topic} ${inputs.topik} ${inputs} ${inputs.zzz}"
    problems = problems_of(echo("a", text), inputs={"topic": {}})
    assert [(p.code, p.hint) for p in problems] == [
        ("reference_unknown_input", "did you mean `topic`?"),
        ("reference_unknown_input", "declare it under `inputs`"),
    ]
    open_schema = {"type": "object", "additionalProperties": True}
    assert found(echo("a", text), inputs=open_schema) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"action": {"kind": "http", "url": "http://x", "headers": {"a": "${inputs.x}"}}},
        {"action": {"kind": "http", "url": "http://x", "json_body": [{"a": "${inputs.x}"}]}},
        {"action": {"kind": "python", "function": "a:b", "arguments": {"a": "${inputs.x}"}}},
        {"action": {"kind": "command", "argv": ["x"], "env": {"A": "${inputs.x}"}}},
        {"objective": "do ${inputs.x}"},
        {"gate": {"instructions": "look at ${inputs.x}"}},
    ],
)
def test_references_are_found_wherever_they_may_be(fields: dict[str, Any]) -> None:
    assert [code for code, _ in found(step("a", **fields))] == ["reference_unknown_input"]


def test_reference_is_reported_where_it_is() -> None:
    body = {"to": ["all", {"who": "${inputs.a} ${inputs.b}"}], "cc": "${inputs.c}"}
    wrong = found(step("a", action={"kind": "http", "url": "http://x", "json_body": body}))
    assert [path for _, path in wrong] == [
        "nodes[0].action.json_body.to[1].who",
        "nodes[0].action.json_body.to[1].who",
        "nodes[0].action.json_body.cc",
    ]


def test_references_in_for_each() -> None:
    codes = [code for code, _ in found(step("a", for_each={"items": "${inputs.x}"}))]
    assert codes == ["reference_unknown_input", "for_each_not_available"]


def test_slips_are_reported_in_actions_only() -> None:
    assert found(echo("a", "${input.x} ${HOME} $${input.x}")) == [
        ("reference_malformed", "nodes[0].action.argv[1]")
    ]
    assert found(step("a", objective="explain ${input.x} and ${nodes.a}")) == []
    assert found(step("a", metadata={"x": "${inputs.nope}"})) == []


# Effort


def test_nearest_name_stops_looking_when_it_costs_too_much() -> None:
    nearest = NearestName(["alpha", "beta", "x" * 200], comparisons_max=4)
    assert nearest.hint("alpa") == "did you mean `alpha`?"
    assert nearest.hint("y" * 200) == ""
    assert nearest.hint("zzzz") == ""
    assert nearest.hint("alpa") == ""
