"""Gates: asking a person, what the person decides, and what happens when nobody does."""

from collections.abc import Mapping
from typing import Final

import msgspec

from tandem.domain.artifact import Invalidated, Validity
from tandem.domain.command import DecideGate
from tandem.domain.completion import complete
from tandem.domain.draft import Draft
from tandem.domain.errors import NotFound, Refused
from tandem.domain.graph import PlanNode
from tandem.domain.ids import GateId, NodeId
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.reset import reset
from tandem.domain.run import Gate, GatePurpose, GateStatus, NodeRun
from tandem.domain.stopping import cancel_run

E, N, S = RunEvent, NodeState, RunState

GATE_EXPIRES_AFTER_MS: Final = 604_800_000


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


def open_approval(draft: Draft, plan_node: PlanNode) -> None:
    node, gate = draft.node(plan_node.node_no), plan_node.node.effective_gate
    if gate is None:
        raise AssertionError(f"node {plan_node.node_id} is no approval")
    expiry = gate.expiry_policy
    # "Never unbounded" (run-lifecycle 6.4): a missing or zero span is the default one.
    expires_after_ms = (expiry.expires_after_ms if expiry else None) or GATE_EXPIRES_AFTER_MS
    asked = msgspec.structs.replace(
        node, state=N.GATED, gates=node.gates + 1, started_at_ms=draft.now_ms
    )
    draft.move(plan_node, E.GATE_OPENED, asked)
    _add_gate(
        draft,
        plan_node,
        instance=asked.gates,
        purpose=GatePurpose.APPROVAL,
        title=plan_node.node.objective or plan_node.node_id,
        instructions=gate.instructions or "",
        decisions=gate.decisions,
        expires_after_ms=expires_after_ms,
        on_expiry=str((expiry.on_expiry if expiry else None) or "cancel"),
    )


def ask_for_outcome(draft: Draft, plan_node: PlanNode, node: NodeRun, reason: str) -> None:
    asked = msgspec.structs.replace(node, state=N.GATED, gates=node.gates + 1)
    draft.move(plan_node, E.NODE_OUTCOME_UNKNOWN, asked, attempt=node.attempts, reason=reason)
    _add_gate(
        draft,
        plan_node,
        instance=asked.gates,
        purpose=GatePurpose.OUTCOME_UNKNOWN,
        title=f"Was node `{plan_node.node_id}` done?",
        instructions=(
            f"Attempt {node.attempts} has effects outside and was interrupted ({reason}). "
            "Find out whether it took place: `done` counts it as completed, `retry` runs it again."
        ),
        decisions=("done", "retry", "cancel"),
        expires_after_ms=None,
        on_expiry="remind",
    )


def _add_gate(
    draft: Draft,
    plan_node: PlanNode,
    *,
    instance: int,
    purpose: GatePurpose,
    title: str,
    instructions: str,
    decisions: tuple[str, ...],
    expires_after_ms: int | None,
    on_expiry: str,
) -> None:
    gate_id = GateId(f"automation_v2:{draft.run.run_id}:{plan_node.node_id}:{instance}")
    draft.gates[gate_id] = Gate(
        gate_id=gate_id,
        node_no=plan_node.node_no,
        node_id=plan_node.node_id,
        instance=instance,
        purpose=purpose,
        title=title,
        instructions=instructions,
        decisions=decisions,
        requested_at_ms=draft.now_ms,
        expires_at_ms=None if expires_after_ms is None else draft.now_ms + expires_after_ms,
        on_expiry=on_expiry,
    )


def decide(draft: Draft, command: DecideGate) -> None:
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
            cancel_run(
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
            gone = Invalidated(node_no=gate.node_no, validity=Validity.SUPERSEDED)
            draft.invalidated.append(gone)
        case "done":
            complete(draft, plan_node, output=command.output or b"null", reason=command.reason)
        case _:
            output = gate_output(
                draft, gate, decision, reason=command.reason, decided_by=command.decided_by
            )
            complete(draft, plan_node, output=output)


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


def expire(draft: Draft, gate: Gate) -> None:
    if gate.on_expiry not in ("cancel", "resume"):
        return
    decision = "expired" if gate.on_expiry == "cancel" else "timeout_resume"
    draft.gates[gate.gate_id] = msgspec.structs.replace(
        gate, status=GateStatus.EXPIRED, decision=decision, decided_at_ms=draft.now_ms
    )
    draft.happen(E.GATE_EXPIRED, node_id=gate.node_id, metadata={"gate_id": gate.gate_id})
    if gate.on_expiry == "resume":
        complete(draft, draft.plan.nodes[gate.node_no], output=gate_output(draft, gate, decision))
        return
    cancel_run(draft, E.RUN_CANCELLED, reason=f"gate `{gate.node_id}` expired undecided")


def gate_output(
    draft: Draft, gate: Gate, decision: str, *, reason: str = "", decided_by: str = ""
) -> bytes:
    """Return the output that a decided approval gives its node (run-lifecycle 6.3)."""
    return msgspec.json.encode(
        {
            "contract_kind": "approval_gate",
            "decision": decision,
            "reason": reason,
            "decided_by": decided_by,
            "decided_at_ms": draft.now_ms,
        }
    )
