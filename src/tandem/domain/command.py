"""Commands: everything that may be asked of a run from outside its driver, decided purely.

The store locks the run, loads it, calls `decide`, and writes the change, all in one transaction;
so no command ever acts on a state that has moved on.
"""

from collections.abc import Mapping
from typing import Final, assert_never

import msgspec

from tandem.domain import driving
from tandem.domain.change import Change
from tandem.domain.draft import Draft
from tandem.domain.errors import NotFound, Refused
from tandem.domain.ids import ChangeId, EngineId, GateId, NodeId
from tandem.domain.lifecycle import DRIVEN, LIVE, NodeState, RunEvent, RunState, StopKind
from tandem.domain.run import AttemptEnd, Gate, GateStatus, NodeRun
from tandem.domain.view import RunView

E, N, S = RunEvent, NodeState, RunState


class Claim(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine takes a due queued run."""

    engine_id: EngineId


class Pause(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person holds the run; attempts that run are let to their end."""

    reason: str = "paused by operator"


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person lets a paused run go on. `owner` is an engine that wants to drive it itself."""

    reason: str = "resumed by operator"
    owner: EngineId | None = None


class Recover(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person lets a failed or blocked run try again; what is completed stays completed."""

    reason: str = "recovered by operator"
    owner: EngineId | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person ends the run."""

    reason: str = "cancelled by operator"


class DecideGate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person decides a gate: the one named by `gate_id`, else by `node_id`, else the oldest."""

    decision: str
    gate_id: GateId | None = None
    node_id: NodeId | None = None
    reason: str = ""
    decided_by: str = ""
    output: bytes | None = None
    """JSON for a node that is settled as done."""


class Wake(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Time has come for a parked run."""


class Adopt(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Take a run out of the hands of an engine that is dead; its leftovers are ended already."""

    dead: EngineId
    owner: EngineId | None = None


class Own(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine wants to drive a run itself when it is due; `former` is gone, or nobody."""

    engine_id: EngineId
    former: EngineId | None


class HandBack(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine that stops gives a run back; its attempts are ended already."""

    engine_id: EngineId
    reason: str = "automation run interrupted by server shutdown"


class ProcessesEnded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The processes of a stopped run are proven dead."""

    engine_id: EngineId


class Panic(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The driver of a run met a mistake of ours; its attempts are ended already (T43)."""

    engine_id: EngineId
    reason: str


Command = (
    Claim
    | Pause
    | Resume
    | Recover
    | Cancel
    | DecideGate
    | Wake
    | Adopt
    | Own
    | HandBack
    | ProcessesEnded
    | Panic
)

GATE_ALIASES: Final[Mapping[str, str]] = {
    "approved": "approve",
    "yes": "approve",
    "accept": "approve",
    "request_changes": "rework",
    "changes": "rework",
    "reject": "cancel",
    "rejected": "cancel",
    "deny": "cancel",
    "denied": "cancel",
}


def decide(view: RunView, command: Command, *, change_id: ChangeId, now_ms: int) -> Change:
    """Decide what `command` does to the run.

    Raises:
        Refused: the state of the run does not allow it; nothing is to be written.
        NotFound: the command names a node or gate that the run does not have.
    """
    draft = Draft(view, change_id=change_id, now_ms=now_ms)
    match command:
        case Claim():
            _claim(draft, command)
        case Pause():
            _pause(draft, command)
        case Resume():
            _resume(draft, command)
        case Recover():
            _recover(draft, command)
        case Cancel():
            _cancel(draft, command)
        case DecideGate():
            _decide_gate(draft, command)
        case Wake():
            _wake(draft)
        case Adopt():
            _adopt(draft, command)
        case Own():
            _own(draft, command)
        case HandBack():
            _hand_back(draft, command)
        case ProcessesEnded():
            _processes_ended(draft, command)
        case Panic():
            _panic(draft, command)
        case _:
            assert_never(command)
    draft.moved = True
    return draft.close()


def _refuse(draft: Draft, verb: str, hint: str) -> Refused:
    run = draft.run
    return Refused(f"cannot {verb} run {run.run_id}: it is {run.status.value}; {hint}")


def _claim(draft: Draft, command: Claim) -> None:
    run = draft.run
    if run.status is not S.QUEUED:
        raise _refuse(draft, "claim", "only a queued run can be claimed")
    run.engine_id = command.engine_id
    run.epoch += 1
    run.due_at_ms = None
    run.queue_reason = None
    if run.started_at_ms is None:
        run.started_at_ms = draft.now_ms
    draft.happen(
        E.RUN_CLAIMED,
        metadata={
            "claimant_id": command.engine_id,
            "lease_epoch": run.epoch,
            "claim_id": f"run-claim-{draft.change_id}",
        },
    )


def _pause(draft: Draft, command: Pause) -> None:
    run = draft.run
    if run.status is S.RUNNING:
        draft.happen(E.RUN_PAUSE_REQUESTED, reason=command.reason)
        if not draft.in_state(N.RUNNING):
            draft.happen(E.RUN_PAUSED, reason=command.reason)
    elif run.status in (S.QUEUED, S.AWAITING_APPROVAL) or (run.status is S.PAUSED and run.parked):
        draft.happen(E.RUN_PAUSED, reason=command.reason)
        run.due_at_ms = None
        run.parked = ""
    else:
        raise _refuse(draft, "pause", "only a queued, running or waiting run can be paused")
    run.pause_reason = command.reason
    run.detail = command.reason


def _resume(draft: Draft, command: Resume) -> None:
    run = draft.run
    if run.status is not S.PAUSED:
        raise _refuse(draft, "resume", "only a paused run can be resumed")
    if run.parked:
        raise _refuse(draft, "resume", f"it waits for the {run.parked} and goes on by itself")
    draft.happen(E.RUN_RESUMED, reason=command.reason)
    run.resume_reason = command.reason
    run.owner = command.owner
    _queue(draft)


def _queue(draft: Draft) -> None:
    run = draft.run
    run.due_at_ms = draft.now_ms
    run.pause_reason = ""
    run.stop_kind = None
    run.stop_reason = ""
    run.finished_at_ms = None


def _recover(draft: Draft, command: Recover) -> None:
    run = draft.run
    if run.status not in (S.FAILED, S.BLOCKED):
        raise _refuse(draft, "recover", "only a failed or blocked run can be recovered")
    if run.cleanup:
        raise _refuse(draft, "recover", "its processes are still being ended; try again shortly")
    roots = draft.in_state(N.FAILED, N.BLOCKED)
    draft.happen(
        E.RUN_RECOVERED,
        reason=command.reason,
        metadata={"roots": [draft.plan.nodes[n].node_id for n in sorted(roots)]},
    )
    reset(draft, roots, reason=command.reason)
    run.last_failure = None
    run.resume_reason = command.reason
    run.detail = ""
    run.owner = command.owner
    _queue(draft)


def reset(draft: Draft, roots: set[int], *, reason: str) -> None:
    """Make these nodes and everything after them pending again, as if they had never run.

    Attempt numbers go on; the attempts that the retry policy charges start again at zero.
    """
    numbers = draft.plan.with_descendants(roots)
    driving.withdraw(draft, numbers)
    for number in numbers:
        node = draft.node(number)
        if node.state is N.PENDING and number not in draft.view.nodes:
            continue
        fresh = NodeRun(
            node_no=number,
            attempts=node.attempts,
            gates=node.gates,
            interruptions=0,
        )
        draft.move(draft.plan.nodes[number], E.NODE_RESET, fresh, reason=reason)


def _cancel(draft: Draft, command: Cancel) -> None:
    if (draft.run.status, E.RUN_STOPPED) not in _CANCELLABLE:
        raise _refuse(draft, "cancel", "it has ended already")
    driving.cancel(draft, E.RUN_STOPPED, reason=command.reason)


_CANCELLABLE = frozenset((state, E.RUN_STOPPED) for state in RunState) - frozenset(
    (state, E.RUN_STOPPED) for state in (S.COMPLETED, S.FAILED, S.CANCELLED)
)


def _decide_gate(draft: Draft, command: DecideGate) -> None:
    gate = _find_gate(draft, command)
    decision = _allowed(gate, command.decision)
    draft.gates[gate.gate_id] = msgspec.structs.replace(
        gate,
        status=GateStatus.DECIDED,
        decision=decision,
        reason=command.reason,
        decided_by=command.decided_by,
        decided_at_ms=draft.now_ms,
    )
    draft.happen(
        E.GATE_DECIDED,
        node_id=gate.node_id,
        reason=command.reason,
        metadata={
            "gate_id": gate.gate_id,
            "decision": decision,
            "decided_by": command.decided_by,
        },
    )
    run, plan_node = draft.run, draft.plan.nodes[gate.node_no]
    run.resume_reason = f"gate `{gate.node_id}` decision: {decision}"
    if run.status is S.QUEUED:
        run.due_at_ms = draft.now_ms
    match decision:
        case "cancel":
            driving.cancel(
                draft, E.RUN_CANCELLED, reason=command.reason or f"gate `{gate.node_id}`: cancelled"
            )
        case "rework":
            reset(draft, _rework_roots(draft, gate), reason=command.reason or "rework")
        case "retry":
            node = draft.node(gate.node_no)
            again = NodeRun(
                node_no=gate.node_no,
                attempts=node.attempts,
                gates=node.gates,
                attempts_used=max(node.attempts_used - 1, 0),
                repair=node.repair,
            )
            draft.move(plan_node, E.NODE_RESET, again, reason=command.reason)
        case "done":
            driving.complete(
                draft, plan_node, output=command.output or b"null", reason=command.reason
            )
        case _:
            output = driving.gate_output(
                draft, gate, decision, reason=command.reason, decided_by=command.decided_by
            )
            driving.complete(draft, plan_node, output=output)


def _find_gate(draft: Draft, command: DecideGate) -> Gate:
    gates = sorted(draft.open_gates(), key=lambda gate: (gate.requested_at_ms, gate.gate_id))
    for gate in gates:
        if command.gate_id is not None and gate.gate_id != command.gate_id:
            continue
        if command.node_id is not None and gate.node_id != command.node_id:
            continue
        return gate
    run = draft.run
    if command.node_id is not None and draft.plan.node(command.node_id) is None:
        raise NotFound(f"run {run.run_id} has no node `{command.node_id}`")
    wanted = command.gate_id or (f"node `{command.node_id}`" if command.node_id else "")
    what = f"no open gate {wanted}".strip()
    hint = (
        f"open: {', '.join(gate.node_id for gate in gates)}"
        if gates
        else "it was decided already, or the run has not reached it"
    )
    raise Refused(
        f"cannot decide: run {run.run_id} ({run.status.value}) has {what}; {hint}",
        code="gate_not_open",
    )


def _allowed(gate: Gate, wanted: str) -> str:
    """Return the decision in the engine's words; the gate's own list is binding."""
    word = wanted.strip().lower()
    offered = {name.strip().lower(): name for name in gate.decisions}
    canonical = {GATE_ALIASES.get(name, name) for name in offered}
    meant = GATE_ALIASES.get(word, word)
    if word in offered or meant in canonical:
        return meant
    raise Refused(
        f"gate `{gate.node_id}` does not offer `{wanted}`; it offers {', '.join(gate.decisions)}",
        code="gate_invalid_decision",
    )


def _rework_roots(draft: Draft, gate: Gate) -> set[int]:
    plan_node = draft.plan.nodes[gate.node_no]
    asked = plan_node.node.effective_gate
    declared = asked.rework_targets if asked is not None else ()
    targets = {draft.plan.by_id[NodeId(name)] for name in declared if name in draft.plan.by_id}
    return (targets or set(plan_node.depends_on)) | {gate.node_no}


def _wake(draft: Draft) -> None:
    run = draft.run
    due = run.due_at_ms is not None and run.due_at_ms <= draft.now_ms
    parked = run.status is S.AWAITING_APPROVAL or (run.status is S.PAUSED and run.parked)
    if not due or not parked:
        raise _refuse(draft, "wake", "it is not waiting for this moment")
    draft.happen(E.RUN_WOKEN)
    run.due_at_ms = draft.now_ms


def _adopt(draft: Draft, command: Adopt) -> None:
    run = draft.run
    if run.status not in DRIVEN or run.engine_id != command.dead:
        raise _refuse(draft, "adopt", f"engine {command.dead} does not hold it")
    reason = f"engine {command.dead} died"
    _interrupt_running(draft, AttemptEnd.INTERRUPTED, reason=reason)
    if run.status is S.PAUSING:
        draft.happen(
            E.RUN_PAUSING_SETTLED, reason="automation run settled to paused after server restart"
        )
        run.owner = None
        return
    draft.happen(E.RUN_REQUEUED_AFTER_RESTART, reason=reason)
    run.detail = "automation run queued for resume after server restart"
    run.resume_reason = "server_restart_rehydration"
    run.due_at_ms = draft.now_ms
    run.owner = command.owner


def _own(draft: Draft, command: Own) -> None:
    run = draft.run
    if run.status not in LIVE - DRIVEN:
        raise _refuse(draft, "own", "only a run that waits can change its owner")
    if run.owner != command.former:
        raise _refuse(draft, "own", "another engine was first")
    run.owner = command.engine_id
    draft.happen(E.RUN_OWNER_CHANGED, metadata={"owner": command.engine_id})


def _interrupt_running(draft: Draft, end: AttemptEnd, *, reason: str) -> None:
    counts = end is AttemptEnd.INTERRUPTED
    for number in sorted(draft.in_state(N.RUNNING)):
        node = draft.node(number)
        driving.end_attempt(draft, node, end, message=reason)
        driving.interrupt(draft, draft.plan.nodes[number], node, reason=reason, counts=counts)


def _hand_back(draft: Draft, command: HandBack) -> None:
    run = draft.run
    if run.status not in DRIVEN or run.engine_id != command.engine_id:
        raise _refuse(draft, "hand back", f"engine {command.engine_id} does not hold it")
    _interrupt_running(draft, AttemptEnd.STOPPED, reason=command.reason)
    run.owner = None
    if run.status is S.PAUSING:
        draft.happen(E.RUN_PAUSED, reason=run.pause_reason)
        return
    draft.happen(E.RUN_HANDED_BACK, reason=command.reason)
    run.detail = command.reason
    run.due_at_ms = draft.now_ms


def _processes_ended(draft: Draft, command: ProcessesEnded) -> None:
    run = draft.run
    if run.cleanup != command.engine_id:
        raise _refuse(draft, "clean up", f"engine {command.engine_id} holds no process of it")
    draft.happen(E.RUN_PROCESSES_ENDED)
    run.cleanup = None


def _panic(draft: Draft, command: Panic) -> None:
    run = draft.run
    if run.status not in DRIVEN or run.engine_id != command.engine_id:
        raise _refuse(draft, "fail", f"engine {command.engine_id} does not hold it")
    _interrupt_running(draft, AttemptEnd.STOPPED, reason=command.reason)
    run.detail = run.stop_reason = f"automation run panicked: {command.reason}"
    run.stop_kind = StopKind.PANIC
    run.owner = None
    draft.happen(E.RUN_FAILED_PANIC, reason=run.detail, stop_kind=run.stop_kind)
