"""Asking a person: the gates that open, and what they carry for whoever decides."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tandem.domain.draft import Draft
from tandem.domain.gate_policy import GATE_STALE_AFTER_MS, GatePolicy
from tandem.domain.graph import PlanNode
from tandem.domain.ids import GateId
from tandem.domain.json import JsonValue, decode, digest
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.run import Gate, GatePurpose, NodeRun

E, N = RunEvent, NodeState

_CONSEQUENTIAL: Final = ("reviewer_eligibility", "risk_tier", "data_class", "four_eyes")
"""Keys of `metadata.approval.metadata` that forbid to approve one's own request (http-api 3.6)."""


def open_approval(draft: Draft, plan_node: PlanNode, policy: GatePolicy) -> None:
    """Open the gate of an approval node; what it does not say comes from `policy`."""
    node, gate = draft.node(plan_node.node_no), plan_node.node.effective_gate
    if gate is None:
        raise AssertionError(f"node {plan_node.node_id} is no approval")
    expiry = gate.expiry_policy
    # "Never unbounded" (run-lifecycle 6.4): a missing or zero span is the default one.
    expires_after_ms = (expiry.expires_after_ms if expiry else None) or policy.expires_after_ms
    asked = msgspec.structs.replace(
        node, state=N.GATED, gates=node.gates + 1, started_at_ms=draft.now_ms
    )
    draft.move(plan_node, E.GATE_OPENED, asked)
    _add(
        draft,
        Gate(
            gate_id=gate_id(draft, plan_node, asked.gates),
            node_no=plan_node.node_no,
            node_id=plan_node.node_id,
            instance=asked.gates,
            title=_title(plan_node),
            instructions=gate.instructions or "",
            decisions=gate.decisions,
            rework_targets=gate.rework_targets,
            requested_at_ms=draft.now_ms,
            requested_by=draft.run.started_by,
            expires_at_ms=draft.now_ms + expires_after_ms,
            on_expiry=str((expiry.on_expiry if expiry else None) or policy.on_expiry),
            escalate_to=(expiry.escalate_to if expiry else None) or "",
            remind_every_ms=expiry.remind_every_ms if expiry else None,
            stale_after_ms=policy.stale_after_ms,
            four_eyes=policy.four_eyes or is_consequential(plan_node),
            reviewed_artifact=_evidence(draft, plan_node),
        ),
    )


def ask_for_outcome(draft: Draft, plan_node: PlanNode, node: NodeRun, reason: str) -> None:
    """Ask whether an interrupted attempt with outside effects took place."""
    asked = msgspec.structs.replace(node, state=N.GATED, gates=node.gates + 1)
    draft.move(plan_node, E.NODE_OUTCOME_UNKNOWN, asked, attempt=node.attempts, reason=reason)
    _add(
        draft,
        Gate(
            gate_id=gate_id(draft, plan_node, asked.gates),
            node_no=plan_node.node_no,
            node_id=plan_node.node_id,
            instance=asked.gates,
            purpose=GatePurpose.OUTCOME_UNKNOWN,
            title=f"Was node `{plan_node.node_id}` done?",
            instructions=(
                f"Attempt {node.attempts} has effects outside and was interrupted ({reason}). Find "
                "out whether it took place: `done` counts it as completed, `retry` runs it again."
            ),
            decisions=("done", "retry", "cancel"),
            requested_at_ms=draft.now_ms,
            requested_by=draft.run.started_by,
            # No moment can tell what happened outside: this question never answers itself.
            expires_at_ms=None,
            on_expiry="remind",
            stale_after_ms=GATE_STALE_AFTER_MS,
        ),
    )


def gate_id(draft: Draft, plan_node: PlanNode, instance: int) -> GateId:
    """Return the id of one asking; the first has the name of the contract (run-lifecycle 6.2).

    Later askings have their number behind it: what was meant for an earlier one never counts.
    """
    name = f"automation_v2:{draft.run.run_id}:{plan_node.node_id}"
    return GateId(name if instance == 1 else f"{name}/{instance}")


def is_consequential(plan_node: PlanNode) -> bool:
    """Say whether the gate may not be approved by whoever started the run."""
    metadata = _mapping(_approval(plan_node).get("metadata"))
    return any(metadata.get(key) for key in _CONSEQUENTIAL)


def _add(draft: Draft, gate: Gate) -> None:
    draft.gates[gate.gate_id] = gate


def _title(plan_node: PlanNode) -> str:
    title = _mapping(_mapping(plan_node.node.metadata).get("builder")).get("title")
    named = title if isinstance(title, str) and title.strip() else plan_node.node.objective
    return named or plan_node.node_id


def _evidence(draft: Draft, plan_node: PlanNode) -> dict[str, Any] | None:
    """Return which version of which output is put before the reviewer, when the gate records it."""
    approval = _approval(plan_node)
    if approval.get("record_reviewed_artifact_hash") is not True:
        return None
    named = approval.get("display_artifact")
    sources = [draft.plan.nodes[number] for number in plan_node.depends_on]
    chosen = [source for source in sources if source.node_id == named] or sources[-1:]
    if not chosen:
        return None
    node = draft.node(chosen[0].node_no)
    path, shown = "", str(node.output_ref.digest) if node.output_ref is not None else ""
    if node.output is not None:
        output = _mapping(decode(node.output))
        path = str(output.get("path") or "")
        # An output that names a file says which version of it the attempt left.
        shown = str(output.get("digest") or digest(node.output))
    return {
        "path": path,
        "digest": shown,
        "source_node_id": chosen[0].node_id,
        "verified": bool(shown),
    }


def _approval(plan_node: PlanNode) -> Mapping[str, JsonValue]:
    return _mapping(_mapping(plan_node.node.metadata).get("approval"))


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, Mapping) else {}
