"""Deciding a gate: which asking is meant, whether the decision counts, and what it does."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tandem.domain.artifact import Invalidated, Validity
from tandem.domain.asking import is_consequential
from tandem.domain.change import Denial
from tandem.domain.command import DecideGate
from tandem.domain.completion import complete
from tandem.domain.deadline import is_late
from tandem.domain.draft import Draft
from tandem.domain.errors import NotFound, Refused
from tandem.domain.lifecycle import TERMINAL, NodeState, RunEvent, RunState
from tandem.domain.rework import rework
from tandem.domain.run import Gate, GateStatus, NodeRun
from tandem.domain.stopping import cancel_run

E, N, S = RunEvent, NodeState, RunState

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


def decide(draft: Draft, command: DecideGate) -> None:
    """Decide one asking of a gate; exactly one decision of several counts (run-lifecycle 6.2).

    Raises:
        NotFound: the run has no such node.
        Refused: nothing is open, the gate was decided already (`details.winningDecision`), it
            does not offer this decision, it is late, or this person may not approve it.
    """
    gate = _asked(draft, command)
    if draft.run.status in TERMINAL:
        raise Refused(
            f"cannot decide gate `{gate.node_id}`: run {draft.run.run_id} has ended and is "
            f"{draft.run.status.value}; recover it, then decide",
            code="AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL",
            details={"runID": draft.run.run_id, "currentStatus": draft.run.status.value},
        )
    decision = _allowed(gate, command.decision)
    if is_late(gate, now_ms=draft.now_ms):
        raise Refused(
            f"gate `{gate.node_id}` expired before it was decided; "
            f"what follows is `{gate.on_expiry}`",
            code="AUTOMATION_V2_GATE_EXPIRED",
            details={"expires_at_ms": gate.expires_at_ms, "on_expiry": gate.on_expiry},
        )
    _check_reviewer(draft, gate, decision, command.decided_by)
    denial = _guard(gate, command)
    if denial is not None:
        _deny(draft, gate, command, denial)
        return
    _settle(draft, gate, decision, command)
    _act(draft, gate, decision, command)


def _settle(draft: Draft, gate: Gate, decision: str, command: DecideGate) -> None:
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
            "transition_id": gate.transition_id,
        },
    )
    run = draft.run
    run.resume_reason = f"gate `{gate.node_id}` decision: {decision}"
    if run.status is S.QUEUED:
        run.due_at_ms = draft.now_ms


def _act(draft: Draft, gate: Gate, decision: str, command: DecideGate) -> None:
    plan_node = draft.plan.nodes[gate.node_no]
    match decision:
        case "cancel":
            cancel_run(
                draft, E.RUN_CANCELLED, reason=command.reason or f"gate `{gate.node_id}`: cancelled"
            )
        case "rework":
            rework(draft, gate, reason=command.reason, decided_by=command.decided_by)
        case "retry":
            node = draft.node(gate.node_no)
            again = NodeRun(
                node_no=gate.node_no,
                attempts=node.attempts,
                gates=node.gates,
                attempts_used=max(node.attempts_used - 1, 0),
                repair=node.repair,
                handling=node.handling,
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


# Which asking is meant


def newest_settled(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """Return those of the gates that are over, newest first, as a view has them for a decision."""
    over = [gate for gate in gates if gate.status is not GateStatus.OPEN]
    over.sort(key=lambda gate: (gate.decided_at_ms or 0, gate.requested_at_ms, gate.gate_id))
    return tuple(reversed(over))


def _asked(draft: Draft, command: DecideGate) -> Gate:
    """Return the open gate that the command means, or the one that it was wrongly aimed at."""
    gates = sorted(draft.open_gates(), key=lambda gate: (gate.requested_at_ms, gate.gate_id))
    if command.node_id is not None:
        if draft.plan.node(command.node_id) is None:
            raise NotFound(
                f"run {draft.run.run_id} has no node `{command.node_id}`",
                code="AUTOMATION_V2_GATE_NODE_NOT_FOUND",
            )
        gates = [gate for gate in gates if gate.node_id == command.node_id]
    exact = [gate for gate in gates if gate.gate_id == command.gate_id]
    over = [gate for gate in draft.view.settled_gates if gate.gate_id == command.gate_id]
    if over and not exact:
        # An asking that was over when its decision came; a newer one of the node is a guard's case.
        gates = [gate for gate in gates if gate.node_no == over[0].node_no]
    if exact or gates:
        return (exact or gates)[0]
    raise _nothing_open(draft, command)


def _nothing_open(draft: Draft, command: DecideGate) -> Refused:
    run = draft.run
    meant = command.gate_id or (f"node `{command.node_id}`" if command.node_id else "")
    winner = _winner(draft, command)
    opened = ", ".join(dict.fromkeys(gate.node_id for gate in draft.open_gates()))
    if winner is not None:
        by = f" by {winner['decided_by']}" if winner["decided_by"] else ""
        hint = f"gate `{winner['node_id']}` was decided already: {winner['decision']}{by}"
    elif opened:
        hint = f"open: {opened}"
    else:
        hint = "the run has not reached one"
    what = f"no open gate {meant}".strip()
    return Refused(
        f"cannot decide: run {run.run_id} ({run.status.value}) has {what}; {hint}",
        code="AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL",
        details={"runID": run.run_id, "currentStatus": run.status.value}
        | ({"winningDecision": winner} if winner is not None else {}),
    )


def _winner(draft: Draft, command: DecideGate) -> dict[str, Any] | None:
    """Return the decision that settled what the command means, the newest when it names none."""
    for gate in draft.view.settled_gates:
        if gate.status is GateStatus.WITHDRAWN:
            continue
        if command.gate_id not in (None, gate.gate_id):
            continue
        if command.node_id in (None, gate.node_id):
            return {
                "node_id": gate.node_id,
                "decision": gate.decision,
                "reason": gate.reason or None,
                "decided_at_ms": gate.decided_at_ms,
                "decided_by": gate.decided_by or None,
            }
    return None


def _guard(gate: Gate, command: DecideGate) -> Denial | None:
    """Return why the ids that came with the decision do not belong to this asking."""
    for name, given, wanted in (
        ("approval_request_id", command.gate_id, gate.gate_id),
        ("transition_id", command.transition_id, gate.transition_id),
    ):
        if given is not None and given != wanted:
            return Denial(
                code="AUTOMATION_V2_GATE_TRANSITION_GUARD_DENIED",
                message=(
                    f"the decision is meant for {given}, but gate `{gate.node_id}` asks as {wanted}"
                    "; look at the gate again and decide this asking"
                ),
                details={
                    "transitionGuard": {
                        "reason_code": f"{name}_mismatch",
                        "expected": wanted,
                        "given": given,
                    }
                },
            )
    return None


def _deny(draft: Draft, gate: Gate, command: DecideGate, denial: Denial) -> None:
    """Record a decision that was meant for another asking; it settles nothing."""
    draft.gates[gate.gate_id] = msgspec.structs.replace(gate, guard_denials=gate.guard_denials + 1)
    draft.happen(
        E.GATE_GUARD_DENIED,
        node_id=gate.node_id,
        reason=denial.message,
        metadata={
            "gate_id": gate.gate_id,
            "decision": "guard_denied",
            "wanted_decision": command.decision,
            "decided_by": command.decided_by,
            **denial.details["transitionGuard"],
        },
    )
    draft.denial = denial


# Whether it counts


def _allowed(gate: Gate, wanted: str) -> str:
    """Return the decision in the engine's words; the gate's own list is binding (W-26)."""
    word = wanted.strip().lower()
    offered = {name.strip().lower(): name for name in gate.decisions}
    canonical = {GATE_ALIASES.get(name, name) for name in offered}
    meant = GATE_ALIASES.get(word, word)
    if word in offered or meant in canonical:
        return meant
    raise Refused(
        f"gate `{gate.node_id}` does not offer `{wanted}`; it offers {', '.join(gate.decisions)}",
        code="AUTOMATION_V2_GATE_INVALID_DECISION",
        details={"decisions": list(gate.decisions)},
    )


def _check_reviewer(draft: Draft, gate: Gate, decision: str, decided_by: str) -> None:
    """Keep whoever started the run from approving what another has to; refusing is theirs."""
    has_consequences = gate.four_eyes or is_consequential(draft.plan.nodes[gate.node_no])
    if decision in ("cancel", "rework") or not has_consequences:
        return
    if not decided_by:
        raise Refused(
            f"gate `{gate.node_id}` has to be approved by a person with a name",
            code="AUTOMATION_V2_GATE_REVIEWER_AUTHORITY_REQUIRED",
        )
    if decided_by == gate.requested_by:
        raise Refused(
            f"{decided_by} started this run and may not approve its gate `{gate.node_id}`; "
            "somebody else has to",
            code="AUTOMATION_V2_GATE_SELF_APPROVAL_FORBIDDEN",
        )


def gate_output(
    draft: Draft, gate: Gate, decision: str, *, reason: str = "", decided_by: str = ""
) -> bytes:
    """Return the output that a settled approval gives its node (run-lifecycle 6.3).

    `decision`, `reason` and `decided_by` also stand at the top, where a reference reads best.
    """
    content = {
        "decision": decision,
        "reason": reason,
        "decided_at_ms": draft.now_ms,
        "decided_by": decided_by,
        "reviewed_artifact": gate.reviewed_artifact,
    }
    return msgspec.json.encode(
        {
            "contract_kind": "approval_gate",
            "status": "completed",
            "decision": decision,
            "reason": reason,
            "decided_by": decided_by,
            "decided_at_ms": draft.now_ms,
            "content": content,
        }
    )
