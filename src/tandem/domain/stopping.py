"""The end of a run by a decision: a person's, or that of a gate which nobody decided."""

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
        node = draft.node(number)
        end_attempt(draft, node, AttemptEnd.STOPPED, message=reason)
        draft.move(
            draft.plan.nodes[number], E.NODE_INTERRUPTED, node, attempt=node.attempts, reason=reason
        )
    # A blocked run that is cancelled ends a second time, and now.
    run.finished_at_ms = None
    draft.withdraw()
    draft.happen(event, node_id=node_id, reason=reason, stop_kind=kind, metadata=metadata)
    run.stop_kind = kind
    run.stop_reason = reason
    run.detail = reason
    run.owner = None
