"""Weaknesses of the original at gates and waits: each with a mutant that brings it back."""

from collections.abc import Callable

import pytest

from tandem.domain import asking, attention, driving, gates, waits
from tandem.domain.command import Adopt, DecideGate, Recover, Wake
from tandem.domain.draft import Draft
from tandem.domain.engine_event import engine_events
from tandem.domain.errors import EngineError, Refused
from tandem.domain.graph import PlanNode
from tandem.domain.ids import GateId, NodeId
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.run import Wait
from tandem.testing.builders import gate_node, python_node, timer_node
from tandem.testing.tale import ENGINE, Tale

N, S = NodeState, RunState


# W-17: what a gate or a wait does is recorded, and told to whoever listens


def w17_every_end_is_told() -> None:
    expiry = {"expires_after_ms": 100, "on_expiry": "escalate", "escalate_to": "lead"}
    tale = Tale(
        gate_node("g", gate={"required": True, "expiry_policy": expiry}),
        timer_node("t", delay_ms=50),
        python_node("z", "g", "t"),
    ).claim()
    for _ in range(2):
        tale.now_ms += 50
        tale.command(Wake())
        if tale.status is S.QUEUED:
            tale.claim()
    tale.command(DecideGate(decision="approve"))
    tale.claim()
    tale.succeed("z")

    published = {told.type for event in tale.events for told in engine_events(tale.run, event)}
    assert tale.status is S.COMPLETED
    for name in (
        "automation.v2.wait.woken",
        "approval.gate.escalated",
        "approval.decision.recorded",
        "automation.v2.run.completed",
    ):
        assert name in published, name


def test_w17_every_end_is_told() -> None:
    w17_every_end_is_told()


def test_w17_every_end_is_told_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: an escalation changes the gate and says nothing."""
    from tandem.domain import expiry

    original = Draft.happen

    def happen(draft: Draft, event: RunEvent, **facts: object) -> None:
        if event is not RunEvent.GATE_ESCALATED:
            original(draft, event, **facts)  # type: ignore[arg-type] # the same keywords

    monkeypatch.setattr(expiry.Draft, "happen", happen)
    _is_caught(w17_every_end_is_told)


# W-22: neither a gate nor a wait holds back what does not depend on it


def w22_nothing_independent_is_parked() -> None:
    tale = Tale(
        timer_node("t", delay_ms=900), gate_node("g"), python_node("a"), python_node("b", "a")
    ).claim()
    assert tale.status is S.RUNNING
    assert tale.states() == {"t": "waiting", "g": "gated", "a": "running", "b": "pending"}
    tale.succeed("a")
    assert tale.node("b").state is N.RUNNING


def test_w22_nothing_independent_is_parked() -> None:
    w22_nothing_independent_is_parked()


def test_w22_nothing_independent_is_parked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: a registered wait keeps other nodes from starting, as the original's does."""
    original = driving.candidates

    def candidates(draft: Draft, fresh: list[int]) -> list[int]:
        return [] if draft.open_waits() else list(original(draft, fresh))

    monkeypatch.setattr(driving, "candidates", candidates)
    _is_caught(w22_nothing_independent_is_parked)


# W-25: a gate that was reset is asked anew and can be decided again


def w25_gate_can_be_decided_again() -> None:
    back = {"required": True, "rework_targets": ["a"]}
    tale = Tale(python_node("a"), gate_node("g", "a"), gate_node("h", "g", gate=back)).claim()
    tale.succeed("a")
    first = GateId("automation_v2:run:g")
    tale.command(DecideGate(decision="approve", gate_id=first, node_id=NodeId("g")))
    tale.claim()
    tale.command(DecideGate(decision="rework", node_id=NodeId("h")))
    tale.claim()
    tale.succeed("a")
    assert tale.node("g").state is N.GATED
    old = tale.command(DecideGate(decision="approve", gate_id=first, node_id=NodeId("g")))
    assert old.denial is not None
    assert tale.node("g").state is N.GATED
    (asked,) = tale.open_gates()
    tale.command(DecideGate(decision="approve", gate_id=asked.gate_id))
    assert tale.node("g").state is N.COMPLETED


def test_w25_gate_can_be_decided_again() -> None:
    w25_gate_can_be_decided_again()


def test_w25_gate_can_be_decided_again_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: every asking of a gate has the same id."""

    def gate_id(draft: Draft, plan_node: PlanNode, instance: int) -> GateId:
        return GateId(f"automation_v2:{draft.run.run_id}:{plan_node.node_id}")

    monkeypatch.setattr(asking, "gate_id", gate_id)
    _is_caught(w25_gate_can_be_decided_again)


# W-26: what a gate does not offer cannot be decided, and leaves it as it is


def w26_only_what_is_offered_counts() -> None:
    gate = {"required": True, "decisions": ["approve", "rework"]}
    for word in ("cancel", "deny", "maybe", ""):
        tale = Tale(gate_node("g", gate=gate)).claim()
        with pytest.raises(Refused) as refused:
            tale.command(DecideGate(decision=word))
        assert refused.value.code == "AUTOMATION_V2_GATE_INVALID_DECISION"
        assert tale.status is S.AWAITING_APPROVAL, word
        assert len(tale.open_gates()) == 1


def test_w26_only_what_is_offered_counts() -> None:
    w26_only_what_is_offered_counts()


def test_w26_only_what_is_offered_counts_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: the gate's own list is shown and not enforced."""
    monkeypatch.setattr(gates, "_allowed", lambda _gate, wanted: wanted or "cancel")
    _is_caught(w26_only_what_is_offered_counts)


# W-33: a wait is woken, never cancelled, after its run was queued again or recovered


def w33_due_wait_is_woken_after_a_restart() -> None:
    once = {"max_attempts": 1}
    tale = Tale(
        timer_node("t", delay_ms=100), python_node("a", retry_policy=once), python_node("z", "t")
    ).claim()
    tale.command(Adopt(dead=ENGINE))
    tale.claim()
    tale.fail("a")
    tale.command(Recover())
    tale.now_ms += 100
    tale.claim()
    (wait,) = tale.waits.values()
    assert wait.status.value == "woken"
    assert tale.states() == {"t": "completed", "a": "running", "z": "running"}


def test_w33_due_wait_is_woken_after_a_restart() -> None:
    w33_due_wait_is_woken_after_a_restart()


def test_w33_due_wait_is_woken_after_a_restart_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: a wait of a run that was queued again is given up."""

    def wake(draft: Draft, wait: Wait, **_how: object) -> None:
        draft.withdraw([wait.node_no])

    monkeypatch.setattr(waits, "wake", wake)
    _is_caught(w33_due_wait_is_woken_after_a_restart)


def test_wait_that_nothing_looks_at_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: time does nothing to waits; the scenario of W-33 notices that too."""
    monkeypatch.setattr(attention.waits, "pass_time", lambda _draft, _of: None)
    _is_caught(w33_due_wait_is_woken_after_a_restart)


def _is_caught(scenario: Callable[[], None]) -> None:
    with pytest.raises((AssertionError, EngineError, pytest.fail.Exception)):
        scenario()
