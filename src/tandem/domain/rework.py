"""Rework: a person sends what a gate looked at back, with the reason."""

from tandem.domain.completion import end_attempt
from tandem.domain.draft import Draft
from tandem.domain.ids import NodeId
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.reset import reset
from tandem.domain.run import AttemptEnd, Gate

E, N = RunEvent, NodeState


def rework(draft: Draft, gate: Gate, *, reason: str, decided_by: str) -> None:
    """Reset what the gate looked at and everything after it (run-lifecycle 6.3, T81).

    The next attempt of each of these nodes is told who asked for the rework and why. Bodies of
    them that run are stopped: their driver sees that their attempt no longer counts.
    """
    roots = roots_of(draft, gate)
    said = f"rework was asked for at gate `{gate.node_id}`"
    said += f" by {decided_by}" if decided_by else ""
    said += f": {reason}" if reason else ""
    for number in draft.plan.with_descendants(roots):
        _stop(draft, number, said)
    reset(draft, roots, reason=reason or "rework", repair=(said,))


def roots_of(draft: Draft, gate: Gate) -> set[int]:
    """Return the declared targets, else the nodes right before the gate, and the gate itself."""
    targets = {
        draft.plan.by_id[NodeId(name)] for name in gate.rework_targets if name in draft.plan.by_id
    }
    return (targets or set(draft.plan.nodes[gate.node_no].depends_on)) | {gate.node_no}


def _stop(draft: Draft, number: int, reason: str) -> None:
    node = draft.node(number)
    if node.state is not N.RUNNING:
        return
    # Whatever comes next, nobody takes the run up until the body is dead.
    draft.run.cleanup = draft.run.engine_id
    end_attempt(draft, node, AttemptEnd.STOPPED, message=reason)
    draft.move(
        draft.plan.nodes[number], E.NODE_INTERRUPTED, node, attempt=node.attempts, reason=reason
    )
