"""Retry, requeue and continue of one node."""

from typing import Any

import pytest
from tests.domain.operated import ONCE, A, B, C, chain_in, code_of, paused_all

from tandem.domain.command import (
    Cancel,
    Command,
    ContinueNode,
    DecideGate,
    ProcessesEnded,
    Recover,
    Repair,
    RetryNode,
)
from tandem.domain.errors import NotFound
from tandem.domain.ids import NodeId
from tandem.domain.lifecycle import RESTING, RunState
from tandem.testing.builders import condition_node, gate_node, python_node, timer_node
from tandem.testing.tale import ENGINE, Tale

S = RunState


@pytest.mark.parametrize("requeue", [False, True])
@pytest.mark.parametrize("status", RunState)
def test_node_is_retried_only_in_a_run_that_rests(status: RunState, requeue: bool) -> None:
    tale = chain_in(status)
    code = code_of(tale, RetryNode(node_id=A, requeue=requeue))
    assert code == ("" if status in RESTING else "AUTOMATION_V2_RUN_TASK_NOT_MUTABLE")


def test_retry_resets_the_node_and_what_follows_and_gives_new_attempts() -> None:
    tale = chain_in(S.COMPLETED)

    tale.command(RetryNode(node_id=B))

    assert tale.happened() == ["run_task_retried", "node_reset", "node_reset"]
    assert tale.events[-3].metadata == {"node_id": "b"}
    assert tale.run.resume_reason == "task `b` retried by operator"
    assert tale.states() == {"a": "completed", "b": "pending", "c": "pending"}
    assert (tale.status, tale.run.finished_at_ms) == (S.QUEUED, None)
    assert (tale.node("b").attempts, tale.node("b").attempts_used) == (1, 0)


def test_requeue_is_the_same_under_another_name() -> None:
    tale = chain_in(S.FAILED)
    tale.command(RetryNode(node_id=B, requeue=True))
    assert tale.happened() == ["run_task_requeued", "node_reset"]
    assert tale.run.resume_reason == "task `b` requeued by operator"
    tale.claim()
    assert tale.node("b").attempts == 2


def test_retry_asks_the_gates_after_the_node_again() -> None:
    tale = Tale(python_node("a"), gate_node("g", "a"), python_node("b", "g")).claim()
    tale.succeed("a")
    tale.command(DecideGate(decision="approve"))
    tale.claim()
    tale.succeed("b")

    tale.command(RetryNode(node_id=A))
    tale.claim()
    tale.succeed("a")

    (gate,) = tale.open_gates()
    assert gate.instance == 2


def test_node_has_to_be_named_and_known() -> None:
    tale = chain_in(S.FAILED)
    assert code_of(tale, RetryNode(node_id=NodeId(" "))) == "AUTOMATION_V2_TASK_NODE_REQUIRED"
    with pytest.raises(NotFound, match="has no node `z`; it has a, b, c") as missing:
        tale.command(RetryNode(node_id=NodeId("z")))
    assert missing.value.code == "AUTOMATION_V2_TASK_NODE_NOT_FOUND"


def test_nothing_is_retried_while_processes_of_the_run_live() -> None:
    tale = chain_in(S.CANCELLED)
    tale.view.run.cleanup = ENGINE
    assert code_of(tale, RetryNode(node_id=A)) == "run_cleanup_pending"


def test_cancelled_run_that_is_retried_asks_again_what_it_asked() -> None:
    tale = Tale(
        python_node("a", retry_policy=ONCE),
        gate_node("g"),
        timer_node("t"),
        python_node("out", effects="external"),
    ).claim()
    tale.command(Cancel())
    tale.command(ProcessesEnded(engine_id=ENGINE))
    assert tale.states() == {"a": "pending", "g": "gated", "t": "waiting", "out": "gated"}
    assert tale.node("a").attempts_used == 0

    tale.command(RetryNode(node_id=A))

    # What may have happened outside is not repeated unseen: a person is asked.
    (gate,) = tale.open_gates()
    assert (gate.node_id, gate.purpose.value) == ("out", "outcome_unknown")
    assert tale.states() == {"a": "pending", "g": "pending", "t": "pending", "out": "gated"}
    tale.claim()
    assert tale.states() == {"a": "running", "g": "gated", "t": "waiting", "out": "gated"}


def test_gates_that_are_open_stay_open() -> None:
    tale = Tale(python_node("a"), gate_node("g"), gate_node("h", "a")).claim()
    tale.succeed("a")
    tale.command(RetryNode(node_id=A))
    assert [gate.node_id for gate in tale.open_gates()] == ["g"]


@pytest.mark.parametrize("status", RunState)
def test_only_a_blocked_node_is_continued(status: RunState) -> None:
    code = code_of(chain_in(status), ContinueNode(node_id=B))
    if status is S.BLOCKED:
        assert code == ""
    elif status in RESTING:
        assert code == "AUTOMATION_V2_TASK_NOT_BLOCKED"
    else:
        assert code == "AUTOMATION_V2_RUN_TASK_NOT_CONTINUEABLE"


