"""How a claimed run goes on: starting, settling, parking, ending."""

from typing import Any

import pytest

from tandem.domain.artifact import ArtifactRef
from tandem.domain.command import Adopt, Cancel, DecideGate, Pause, Wake
from tandem.domain.errors import Refused
from tandem.domain.gate_policy import GATE_EXPIRES_AFTER_MS, GATE_STALE_AFTER_MS
from tandem.domain.ids import Digest, EngineId
from tandem.domain.json import decode
from tandem.domain.lifecycle import NodeState, RunState, StopKind
from tandem.domain.outcome import FailureClass, Succeeded
from tandem.domain.run import GatePurpose, GateStatus, QueueReason, WaitStatus
from tandem.domain.settling import Settled
from tandem.testing.builders import gate_node, python_node, timer_node
from tandem.testing.tale import ENGINE, Tale

N, S = NodeState, RunState


def retrying(
    node_id: str, *depends_on: str, attempts: int = 3, delay_ms: int = 500
) -> dict[str, Any]:
    backoff = {"strategy": "fixed", "initial_delay_ms": delay_ms}
    policy = {"max_attempts": attempts, "backoff": backoff}
    return python_node(node_id, *depends_on, retry_policy=policy)


# Starting


def test_claimed_run_starts_every_ready_node_that_has_a_place() -> None:
    tale = Tale(
        python_node("a"), python_node("b"), python_node("c"), python_node("d", "a"), parallel=2
    ).claim()

    assert tale.states() == {"a": "running", "b": "running", "c": "pending", "d": "pending"}
    assert tale.started[0, 1].engine_id == ENGINE
    assert tale.started[0, 1].epoch == 1
    assert tale.run.started_at_ms == tale.now_ms


def test_finishing_a_node_and_starting_its_successors_is_one_change() -> None:
    tale = Tale(python_node("a"), python_node("b", "a")).claim()

    change = tale.succeed("a", b'{"x":1}')

    assert tale.happened() == ["node_completed", "node_started"]
    assert not change.moved
    assert tale.node("a").output == b'{"x":1}'
    assert tale.node("a").finished_at_ms == tale.now_ms


def test_nothing_to_write_is_no_change() -> None:
    tale = Tale(python_node("a")).claim()

    assert tale.advance() is None


def test_outcome_of_an_attempt_that_no_longer_counts_is_ignored() -> None:
    tale = Tale(python_node("a"), python_node("b")).claim()
    late = Settled(node_no=0, number=7, outcome=Succeeded(output=1), output=b"1")

    assert tale.advance(late) is None
    tale.succeed("a")
    again = Settled(node_no=0, number=1, outcome=Succeeded(output=2), output=b"2")
    assert tale.advance(again) is None
    assert tale.node("a").output == b"1"


def test_artifacts_of_a_success_are_kept_with_their_attempt() -> None:
    tale = Tale(python_node("a")).claim()
    ref = ArtifactRef(name="r", digest=Digest("sha256:1"), size_bytes=1, media_type="text/plain")

    change = tale.settle("a", Succeeded(output=None, artifacts=(ref,)), output=b"null")

    assert [(left.node_no, left.attempt, left.ref) for left in change.artifacts] == [(0, 1, ref)]


def test_run_completes_with_its_last_node() -> None:
    tale = Tale(python_node("a")).claim()

    tale.succeed("a")

    assert tale.happened() == ["node_completed", "run_completed"]
    assert tale.status is S.COMPLETED
    assert tale.run.engine_id is None
    assert tale.run.finished_at_ms == tale.now_ms
    assert tale.run.detail == "automation run completed"


# Failing


def test_failed_attempt_backs_off_and_is_tried_again_when_it_is_due() -> None:
    tale = Tale(retrying("a"), python_node("b")).claim()

    tale.fail("a")

    assert tale.states() == {"a": "backoff", "b": "running"}
    assert tale.view.next_due_at_ms(tale.now_ms) == tale.now_ms + 500
    tale.now_ms += 499
    assert tale.advance() is None
    tale.now_ms += 1
    tale.advance()
    assert tale.node("a").state is N.RUNNING
    assert (tale.node("a").attempts, tale.node("a").attempts_used) == (2, 2)


def test_run_in_which_only_backoffs_are_left_is_queued_until_the_earliest() -> None:
    tale = Tale(retrying("a", delay_ms=900), retrying("b", delay_ms=300)).claim()

    tale.fail("a")
    tale.fail("b")

    assert tale.status is S.QUEUED
    assert tale.run.queue_reason is QueueReason.RETRY_BACKOFF
    assert tale.run.due_at_ms == tale.now_ms + 300


