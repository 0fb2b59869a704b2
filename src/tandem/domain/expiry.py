"""What time does to an open gate: expire it, tell somebody, remind, mark it as stale."""

from typing import assert_never

import msgspec

from tandem.domain.completion import complete
from tandem.domain.deadline import Step, deadline_of, escalated, reminded
from tandem.domain.draft import Draft
from tandem.domain.gates import gate_output
from tandem.domain.ids import GateId
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.run import Gate, GateStatus
from tandem.domain.stopping import cancel_run

E, S = RunEvent, RunState


def pass_time(draft: Draft, gate_id: GateId) -> None:
    """Do everything that is due at this gate now (run-lifecycle 6.4, T83 to T87)."""
    while True:
        gate = draft.gate(gate_id)
        if gate.status is not GateStatus.OPEN:
            return
        step = deadline_of(gate).due(draft.now_ms)
        if step is None:
            return
        _take(draft, gate, step)


def _take(draft: Draft, gate: Gate, step: Step) -> None:
    match step:
        case Step.CANCEL:
            _expire(draft, gate)
        case Step.RESUME:
            _resume(draft, gate)
        case Step.ESCALATE:
            state = escalated(gate, now_ms=draft.now_ms)
            _note(draft, gate, E.GATE_ESCALATED, escalated_to=state.escalated_to)
            draft.gates[gate.gate_id] = msgspec.structs.replace(gate, policy_state=state)
        case Step.REMIND:
            state = reminded(gate, now_ms=draft.now_ms)
            _note(
                draft,
                gate,
                E.GATE_REMINDER_DUE,
                expired=state.expired_reminder,
                reminder_count=state.reminder_count,
            )
            draft.gates[gate.gate_id] = msgspec.structs.replace(gate, policy_state=state)
        case Step.MARK_STALE:
            state = msgspec.structs.replace(gate.policy_state, stale_at_ms=draft.now_ms)
            _note(draft, gate, E.GATE_MARKED_STALE, stale_policy="manual_only_visible_status")
            draft.gates[gate.gate_id] = msgspec.structs.replace(gate, policy_state=state)
        case _:
            assert_never(step)


def _expire(draft: Draft, gate: Gate) -> None:
    _close(draft, gate, "expired")
    _note(draft, gate, E.GATE_EXPIRED, decision="expired")
    cancel_run(draft, E.RUN_CANCELLED, reason=f"gate `{gate.node_id}` expired undecided")


def _resume(draft: Draft, gate: Gate) -> None:
    closed = _close(draft, gate, "timeout_resume")
    _note(draft, gate, E.GATE_TIMEOUT_RESUMED, decision="timeout_resume")
    run = draft.run
    run.resume_reason = f"gate `{gate.node_id}` decision: timeout_resume"
    if run.status is S.QUEUED:
        run.due_at_ms = draft.now_ms
    output = gate_output(draft, closed, "timeout_resume")
    complete(draft, draft.plan.nodes[gate.node_no], output=output)


def _close(draft: Draft, gate: Gate, decision: str) -> Gate:
    closed = msgspec.structs.replace(
        gate, status=GateStatus.EXPIRED, decision=decision, decided_at_ms=draft.now_ms
    )
    draft.gates[gate.gate_id] = closed
    return closed


def _note(draft: Draft, gate: Gate, event: RunEvent, **facts: str | int | bool) -> None:
    metadata: JsonObject = {"gate_id": gate.gate_id, "expires_at_ms": gate.expires_at_ms, **facts}
    draft.happen(event, node_id=gate.node_id, metadata=metadata)
