"""Which ready node starts first, and which is held back."""

from typing import Any

import pytest

from tandem.domain.automation import Automation, Node
from tandem.domain.phases import NO_PHASE, Phases, priority_of
from tandem.domain.write_scope import Claims, claims_of, is_code
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import Tale


def in_phase(node_id: str, phase: str, *after: str, priority: Any = 0) -> dict[str, Any]:
    builder = {"phase_id": phase, "priority": priority}
    return python_node(node_id, *after, metadata={"builder": builder})


def mission(*phases: tuple[str, str]) -> dict[str, Any]:
    listed = [{"phase_id": name, "execution_mode": mode} for name, mode in phases]
    return {"metadata": {"mission": {"phases": listed}}}


def code(node_id: str, scope: Any = None, **fields: Any) -> dict[str, Any]:
    builder = {"task_kind": "code_change"} | ({} if scope is None else {"write_scope": scope})
    return python_node(node_id, metadata={"builder": builder}, **fields)


def running(tale: Tale) -> set[str]:
    return {name for name, state in tale.states().items() if state == "running"}


# Order


def test_free_places_go_by_phase_then_priority_then_turn() -> None:
    tale = Tale(
        python_node("loose"),
        in_phase("late", "two"),
        in_phase("usual", "one"),
        in_phase("urgent", "one", priority=5),
        parallel=1,
        **mission(("one", "soft"), ("two", "soft")),
    ).claim()

    started = []
    while running(tale):
        (name,) = running(tale)
        started.append(name)
        tale.succeed(name)

    assert started == ["urgent", "usual", "late", "loose"]


def test_a_soft_phase_holds_nobody_back() -> None:
    tale = Tale(
        in_phase("a", "one"), in_phase("b", "two"), **mission(("one", "soft"), ("two", "soft"))
    ).claim()

    assert running(tale) == {"a", "b"}


def test_a_barrier_holds_later_phases_but_not_nodes_without_one() -> None:
    tale = Tale(
        in_phase("a", "one"),
        in_phase("b", "two"),
        python_node("free"),
        gate_node("ask", metadata={"builder": {"phase_id": "two"}}),
        **mission(("one", "barrier"), ("two", "soft")),
    ).claim()

    assert running(tale) == {"a", "free"}
    assert tale.states()["ask"] == "pending"
    tale.succeed("free")
    assert running(tale) == {"a"}
    tale.succeed("a")
    assert running(tale) == {"b"}
    assert tale.states()["ask"] == "gated"


def test_a_retry_that_is_due_goes_past_a_barrier_that_opened_since() -> None:
    tale = Tale(
        in_phase("a", "one"),
        python_node("free"),
        in_phase("b", "two", "a")
        | {"retry_policy": {"max_attempts": 2, "strategy": "fixed", "delay_ms": 10}},
        **mission(("one", "barrier"), ("two", "soft")),
    ).claim()
    tale.succeed("a")
    tale.fail("b")
    tale.now_ms += 10
    tale.view.phase_left[0] = 1  # as if the first phase were open again

    change = tale.advance()

    assert change is not None
    assert [event.event.value for event in change.events] == ["node_started"]


def test_a_blocked_node_keeps_its_barrier_closed() -> None:
    tale = Tale(
        in_phase("a", "one") | {"retry_policy": {"max_attempts": 1}},
        in_phase("b", "two"),
        **mission(("one", "barrier"), ("two", "soft")),
    ).claim()

    tale.repair("a")

    assert tale.run.status.value == "blocked"
    assert tale.states() == {"a": "blocked", "b": "pending"}


def test_ranks_of_unknown_and_blank_phases() -> None:
    made = Automation.model_validate(
        {
            "automation_id": "a",
            "flow": {"nodes": [in_phase("a", "nowhere"), in_phase("b", "one")]},
            **mission(("", "barrier"), ("one", "soft")),
        }
    )

    phases = Phases(made)

    assert phases.ranks == (NO_PHASE, 1)
    assert phases.sizes == (0, 1)
    assert phases.open_rank([0, 0]) == NO_PHASE
    assert phases.limit([0, 1]) == NO_PHASE
    assert phases.limit([0, 0]) == NO_PHASE


@pytest.mark.parametrize(("given", "priority"), [(3, 3), (True, 0), ("7", 0), (None, 0)])
def test_only_whole_numbers_are_priorities(given: Any, priority: int) -> None:
    assert priority_of(Node.model_validate(in_phase("a", "p", priority=given))) == priority


# Claims


def test_code_nodes_whose_scopes_overlap_never_run_at_once() -> None:
    tale = Tale(code("a", "src/api"), code("b", "src"), code("c", "docs, tools/*")).claim()

    assert running(tale) == {"a", "c"}
    tale.succeed("a")
    assert running(tale) == {"b", "c"}


def test_a_code_node_without_a_scope_claims_everything() -> None:
    tale = Tale(code("a"), code("b", ["docs"]), python_node("free")).claim()

    assert running(tale) == {"a", "free"}


def test_nodes_with_the_same_scope_go_one_after_the_other() -> None:
    tale = Tale(code("a", "src"), code("b", "src"), code("c", "src")).claim()

    assert running(tale) == {"a"}
    tale.succeed("a")
    assert running(tale) == {"b"}


def test_the_same_mcp_tool_is_never_used_by_two_nodes_at_once() -> None:
    tool = {"allowlist": ["mcp.tracker.add_label", "mcp.other.*", "read"]}
    tale = Tale(
        python_node("a", tool_policy=tool),
        python_node("b", mcp_policy={"allowed_tools": ["MCP.tracker.add_label"]}),
        python_node("c", metadata={"allowed_tools": ["mcp.tracker.get", 7]}),
    ).claim()

    assert running(tale) == {"a", "c"}


def test_claims_come_from_the_contract_too() -> None:
    contract = {
        "validator": "code_patch",
        "enforcement": {
            "required_tools": ["mcp.a.b"],
            "required_tool_calls": [{"tool": "mcp.c.d"}],
        },
    }
    node = Node.model_validate(python_node("a", output_contract=contract))

    assert claims_of(node) == Claims(paths=((),), tools=frozenset({"mcp.a.b", "mcp.c.d"}))
    kind = Node.model_validate(python_node("a", output_contract={"kind": "code_patch"}))
    assert is_code(kind)
    other = {"kind": "code_patch", "validator": "generic_artifact"}
    assert not is_code(Node.model_validate(python_node("a", output_contract=other)))
    assert claims_of(Node.model_validate(python_node("a", metadata="words"))) is None