def test_backoff_names_its_node_as_the_key_that_it_waits_for() -> None:
    tale = Tale(retrying("a", delay_ms=500), retrying("b", delay_ms=300)).claim()
    tale.now_ms = 2_000
    tale.fail("a")
    tale.fail("b")

    assert tale.status is RunState.QUEUED
    assert tale.run.resource_key == "automation://simulated/runs/run/nodes/b"
    assert (tale.run.queued_at_ms, tale.run.due_at_ms) == (2_000, 2_300)
    tale.now_ms = 2_300
    tale.claim()
    assert (tale.run.resource_key, tale.run.queued_at_ms) == ("", None)


def test_node_that_fails_for_good_lets_what_runs_land_and_fails_the_run() -> None:
    tale = Tale(
        retrying("a", attempts=1), python_node("b"), python_node("c", "b"), python_node("d")
    ).claim()

    tale.fail("a")
    assert tale.status is S.RUNNING
    assert tale.run.last_failure is not None
    tale.succeed("b")
    assert tale.states()["c"] == "pending"
    tale.succeed("d")

    assert tale.happened() == ["node_completed", "run_failed"]
    assert tale.run.detail == "node `a` failed after 1/1 attempts: it broke"
    assert tale.run.last_failure.failure_kind == "execution_error"


def test_contract_miss_is_repaired_within_the_budget() -> None:
    tale = Tale(retrying("a")).claim()

    tale.repair("a")

    assert tale.happened() == ["node_repair_requested", "node_started"]
    assert tale.node("a").repair == ("too short", "no title")
    assert tale.node("a").repairs_used == 1


def test_contract_miss_beyond_the_budget_blocks_the_node_and_what_follows_it() -> None:
    tale = Tale(
        retrying("a", attempts=1), python_node("b", "a"), python_node("c", "b"), python_node("d")
    ).claim()

    tale.repair("a")
    assert tale.states() == {"a": "blocked", "b": "blocked", "c": "blocked", "d": "running"}
    assert tale.node("a").output == b'"draft"'
    tale.succeed("d")

    assert tale.status is S.BLOCKED
    assert tale.run.detail == "automation run blocked by upstream node outcome"


def test_verification_that_keeps_saying_no_fails_the_run() -> None:
    tale = Tale(retrying("a", attempts=1)).claim()

    tale.repair("a", FailureClass.VERIFICATION_FAILED)

    assert tale.happened() == ["node_verify_failed", "run_failed"]


def test_attempt_that_the_engine_stopped_is_not_charged() -> None:
    tale = Tale(retrying("a", attempts=1)).claim()

    tale.stop("a")

    assert tale.happened() == ["node_interrupted", "node_started"]
    assert (tale.node("a").attempts, tale.node("a").attempts_used) == (2, 1)
    assert tale.node("a").interruptions == 0


# Interruptions


def test_node_with_outside_effects_that_was_interrupted_asks_a_person() -> None:
    tale = Tale(python_node("a", effects="external")).claim()

    tale.stop("a")

    (gate,) = tale.open_gates()
    assert tale.happened() == ["node_outcome_unknown", "run_parked_at_gate"]
    assert gate.purpose is GatePurpose.OUTCOME_UNKNOWN
    assert gate.decisions == ("done", "retry", "cancel")
    assert tale.status is S.AWAITING_APPROVAL
    assert gate.expires_at_ms is None
    assert tale.run.due_at_ms == tale.now_ms + GATE_STALE_AFTER_MS


def test_node_that_takes_five_engines_down_is_not_tried_again() -> None:
    tale = Tale(python_node("a")).claim()
    for _ in range(4):
        tale.command(Adopt(dead=ENGINE))
        tale.claim()
    assert tale.node("a").interruptions == 4

    tale.command(Adopt(dead=ENGINE))
    assert tale.node("a").state is N.FAILED
    tale.claim()

    assert tale.status is S.FAILED
    assert tale.run.last_failure is not None
    assert tale.run.last_failure.reason == "its engine died 5 times while it ran"


# Parking


def test_open_gate_does_not_hold_independent_nodes() -> None:
    tale = Tale(gate_node("g"), python_node("a"), python_node("b", "a")).claim()

    tale.succeed("a")
    assert tale.states() == {"g": "gated", "a": "completed", "b": "running"}
    tale.succeed("b")

    assert tale.status is S.AWAITING_APPROVAL
    assert tale.run.detail == "awaiting approval for gate `g`"
    assert tale.run.due_at_ms == tale.now_ms + GATE_STALE_AFTER_MS
    assert tale.open_gates()[0].expires_at_ms == tale.now_ms + GATE_EXPIRES_AFTER_MS


def test_gate_without_a_span_expires_after_the_default_one() -> None:
    policy = {"expires_after_ms": 0, "on_expiry": "resume"}
    tale = Tale(gate_node("g", gate={"required": True, "expiry_policy": policy})).claim()

    (gate,) = tale.open_gates()
    assert gate.expires_at_ms == tale.now_ms + GATE_EXPIRES_AFTER_MS