def test_continued_node_is_told_again_what_to_mend() -> None:
    tale = chain_in(S.BLOCKED)
    assert tale.states() == {"a": "completed", "b": "blocked", "c": "blocked"}

    tale.command(ContinueNode(node_id=B))

    assert tale.happened() == ["run_task_continued", "node_reset", "node_reset"]
    assert tale.events[-3].metadata == {"node_id": "b", "mode": "minimal_reset"}
    assert tale.states() == {"a": "completed", "b": "pending", "c": "pending"}
    assert tale.node("b").repair == ("too short", "no title")
    assert tale.node("b").attempts_used == 0
    tale.claim()
    tale.succeed("b")
    tale.succeed("c")
    assert tale.status is S.COMPLETED


def test_node_that_another_one_blocked_is_not_continued() -> None:
    tale = chain_in(S.BLOCKED)
    assert code_of(tale, ContinueNode(node_id=C)) == "AUTOMATION_V2_TASK_NOT_BLOCKED"


def test_node_after_two_blocked_ones_stays_blocked_by_the_other() -> None:
    tale = Tale(
        python_node("a", retry_policy=ONCE),
        python_node("b", retry_policy=ONCE),
        python_node("c", "a"),
        python_node("d", "a", "b"),
    ).claim()
    tale.repair("a")
    tale.repair("b")

    tale.command(ContinueNode(node_id=A))

    assert tale.states() == {"a": "pending", "b": "blocked", "c": "pending", "d": "blocked"}


@pytest.mark.parametrize("command", [RetryNode(node_id=A), ContinueNode(node_id=A)])
def test_whatever_lets_a_node_go_on_that_paused_all_frees_all(command: Command) -> None:
    tale = paused_all()
    tale.command(command)
    tale.claim()
    assert tale.states() == {"a": "running", "s": "completed", "b": "pending", "c": "running"}
    # What it holds back when it is blocked once more is free again with the next try.
    tale.repair("a")
    tale.succeed("c")
    assert tale.status is S.BLOCKED


def two_failed(**fields: Any) -> Tale:
    """Return a failed run of `a` and `x`, which both failed, and `b` after `a`."""
    tale = Tale(
        python_node("a", retry_policy=ONCE),
        python_node("x", retry_policy=ONCE, **fields),
        python_node("b", "a"),
    ).claim()
    tale.fail("a")
    tale.fail("x")
    assert tale.status is S.FAILED
    return tale


@pytest.mark.parametrize("command", [RetryNode(node_id=A), Repair(node_id=A)])
def test_node_is_retried_although_another_one_failed_too(command: Command) -> None:
    tale = two_failed()

    tale.command(command)
    tale.claim()
    assert tale.states() == {"a": "running", "x": "failed", "b": "pending"}
    tale.succeed("a")
    tale.succeed("b")

    # Nothing else is left: the run ends by the other one, and says so.
    assert (tale.status, tale.run.detail) == (
        S.FAILED,
        "node `x` failed after 1/1 attempts: it broke",
    )
    assert tale.run.last_failure is not None
    assert tale.run.last_failure.node_id == "x"
    tale.command(Recover())
    tale.claim()
    assert tale.states()["x"] == "running"
    assert tale.node("x").handling is None
    tale.succeed("x")
    assert tale.status is S.COMPLETED


def test_node_that_fails_beside_one_that_was_passed_over_stops_what_follows() -> None:
    tale = two_failed()
    tale.command(RetryNode(node_id=A))
    tale.claim()
    tale.fail("a")
    assert tale.status is S.FAILED
    assert tale.run.last_failure is not None
    assert tale.run.last_failure.node_id == "a"


def test_what_ran_out_of_time_while_the_run_had_ended_is_asked_anew() -> None:
    tale = Tale(
        gate_node("g"),
        condition_node("w"),
        python_node("a", retry_policy=ONCE),
    ).claim()
    tale.fail("a")
    (gate,) = tale.open_gates()
    assert code_of(tale, DecideGate(decision="approve")) == (
        "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL"
    )
    tale.now_ms = (gate.expires_at_ms or 0) + 1

    tale.command(RetryNode(node_id=A))
    assert tale.states() == {"g": "pending", "w": "pending", "a": "pending"}
    tale.claim()

    assert tale.states() == {"g": "gated", "w": "waiting", "a": "running"}
    (gate,) = tale.open_gates()
    assert gate.instance == 2


def test_attempt_that_a_cancellation_cut_off_is_spared_once() -> None:
    policy = {"max_attempts": 3}
    tale = Tale(
        python_node("a"), python_node("send", effects="external", retry_policy=policy)
    ).claim()
    tale.fail("send")
    tale.advance()
    assert (tale.node("send").state.value, tale.node("send").attempts_used) == ("running", 2)
    tale.command(Cancel())
    tale.command(ProcessesEnded(engine_id=ENGINE))
    tale.command(RetryNode(node_id=A))
    tale.command(DecideGate(decision="retry", node_id=NodeId("send")))
    assert tale.node("send").attempts_used == 1
