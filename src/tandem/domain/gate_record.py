"""A gate as the wire contract shows it: the pending gate, its guard, and the history of decisions.

Sources: run-lifecycle 1.3 and 6.2, http-api 4.2. Made from the rows when somebody asks for it.
"""

from typing import Any

from tandem.domain.graph import Plan
from tandem.domain.ids import RunId, TenantId
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import Gate, GateStatus, LifecycleEvent
from tandem.domain.tenant import context_json


def pending_gate(gate: Gate, *, run_id: RunId, tenant: TenantId, plan: Plan) -> dict[str, Any]:
    """Return the record of an open gate, with everything that a decision has to name."""
    upstream = [plan.nodes[number].node_id for number in plan.nodes[gate.node_no].depends_on]
    wait_id = f"{gate.gate_id}:wait"
    metadata: dict[str, Any] = {
        "approval_wait": {
            "wait_id": wait_id,
            "approval_request_id": gate.gate_id,
            "source": "automation_v2",
            "run_id": run_id,
            "node_id": gate.node_id,
            "transition_id": gate.transition_id,
        },
        "transition_guard": {
            "kind": "automation_v2_approval_transition",
            "approval_request_id": gate.gate_id,
            "wait_id": wait_id,
            "transition_id": gate.transition_id,
            "tenant": context_json(tenant),
        },
    }
    state = gate.policy_state
    if state.escalated_at_ms is not None or state.reminder_count:
        metadata["gate_policy_state"] = {
            "escalated_at_ms": state.escalated_at_ms,
            "escalated_to": state.escalated_to or None,
            "expires_at_ms": gate.expires_at_ms,
            "reminder_count": state.reminder_count,
            "last_reminded_at_ms": state.last_reminded_at_ms,
            "expired_reminder": state.expired_reminder,
            "notification_key": f"{gate.gate_id}:{state.reminder_count}",
        }
    if state.stale_at_ms is not None:
        metadata |= {
            "stale": True,
            "stale_at_ms": state.stale_at_ms,
            "stale_policy": "manual_only_visible_status",
        }
    if gate.reviewed_artifact is not None:
        metadata["reviewed_artifact"] = gate.reviewed_artifact
    return {
        "approval_request_id": gate.gate_id,
        "transition_id": gate.transition_id,
        "node_id": gate.node_id,
        "title": gate.title,
        "instructions": gate.instructions or None,
        "decisions": list(gate.decisions),
        "rework_targets": list(gate.rework_targets),
        "requested_at_ms": gate.requested_at_ms,
        "requested_by": gate.requested_by or None,
        "upstream_node_ids": upstream,
        "expiry_policy": expiry_policy(gate),
        "metadata": metadata,
    }


def expiry_policy(gate: Gate) -> dict[str, Any]:
    """Return when a gate expires, after which span and at which moment, and what follows."""
    at_ms = gate.expires_at_ms
    return {
        "expires_after_ms": None if at_ms is None else at_ms - gate.requested_at_ms,
        "expires_at_ms": at_ms,
        "on_expiry": gate.on_expiry,
        "escalate_to": gate.escalate_to or None,
        "remind_every_ms": gate.remind_every_ms,
    }


def decision_record(gate: Gate) -> dict[str, Any] | None:
    """Return the entry of the gate history for a gate that is settled, None for any other."""
    if gate.status not in (GateStatus.DECIDED, GateStatus.EXPIRED):
        return None
    return {
        "node_id": gate.node_id,
        "decision": gate.decision,
        "reason": gate.reason or None,
        "decided_at_ms": gate.decided_at_ms,
        "decided_by": gate.decided_by or None,
        "metadata": {"approval_request_id": gate.gate_id, "instance": gate.instance},
    }


def denial_record(event: LifecycleEvent) -> dict[str, Any] | None:
    """Return the entry of the gate history for a decision that was meant for another asking."""
    if event.event is not RunEvent.GATE_GUARD_DENIED:
        return None
    return {
        "node_id": event.node_id,
        "decision": "guard_denied",
        "reason": event.reason or None,
        "decided_at_ms": event.recorded_at_ms,
        "decided_by": event.metadata.get("decided_by") or None,
        "metadata": event.metadata,
    }


def on_expiry_words(gate: Gate) -> str:
    """Say in a few words what follows when nobody decides in time."""
    if gate.expires_at_ms is None:
        return "waits for ever"
    match gate.on_expiry:
        case "cancel":
            return "ends the run"
        case "resume":
            return "lets the run go on"
        case "escalate":
            return f"tells {gate.escalate_to.strip() or 'whoever is in charge'}"
        case _:
            return "reminds"
