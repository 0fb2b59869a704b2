"""The end of a run by a decision: a person's, or that of a gate which nobody decided."""

import msgspec

from tandem.domain.completion import end_attempt
from tandem.domain.draft import Draft
from tandem.domain.ids import NodeId
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import NodeState, RunEvent, StopKind
from tandem.domain.run import AttemptEnd

E, N = RunEvent, NodeState
_NO_METADATA: JsonObject = {}


def cancel_run(
    draft: Draft,
    event: RunEvent,
    *,
    reason: str,
    node_id: NodeId | None = None,
    metadata: JsonObject = _NO_METADATA,
) -> None:
    """End a run for good; its processes may still live on the engine that drove it."""
    run = draft.run
    kind = StopKind.OPERATOR_STOPPED if event is E.RUN_STOPPED else StopKind.CANCELLED
    if draft.in_state(N.RUNNING):
        run.cleanup = run.engine_id
    for number in sorted(draft.in_state(N.RUNNING)):
        _cut_off(draft, number, reason=reason)
    draft.withdraw()
    # A blocked run had ended before; this is another end (W-39).
    run.finished_at_ms = None
    draft.happen(event, node_id=node_id, reason=reason, stop_kind=kind, metadata=metadata)
    run.stop_kind = kind
    run.stop_reason = reason
    run.detail = reason
    run.owner = None


def _cut_off(draft: Draft, number: int, *, reason: str) -> None:
    """End the attempt of a node that runs; it is not the node's fault, so it is not charged.

    What it did outside is not known: when the run is taken up again, a person is asked, and the
    answer to try again is what spares the attempt.
    """
    node, plan_node = draft.node(number), draft.plan.nodes[number]
    end_attempt(draft, node, AttemptEnd.STOPPED, message=reason)
    if plan_node.node.effective_effects == "external":
        event, left = E.NODE_OUTCOME_UNKNOWN, node
    else:
        event = E.NODE_INTERRUPTED
        left = msgspec.structs.replace(node, attempts_used=max(node.attempts_used - 1, 0))
    draft.move(plan_node, event, left, attempt=node.attempts, reason=reason)
