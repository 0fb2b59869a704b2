"""Making nodes pending again."""

from collections.abc import Iterable

from tandem.domain.artifact import Invalidated, Validity
from tandem.domain.draft import Draft
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.run import NodeRun

E, N = RunEvent, NodeState


def reset(draft: Draft, roots: Iterable[int], *, reason: str) -> None:
    """Make these nodes and everything after them pending again, as if they had never run.

    Attempt numbers go on; the attempts that the retry policy charges start again at zero. What the
    nodes left does not count any more: that of `roots` is rejected, the rest superseded.
    """
    roots = set(roots)
    numbers = draft.plan.with_descendants(roots)
    draft.withdraw(numbers)
    for number in numbers:
        node = draft.node(number)
        if node.state is N.PENDING and number not in draft.view.nodes:
            continue
        fresh = NodeRun(
            node_no=number,
            attempts=node.attempts,
            gates=node.gates,
            interruptions=0,
        )
        draft.move(draft.plan.nodes[number], E.NODE_RESET, fresh, reason=reason)
        # What was sent back is never used again; what came after it was made from it (W-10).
        gone = Validity.REJECTED if number in roots else Validity.SUPERSEDED
        draft.invalidated.append(Invalidated(node_no=number, validity=gone))
