"""A review that does not approve: the work that it looked at is done again (T40).

The rollback is part of the change that records the rejection, under the claim of the engine that
drives the run: the run stays running and nobody else can claim it (W-05). Each round costs the
nodes that are done again one of their attempts, so that a review cannot reject for ever.
"""

from collections.abc import Iterator

import msgspec

from tandem.domain.artifact import Invalidated, Validity
from tandem.domain.completion import end_attempt
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.node import Effects
from tandem.domain.reset import free_held
from tandem.domain.run import AttemptEnd, NodeRun

E, N = RunEvent, NodeState


def roots_of(draft: Draft, review: PlanNode) -> list[int]:
    """Return the nodes that are done again when this review rejects; empty when none can be.

    They are the completed nodes right before it with attempts left that have nodes before
    themselves; only if no such node exists at all, those without. A body with outside effects that
    runs after one of them cannot be taken back, so nothing is.
    """
    plan = draft.plan
    inner = [n for n in review.depends_on if plan.nodes[n].depends_on]
    roots = [n for n in (inner or review.depends_on) if _is_resettable(draft, n)]
    after = plan.with_descendants(roots)
    is_fixed = any(
        draft.node(n).state is N.RUNNING
        and plan.nodes[n].node.effective_effects is Effects.EXTERNAL
        for n in after
    )
    return [] if is_fixed else roots


def _is_resettable(draft: Draft, number: int) -> bool:
    plan_node, node = draft.plan.nodes[number], draft.node(number)
    has_body = not plan_node.is_parked
    return has_body and node.state is N.COMPLETED and node.attempts_used < plan_node.max_attempts


def roll_back(draft: Draft, review: PlanNode, roots: list[int], *, reason: str) -> None:
    """Make the roots and everything after them pending again, the review itself included.

    The next attempts of the roots are told what the review said. Bodies that run after a root are
    stopped: what they were given does not count any more.
    """
    run, number = draft.run, draft.node(review.node_no).attempts
    names = [draft.plan.nodes[n].node_id for n in roots]
    draft.happen(
        E.NODE_APPROVAL_ROLLBACK,
        node_id=review.node_id,
        attempt=number,
        reason=reason,
        metadata={"roots": names},
    )
    said = f"review `{review.node_id}` did not approve: {reason}"
    after = draft.plan.with_descendants(roots)
    draft.withdraw(after)
    for plan_node, node in _to_reset(draft, after):
        if node.state is N.RUNNING:
            _stop(draft, plan_node, node, said)
        is_root = node.node_no in roots
        fresh = NodeRun(
            node_no=node.node_no,
            attempts=node.attempts,
            gates=node.gates,
            attempts_used=node.attempts_used if is_root else 0,
            repair=(said,) if is_root else (),
        )
        draft.move(plan_node, E.NODE_RESET, fresh, reason=said)
        gone = Validity.REJECTED if is_root else Validity.SUPERSEDED
        draft.invalidated.append(Invalidated(node_no=node.node_no, validity=gone))
    free_held(draft, reason=said)
    run.last_failure = None
    run.detail = f"review `{review.node_id}` did not approve; doing again: {', '.join(names)}"
    draft.moved = True


def _to_reset(draft: Draft, after: tuple[int, ...]) -> Iterator[tuple[PlanNode, NodeRun]]:
    for number in after:
        node = draft.node(number)
        if node.state is not N.PENDING or node.attempts or node.gates:
            yield draft.plan.nodes[number], node


def _stop(draft: Draft, plan_node: PlanNode, node: NodeRun, reason: str) -> None:
    # Should the run come to rest now, nobody takes it up until these bodies are dead.
    draft.run.cleanup = draft.run.engine_id
    if all(ended.node_no != node.node_no for ended in draft.attempts_ended):
        end_attempt(draft, node, AttemptEnd.STOPPED, message=reason)
    stopped = msgspec.structs.replace(node, state=N.PENDING)
    draft.move(plan_node, E.NODE_INTERRUPTED, stopped, attempt=node.attempts, reason=reason)
