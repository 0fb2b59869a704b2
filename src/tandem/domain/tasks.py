"""What people ask of one node of a run that rests: run again, or go on where it was blocked."""

from tandem.domain.command import ContinueNode, RetryNode
from tandem.domain.draft import Draft
from tandem.domain.errors import InvalidRequest, NotFound
from tandem.domain.graph import PlanNode
from tandem.domain.ids import NodeId
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.reset import free_held, reset_one
from tandem.domain.reviving import refuse_unless_resting, revive

E, N = RunEvent, NodeState

NAMES_SHOWN_MAX = 20


def retry(draft: Draft, command: RetryNode) -> None:
    """Let a node and everything after it run again, with new attempts (T62, W-30)."""
    plan_node = find_node(draft, command.node_id)
    verb, event = (
        ("requeue", E.RUN_TASK_REQUEUED) if command.requeue else ("retry", E.RUN_TASK_RETRIED)
    )
    refuse_unless_resting(draft, f"{verb} a node of", code="AUTOMATION_V2_RUN_TASK_NOT_MUTABLE")
    done = "requeued" if command.requeue else "retried"
    reason = command.reason or f"task `{plan_node.node_id}` {done} by operator"
    metadata = {"node_id": plan_node.node_id}
    revive(draft, event, {plan_node.node_no}, reason=reason, metadata=metadata, passes_over=True)


def continue_blocked(draft: Draft, command: ContinueNode) -> None:
    """Let one blocked node try again, and nothing that was not blocked by it (T63).

    Its next attempt is told what the last one has to mend.
    """
    plan_node = find_node(draft, command.node_id)
    refuse_unless_resting(
        draft, "continue a node of", code="AUTOMATION_V2_RUN_TASK_NOT_CONTINUEABLE"
    )
    number = plan_node.node_no
    node = draft.node(number)
    if node.state is not N.BLOCKED or node.failure is None:
        raise draft.refusal(
            "continue a node of",
            f"node `{plan_node.node_id}` is {node.state.value}"
            + (" by one before it" if node.state is N.BLOCKED else "")
            + ", and only a node that blocked itself is continued; retry it instead",
            code="AUTOMATION_V2_TASK_NOT_BLOCKED",
        )
    metadata = {"node_id": plan_node.node_id, "mode": "minimal_reset"}
    revive(
        draft,
        E.RUN_TASK_CONTINUED,
        (),
        reason=command.reason,
        metadata=metadata,
        passes_over=True,
    )
    reset_one(draft, number, reason=command.reason, repair=node.repair)
    free_held(draft, reason=command.reason)


def find_node(
    draft: Draft,
    node_id: NodeId,
    *,
    required: str = "AUTOMATION_V2_TASK_NODE_REQUIRED",
    missing: str = "AUTOMATION_V2_TASK_NODE_NOT_FOUND",
) -> PlanNode:
    """Return the node that a command names.

    Raises:
        InvalidRequest: it names none.
        NotFound: the run has no such node.
    """
    name = NodeId(node_id.strip())
    if not name:
        raise InvalidRequest("name a node of the run", code=required)
    plan_node = draft.plan.node(name)
    if plan_node is None:
        names = ", ".join(node.node_id for node in draft.plan.nodes[:NAMES_SHOWN_MAX])
        text = f"run {draft.run.run_id} has no node `{name}`; it has {names}"
        raise NotFound(text, code=missing)
    return plan_node
