"""A pending approval as the inbox of the wire contract shows it (http-api 4.2)."""

from typing import Any, Final

from tandem.domain.gate_record import expiry_policy
from tandem.domain.gates import GATE_ALIASES
from tandem.domain.ids import AutomationId, RunId, TenantId
from tandem.domain.node_output_record import without_nothing
from tandem.domain.run import Gate
from tandem.domain.tenant import context_of

SOURCE: Final = "automation_v2"
PREVIEW_CHARS_MAX: Final = 2_000


def approval_record(
    gate: Gate, *, run_id: RunId, automation_id: AutomationId, name: str, tenant: TenantId
) -> dict[str, Any]:
    """Return the item of an open gate; it says where and how the gate is decided."""
    wait_id = f"{gate.gate_id}:wait"
    context = context_of(tenant)
    words = [word.strip().lower() for word in gate.decisions]
    return without_nothing(
        {
            "request_id": gate.gate_id,
            "approval_wait": {
                "wait_id": wait_id,
                "approval_request_id": gate.gate_id,
                "source": SOURCE,
                "run_id": run_id,
                "node_id": gate.node_id,
                "transition_id": gate.transition_id,
            },
            "source": SOURCE,
            "tenant": {"org_id": context.org_id, "workspace_id": context.workspace_id},
            "run_id": run_id,
            "node_id": gate.node_id,
            "workflow_name": name or automation_id,
            "action_kind": gate.purpose.value,
            "action_preview_markdown": (gate.instructions or gate.title)[:PREVIEW_CHARS_MAX],
            "surface_payload": {
                "automation_v2_run_id": run_id,
                "automation_id": automation_id,
                "node_id": gate.node_id,
                "decide_endpoint": f"/automations/v2/runs/{run_id}/gate",
                "wait_id": wait_id,
                "approval_request_id": gate.gate_id,
                "transition_id": gate.transition_id,
                **without_nothing({"expires_at_ms": gate.expires_at_ms}),
                "expiry_policy": without_nothing(expiry_policy(gate)),
            },
            "requested_at_ms": gate.requested_at_ms,
            "requested_by": gate.requested_by or None,
            "expires_at_ms": gate.expires_at_ms,
            "decisions": list(dict.fromkeys(GATE_ALIASES.get(word, word) for word in words)),
            "rework_targets": list(gate.rework_targets),
            "instructions": gate.instructions or None,
        }
    )
