"""What may be asked of a run, and in any order."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tandem.domain.command import (
    Adopt,
    Cancel,
    Claim,
    Command,
    ContinueNode,
    DecideGate,
    Dispose,
    HandBack,
    NoteFork,
    Own,
    Panic,
    Pause,
    ProcessesEnded,
    Recover,
    Redeliver,
    Repair,
    ResolveWait,
    Resume,
    RetryNode,
    SetOutput,
    Skip,
    Wake,
)
from tandem.domain.errors import NotFound, NothingToDo, Refused
from tandem.domain.gates import GATE_ALIASES
from tandem.domain.ids import EngineId, NodeId, RunId
from tandem.domain.json import decode
from tandem.domain.lifecycle import DRIVEN, LIVE, TERMINAL, NodeState, RunState, StopKind
from tandem.domain.outcome import Failed, FailureClass, NeedsRepair, Outcome, Stopped, Succeeded
from tandem.domain.settling import Settled
from tandem.testing.builders import condition_node, gate_node, python_node, timer_node
from tandem.testing.tale import ENGINE, Tale

N, S = NodeState, RunState
ONCE = {"max_attempts": 1}


def a_run(status: RunState) -> Tale:
    """Return a run in this state."""
    tale = Tale(python_node("a", retry_policy=ONCE), python_node("b", "a"))
    match status:
        case S.QUEUED:
            return tale
        case S.PAUSED:
            tale.command(Pause())
            return tale
        case S.AWAITING_APPROVAL:
            return Tale(gate_node("g")).claim()
    tale.claim()
    match status:
        case S.PAUSING:
            tale.command(Pause())
        case S.COMPLETED:
            tale.succeed("a")
            tale.succeed("b")
        case S.BLOCKED:
            tale.repair("a")
        case S.FAILED:
            tale.fail("a")
        case S.CANCELLED:
            tale.command(Cancel())
    return tale


ALLOWED: dict[str, tuple[Command, frozenset[RunState]]] = {
    "claim": (Claim(engine_id=ENGINE), frozenset({S.QUEUED})),
    "pause": (Pause(), frozenset({S.QUEUED, S.RUNNING, S.AWAITING_APPROVAL})),
    "resume": (Resume(), frozenset({S.PAUSED})),
    "pause now": (
        Pause(now=True),
        frozenset({S.QUEUED, S.RUNNING, S.PAUSING, S.AWAITING_APPROVAL}),
    ),
    "recover": (Recover(), frozenset({S.FAILED, S.BLOCKED, S.PAUSED})),
    "cancel": (Cancel(), LIVE | {S.BLOCKED}),
    "decide": (DecideGate(decision="approve"), frozenset({S.AWAITING_APPROVAL})),
    "wake": (Wake(), frozenset()),
    "adopt": (Adopt(dead=ENGINE), DRIVEN),
    "own": (Own(engine_id=ENGINE, former=None), LIVE - DRIVEN),
    "hand back": (HandBack(engine_id=ENGINE), DRIVEN),
    "panic": (Panic(engine_id=ENGINE, reason="oh"), DRIVEN),
    "processes ended": (ProcessesEnded(engine_id=ENGINE), frozenset({S.CANCELLED})),
}


@pytest.mark.parametrize("status", RunState)
@pytest.mark.parametrize("name", ALLOWED)
def test_command_is_allowed_only_in_its_states(name: str, status: RunState) -> None:
    command, states = ALLOWED[name]
    tale = a_run(status)
    assert tale.status is status
    count = len(tale.changes)

    if status in states:
        tale.command(command)
        assert len(tale.changes) == count + 1
        return
    with pytest.raises(Refused):
        tale.command(command)
    assert tale.status is status


# Claiming


def test_each_claim_raises_the_epoch() -> None:
    tale = a_run(S.RUNNING)
    assert (tale.run.epoch, tale.run.engine_id) == (1, ENGINE)
    first = tale.run.started_at_ms

    tale.command(HandBack(engine_id=ENGINE))
    assert tale.run.engine_id is None
    tale.now_ms += 5
    tale.command(Claim(engine_id=EngineId("engine-2")))

    assert (tale.run.epoch, tale.run.engine_id) == (2, "engine-2")
    assert tale.run.started_at_ms == first
    assert tale.events[-1].metadata["lease_epoch"] == 2


# Pausing and resuming


def test_pause_of_a_running_run_in_which_nothing_runs_takes_effect_at_once() -> None:
    tale = Tale(python_node("a"))
    tale.command(Claim(engine_id=ENGINE))

    tale.command(Pause(reason="wait"))

    assert tale.happened() == ["run_pause_requested", "run_paused"]
    assert tale.status is S.PAUSED
    assert tale.run.pause_reason == "wait"


def test_run_that_waits_for_time_can_be_held_by_a_person_and_resumed() -> None:
    tale = Tale(timer_node("t")).claim()
    with pytest.raises(Refused, match="it waits for the timer of node `t` and goes on by itself"):
        tale.command(Resume())

    tale.command(Pause())
    assert (tale.status, tale.run.parked, tale.run.due_at_ms) == (S.PAUSED, "", None)
    tale.command(Resume(reason="go", owner=ENGINE))

    assert (tale.status, tale.run.due_at_ms) == (S.QUEUED, tale.now_ms)
    assert (tale.run.resume_reason, tale.run.pause_reason, tale.run.owner) == ("go", "", ENGINE)


def test_pause_at_once_leaves_the_run_driven_until_nothing_of_it_runs() -> None:
    tale = Tale(python_node("a"), python_node("b")).claim()

    tale.command(Pause(reason="stop", now=True))
    assert (tale.status, tale.run.pause_mode, tale.run.engine_id) == (S.PAUSING, "now", ENGINE)
    with pytest.raises(Refused):
        tale.command(Pause(now=True))
    tale.stop("a")
    assert tale.status is S.PAUSING
    tale.stop("b")

    assert (tale.status, tale.run.pause_mode) == (S.PAUSED, "")
    # What was stopped is not charged.
    assert tale.node("a").attempts_used == 0


def test_pause_can_be_hastened() -> None:
    tale = a_run(S.RUNNING)
    tale.command(Pause())
    assert tale.run.pause_mode == ""
    tale.command(Pause(reason="faster", now=True))
    assert tale.run.pause_mode == "now"
    tale.command(Adopt(dead=ENGINE))
    assert (tale.status, tale.run.pause_mode) == (S.PAUSED, "")


# Recovering


def test_recovered_run_keeps_what_is_completed_and_resets_the_rest() -> None:
    tale = Tale(
        python_node("a"), python_node("b", "a", retry_policy=ONCE), python_node("c", "b")
    ).claim()
    tale.succeed("a")
    tale.fail("b")
    assert tale.status is S.FAILED

    tale.command(Recover(owner=ENGINE))

    assert tale.happened() == ["run_recovered", "node_reset"]
    assert tale.states() == {"a": "completed", "b": "pending", "c": "pending"}
    assert (tale.node("b").attempts, tale.node("b").attempts_used) == (1, 0)
    assert tale.run.last_failure is None
    assert tale.run.finished_at_ms is None
    tale.claim()
    assert tale.node("b").attempts == 2


def test_run_is_not_recovered_while_its_processes_live() -> None:
    tale = a_run(S.BLOCKED)
    tale.view.run.cleanup = ENGINE

    with pytest.raises(Refused, match="its processes are still being ended"):
        tale.command(Recover())


# Cancelling


@pytest.mark.parametrize("status", [S.COMPLETED, S.FAILED, S.CANCELLED])
def test_cancelling_what_has_ended_is_nothing_to_do(status: RunState) -> None:
    with pytest.raises(NothingToDo) as refused:
        a_run(status).command(Cancel())
    assert refused.value.code == "already_terminal"


def test_cancelled_blocked_run_ends_anew() -> None:
    tale = a_run(S.BLOCKED)
    tale.now_ms += 7
    tale.command(Cancel())
    assert (tale.status, tale.run.finished_at_ms) == (S.CANCELLED, tale.now_ms)


def test_cancel_of_a_run_without_processes_leaves_nothing_to_clean_up() -> None:
    tale = a_run(S.QUEUED)

    tale.command(Cancel(reason="not needed"))

    assert tale.run.cleanup is None
    assert tale.run.stop_kind is StopKind.OPERATOR_STOPPED
    assert tale.run.stop_reason == tale.run.detail == "not needed"


def test_processes_end_only_on_the_engine_that_had_them() -> None:
    tale = a_run(S.CANCELLED)
    with pytest.raises(Refused, match="holds no process of it"):
        tale.command(ProcessesEnded(engine_id=EngineId("engine-2")))

    tale.command(ProcessesEnded(engine_id=ENGINE))

    assert tale.run.cleanup is None


# Gates


def test_approval_completes_the_gate_and_queues_the_run() -> None:
    tale = Tale(gate_node("g"), python_node("a", "g")).claim()

    tale.command(DecideGate(decision="approve", reason="fine", decided_by="eve"))

    assert (tale.status, tale.run.due_at_ms) == (S.QUEUED, tale.now_ms)
    output = decode(tale.node("g").output or b"")
    content = {
        "decision": "approve",
        "reason": "fine",
        "decided_by": "eve",
        "decided_at_ms": tale.now_ms,
    }
    assert output == {
        "contract_kind": "approval_gate",
        "status": "completed",
        **content,
        "content": {**content, "reviewed_artifact": None},
    }


def test_decision_on_a_queued_run_makes_it_due_at_once() -> None:
    backoff = {"backoff": {"strategy": "fixed", "initial_delay_ms": 60_000}}
    tale = Tale(gate_node("g"), python_node("a", retry_policy=backoff)).claim()
    tale.fail("a")
    tale.command(DecideGate(decision="approve"))
    assert tale.status is S.QUEUED
    # A second gate is decided while the run is queued already.
    other = Tale(gate_node("g"), gate_node("h")).claim()
    other.command(DecideGate(decision="approve", node_id=NodeId("h")))
    other.now_ms += 10
    other.command(DecideGate(decision="approve"))

    assert (other.status, other.run.due_at_ms) == (S.QUEUED, other.now_ms)


def test_oldest_gate_is_decided_unless_one_is_named() -> None:
    tale = Tale(gate_node("g"), gate_node("h")).claim()
    gates = tale.open_gates()
    assert [gate.node_id for gate in gates] == ["g", "h"]

    tale.command(DecideGate(decision="approve", gate_id=gates[1].gate_id))
    assert tale.states() == {"g": "gated", "h": "completed"}
    tale.command(DecideGate(decision="approve"))
    assert tale.states() == {"g": "completed", "h": "completed"}


def test_gate_that_is_not_open_is_refused_with_a_hint() -> None:
    tale = Tale(gate_node("g"), python_node("a", "g")).claim()

    with pytest.raises(Refused, match="no open gate node `a`; open: g") as refused:
        tale.command(DecideGate(decision="approve", node_id=NodeId("a")))
    assert refused.value.code == "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL"
    with pytest.raises(NotFound, match="has no node `z`"):
        tale.command(DecideGate(decision="approve", node_id=NodeId("z")))
    tale.command(DecideGate(decision="approve"))
    with pytest.raises(Refused, match="has no open gate; gate `g` was decided already: approve"):
        tale.command(DecideGate(decision="approve"))
    with pytest.raises(Refused, match="has no open gate; the run has not reached one"):
        Tale(python_node("a")).claim().command(DecideGate(decision="approve"))


@pytest.mark.parametrize("alias", [*GATE_ALIASES, " APPROVE "])
def test_aliases_mean_what_the_engine_calls_it(alias: str) -> None:
    tale = Tale(python_node("a"), gate_node("g", "a")).claim()
    tale.succeed("a")

    tale.command(DecideGate(decision=alias))

    (gate,) = tale.gates.values()
    assert gate.decision == GATE_ALIASES.get(alias, "approve")


def offering(*decisions: str) -> Tale:
    return Tale(gate_node("g", gate={"required": True, "decisions": list(decisions)})).claim()


def test_decisions_that_a_gate_does_not_offer_are_refused() -> None:
    with pytest.raises(Refused, match="does not offer `rework`; it offers approve, cancel") as no:
        offering("approve", "cancel").command(DecideGate(decision="rework"))
    assert no.value.code == "AUTOMATION_V2_GATE_INVALID_DECISION"
    with pytest.raises(Refused, match="does not offer `cancel`"):
        offering("approve", "rework").command(DecideGate(decision="cancel"))


def test_gate_that_only_offers_approval_cannot_be_rejected() -> None:
    with pytest.raises(Refused, match="does not offer `reject`; it offers Approve"):
        offering("Approve").command(DecideGate(decision="reject"))


def test_cancellation_by_a_gate_without_a_reason_names_the_gate() -> None:
    tale = offering("Approve", "Reject")

    tale.command(DecideGate(decision="reject"))

    assert tale.status is S.CANCELLED
    assert tale.run.detail == "gate `g`: cancelled"


def test_gate_with_words_of_its_own_completes_with_the_word() -> None:
    tale = offering("Ship it", "Hold")

    tale.command(DecideGate(decision="ship it"))

    output = decode(tale.node("g").output or b"")
    assert isinstance(output, dict)
    assert output["decision"] == "ship it"


def test_rework_resets_what_the_gate_looked_at_and_asks_again() -> None:
    tale = Tale(python_node("a"), python_node("b", "a"), gate_node("g", "b")).claim()
    tale.succeed("a")
    tale.succeed("b")

    tale.command(DecideGate(decision="rework", reason="again"))
    assert tale.states() == {"a": "completed", "b": "pending", "g": "pending"}
    tale.claim()
    tale.succeed("b")

    (gate,) = tale.open_gates()
    assert gate.instance == 2
    assert tale.node("b").attempts == 2


def test_rework_leaves_what_is_asked_elsewhere_open() -> None:
    tale = Tale(
        python_node("a"), gate_node("g", "a"), gate_node("h"), timer_node("t", delay_ms=50)
    ).claim()
    tale.succeed("a")

    tale.command(DecideGate(decision="rework", node_id=NodeId("g")))

    assert [gate.node_id for gate in tale.open_gates()] == ["h"]
    assert [wait.node_id for wait in tale.waits_left()] == ["t"]


def test_rework_goes_back_to_the_declared_nodes() -> None:
    gate = {"required": True, "rework_targets": ["a", "gone"]}
    tale = Tale(
        python_node("a"), python_node("b", "a"), gate_node("g", "b", gate=gate), gate_node("h", "a")
    ).claim()
    tale.succeed("a")
    tale.succeed("b")
    assert len(tale.open_gates()) == 2

    tale.command(DecideGate(decision="rework", node_id=NodeId("g")))

    assert set(tale.states().values()) == {"pending"}
    assert sorted(gate.status.value for gate in tale.gates.values()) == ["decided", "withdrawn"]


def test_node_that_completes_after_a_rework_is_no_longer_the_last_failure() -> None:
    gate = {"required": True, "rework_targets": ["a"]}
    tale = Tale(
        python_node("a", retry_policy=ONCE), gate_node("g", gate=gate), python_node("z")
    ).claim()
    tale.repair("a")
    assert tale.run.last_failure is not None

    tale.command(DecideGate(decision="rework"))
    tale.advance()
    tale.succeed("a")

    assert tale.run.last_failure is None


def interrupted() -> Tale:
    tale = Tale(python_node("a", effects="external"), python_node("b", "a")).claim()
    tale.command(Adopt(dead=ENGINE))
    return tale


def test_unknown_outcome_can_be_settled_as_done() -> None:
    tale = interrupted()

    tale.command(DecideGate(decision="done", output=b'{"sent":true}'))

    assert tale.states() == {"a": "completed", "b": "pending"}
    assert tale.node("a").output == b'{"sent":true}'


def test_unknown_outcome_that_is_done_without_an_output_has_none() -> None:
    tale = interrupted()

    tale.command(DecideGate(decision="done"))

    assert tale.node("a").output == b"null"


def test_unknown_outcome_can_be_tried_again_without_charging_the_attempt() -> None:
    tale = interrupted()

    tale.command(DecideGate(decision="retry"))
    tale.claim()

    assert tale.node("a").state is N.RUNNING
    assert (tale.node("a").attempts, tale.node("a").attempts_used) == (2, 1)


def test_unknown_outcome_can_end_the_run() -> None:
    tale = interrupted()

    tale.command(DecideGate(decision="cancel", reason="too risky"))

    assert (tale.status, tale.run.detail) == (S.CANCELLED, "too risky")


def test_unknown_outcome_cannot_be_approved() -> None:
    with pytest.raises(Refused, match="does not offer `approve`"):
        interrupted().command(DecideGate(decision="approve"))


# Engines that die or leave


def test_run_of_a_dead_engine_is_queued_again_for_whoever_asks() -> None:
    tale = a_run(S.RUNNING)

    tale.command(Adopt(dead=ENGINE, owner=EngineId("engine-2")))

    assert tale.happened() == ["node_interrupted", "run_queued_for_resume_after_restart"]
    assert (tale.status, tale.run.due_at_ms) == (S.QUEUED, tale.now_ms)
    assert tale.run.owner == "engine-2"
    assert tale.node("a").interruptions == 1
    assert tale.ended[0, 1].message == f"engine {ENGINE} died"


def test_pausing_run_of_a_dead_engine_is_paused() -> None:
    tale = a_run(S.PAUSING)

    tale.command(Adopt(dead=ENGINE))

    assert tale.happened()[-1] == "run_pausing_settled_on_restart"
    assert tale.status is S.PAUSED


def test_run_that_is_handed_back_is_due_at_once_and_its_attempt_is_free() -> None:
    tale = a_run(S.RUNNING)

    tale.command(HandBack(engine_id=ENGINE))

    assert (tale.status, tale.run.due_at_ms, tale.run.owner) == (S.QUEUED, tale.now_ms, None)
    assert (tale.node("a").attempts_used, tale.node("a").interruptions) == (0, 0)


def test_pausing_run_that_is_handed_back_is_paused() -> None:
    tale = a_run(S.PAUSING)

    tale.command(HandBack(engine_id=ENGINE))

    assert tale.status is S.PAUSED


def test_panic_of_the_driver_fails_the_run_and_can_be_recovered_from() -> None:
    tale = a_run(S.RUNNING)

    tale.command(Panic(engine_id=ENGINE, reason="KeyError: x"))

    assert (tale.status, tale.run.stop_kind) == (S.FAILED, StopKind.PANIC)
    assert tale.run.detail == "automation run panicked: KeyError: x"
    assert tale.states()["a"] == "pending"
    tale.command(Recover())
    tale.claim()
    assert tale.states()["a"] == "running"


def test_run_is_only_owned_anew_by_the_first_who_saw_its_former_owner() -> None:
    tale = a_run(S.QUEUED)
    tale.command(Own(engine_id=ENGINE, former=None))
    assert tale.run.owner == ENGINE

    with pytest.raises(Refused, match="another engine was first"):
        tale.command(Own(engine_id=EngineId("engine-2"), former=None))


def test_woken_run_was_due() -> None:
    tale = Tale(timer_node("t", delay_ms=100)).claim()
    with pytest.raises(Refused, match="it is not waiting for this moment"):
        tale.command(Wake())
    tale.now_ms += 100

    tale.command(Wake())

    assert (tale.status, tale.run.due_at_ms) == (S.QUEUED, tale.now_ms)


# Any order


NODES: tuple[dict[str, Any], ...] = (
    python_node("a", retry_policy={"max_attempts": 2, "backoff": {"initial_delay_ms": 50}}),
    python_node("b", "a", effects="external"),
    gate_node(
        "g",
        "a",
        gate={"required": True, "expiry_policy": {"expires_after_ms": 900, "on_expiry": "resume"}},
    ),
    timer_node("t", delay_ms=200),
    condition_node("w", expires_after_ms=300, on_timeout="escalate", remind_every_ms=90),
    condition_node("v", "a", key="other", expires_after_ms=600, on_timeout="resume"),
    python_node(
        "c",
        "b",
        "t",
        retry_policy={
            "max_attempts": 2,
            "backoff": {"strategy": "fixed", "initial_delay_ms": 100},
        },
    ),
    gate_node(
        "h",
        "c",
        "g",
        gate={
            "required": True,
            "rework_targets": ["a"],
            "expiry_policy": {"expires_after_ms": 400, "on_expiry": "remind"},
        },
    ),
    python_node("d", "h"),
)
OUTCOMES: tuple[Outcome, ...] = (
    Succeeded(output=1),
    Succeeded(output=2),
    Failed(failure_class=FailureClass.EXECUTION_ERROR, message="it broke"),
    Failed(failure_class=FailureClass.OUTPUT_TOO_LARGE, message="too much"),
    NeedsRepair(reasons=("no title",)),
    NeedsRepair(reasons=("no",), failure_class=FailureClass.VERIFICATION_FAILED),
    Stopped(reason="stopped"),
)
COMMANDS: tuple[Command, ...] = (
    Claim(engine_id=ENGINE),
    Pause(),
    Resume(),
    Recover(),
    Cancel(),
    Wake(),
    Adopt(dead=ENGINE),
    HandBack(engine_id=ENGINE),
    Panic(engine_id=ENGINE, reason="oh"),
    ProcessesEnded(engine_id=ENGINE),
    Own(engine_id=ENGINE, former=None),
    *(
        DecideGate(decision=word)
        for word in ("approve", "rework", "cancel", "done", "retry", "maybe")
    ),
    DecideGate(decision="approve", node_id=NodeId("h")),
    DecideGate(decision="approve", transition_id="another"),
    ResolveWait(idempotency_key="k", node_id=NodeId("w")),
    ResolveWait(idempotency_key="k"),
    Pause(now=True),
    Redeliver(),
    Repair(node_id=NodeId("c"), action={"kind": "python", "function": "simulated:other"}),
    NoteFork(fork=RunId("fork"), node_id=NodeId("a")),
    *(
        command
        for node_id in map(NodeId, ("a", "b", "c", "g", "t"))
        for command in (
            RetryNode(node_id=node_id),
            ContinueNode(node_id=node_id),
            Skip(node_id=node_id, reason="no need"),
            SetOutput(node_id=node_id, output=b"5", reason="known"),
            Dispose(node_id=node_id, disposition="ok"),
        )
    ),
)


LEAVING = (Recover, Cancel, Repair, RetryNode, ContinueNode, Skip, SetOutput, Redeliver)
"""What may take up a run that has ended, or end it anew."""


class RunMachine(RuleBasedStateMachine):
    """Any order of commands and outcomes.

    After each step `Tale` compares log, rows and bookkeeping: the events replay to the state, and
    a view that is built anew from the rows equals the one that was changed in place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tale = Tale(*NODES, parallel=2)

    @rule(command=st.sampled_from(COMMANDS))
    def somebody_asks(self, command: Command) -> None:
        before = self.tale.status
        try:
            self.tale.command(command)
        except (Refused, NotFound):
            return
        if before in TERMINAL and self.tale.status is not before:
            assert isinstance(command, LEAVING)

    @precondition(lambda self: self.tale.status is S.QUEUED)
    @rule()
    def engine_claims(self) -> None:
        self.tale.claim()

    @precondition(lambda self: self.tale.status in DRIVEN)
    @rule(choice=st.integers(0, 9), outcome=st.sampled_from(OUTCOMES), span_ms=st.integers(0, 300))
    def attempt_ends(self, choice: int, outcome: Outcome, span_ms: int) -> None:
        self.tale.now_ms += span_ms
        running = sorted(self.tale.view.running)
        if not running:
            self.tale.advance()
            return
        node_no = running[choice % len(running)]
        number = self.tale.view.node(node_no).attempts
        self.tale.advance(Settled(node_no=node_no, number=number, outcome=outcome, output=b"1"))

    @rule(span_ms=st.integers(1, 1_000))
    def time_passes(self, span_ms: int) -> None:
        self.tale.now_ms += span_ms

    @invariant()
    def log_replays_to_the_state(self) -> None:
        self.tale.check()

    @invariant()
    def run_that_rests_says_what_wakes_it(self) -> None:
        run, view = self.tale.run, self.tale.view
        assert (run.engine_id is not None) == (run.status in DRIVEN)
        assert (run.finished_at_ms is not None) == (run.status in TERMINAL)
        match run.status:
            case S.QUEUED:
                assert run.due_at_ms is not None
            case S.AWAITING_APPROVAL:
                assert view.gates
            case S.CANCELLED:
                assert not view.gates
                assert not view.waits
            case S.PAUSED if run.parked:
                assert view.waits
                signals = all(wait.signal_key for wait in view.waits.values())
                assert run.due_at_ms is not None or signals
        if run.status not in DRIVEN:
            assert not view.running
        if run.status not in TERMINAL:
            asking = {gate.node_no for gate in view.gates.values()}
            asking |= {wait.node_no for wait in view.waits.values()}
            held = {n for n, node in view.nodes.items() if node.state in (N.GATED, N.WAITING)}
            assert asking == held


RunMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
test_any_order_of_commands_and_outcomes = RunMachine.TestCase