def test_gate_that_resumes_on_expiry_lets_the_run_go_on() -> None:
    policy = {"expires_after_ms": 100, "on_expiry": "resume"}
    tale = Tale(gate_node("g", gate={"required": True, "expiry_policy": policy})).claim()
    tale.now_ms += 100
    tale.command(Wake())
    assert tale.happened() == ["approval_gate_timeout_resumed", "node_completed"]

    tale.claim()

    assert tale.status is S.COMPLETED
    output = decode(tale.node("g").output or b"")
    assert isinstance(output, dict)
    assert output["decision"] == "timeout_resume"
    assert [gate.status for gate in tale.gates.values()] == [GateStatus.EXPIRED]


def test_gate_that_cancels_on_expiry_ends_the_run_and_withdraws_the_others() -> None:
    policy = {"expires_after_ms": 100, "on_expiry": "cancel"}
    tale = Tale(
        gate_node("g", gate={"required": True, "expiry_policy": policy}),
        gate_node("h"),
        timer_node("t", delay_ms=5_000),
        python_node("a"),
    ).claim()
    tale.now_ms += 100

    tale.advance()

    assert tale.status is S.CANCELLED
    assert tale.run.stop_kind is StopKind.CANCELLED
    assert tale.run.cleanup == ENGINE
    assert sorted(gate.status.value for gate in tale.gates.values()) == ["expired", "withdrawn"]
    assert [wait.status for wait in tale.waits.values()] == [WaitStatus.CANCELLED]


def test_timer_parks_the_run_and_wakes_it() -> None:
    tale = Tale(timer_node("t", delay_ms=700), python_node("a", "t")).claim()

    assert tale.status is S.PAUSED
    assert tale.run.parked == "timer of node `t`"
    assert tale.run.due_at_ms == tale.now_ms + 700
    tale.now_ms += 700
    tale.command(Wake())
    tale.claim()

    assert tale.states() == {"t": "completed", "a": "running"}
    assert tale.run.parked == ""
    assert [wait.status for wait in tale.waits.values()] == [WaitStatus.WOKEN]


def test_timer_wakes_while_other_nodes_run() -> None:
    tale = Tale(timer_node("t", delay_ms=700), python_node("a")).claim()

    assert tale.view.next_due_at_ms(tale.now_ms) == tale.now_ms + 700
    tale.now_ms += 700
    tale.advance()

    assert tale.states() == {"t": "completed", "a": "running"}


def test_gate_goes_before_backoff_and_backoff_before_wait() -> None:
    tale = Tale(timer_node("t", delay_ms=100), retrying("a"), gate_node("g")).claim()
    tale.fail("a")
    assert tale.status is S.AWAITING_APPROVAL

    other = Tale(timer_node("t", delay_ms=100), retrying("a")).claim()
    other.fail("a")
    assert other.status is S.QUEUED
    assert other.run.due_at_ms == other.now_ms + 100


# Pausing


def test_pausing_run_lets_its_attempts_land_and_starts_nothing() -> None:
    tale = Tale(python_node("a"), python_node("b", "a")).claim()
    tale.command(Pause(reason="lunch"))

    assert tale.status is S.PAUSING
    tale.succeed("a")

    assert tale.status is S.PAUSED
    assert tale.states() == {"a": "completed", "b": "pending"}
    assert tale.run.detail == "lunch"
    assert tale.run.parked == ""


def test_pausing_run_waits_for_the_last_attempt() -> None:
    tale = Tale(python_node("a"), python_node("b")).claim()
    tale.command(Pause())

    tale.succeed("a")
    assert tale.status is S.PAUSING
    tale.succeed("b")
    assert tale.status is S.PAUSED


def test_cancelled_run_ends_its_attempts_and_keeps_what_must_be_cleaned_up() -> None:
    tale = Tale(python_node("a"), gate_node("g")).claim()

    tale.command(Cancel(reason="enough"))

    assert tale.status is S.CANCELLED
    assert tale.run.cleanup == ENGINE
    assert tale.ended[0, 1].message == "enough"
    assert tale.open_gates() == []


def test_decision_while_the_run_is_running_starts_what_it_frees() -> None:
    tale = Tale(gate_node("g"), python_node("a"), python_node("b", "g")).claim()

    tale.command(DecideGate(decision="approve"))
    assert tale.status is S.RUNNING
    tale.advance()

    assert tale.states() == {"g": "completed", "a": "running", "b": "running"}


def test_other_engine_is_not_the_one_that_died() -> None:
    tale = Tale(python_node("a")).claim()
    with pytest.raises(Refused, match="does not hold it"):
        tale.command(Adopt(dead=EngineId("engine-2")))


def test_graph_with_a_cycle_fails_instead_of_waiting_for_ever() -> None:
    tale = Tale(python_node("a", "b"), python_node("b", "a")).claim()

    assert tale.status is S.FAILED
    assert tale.run.detail == "flow deadlock: no runnable nodes"
