"""Making nodes pending again."""

from collections.abc import Iterable

from tandem.domain.draft import Draft
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.run import NodeRun

E, N = RunEvent, NodeState


def reset(draft: Draft, roots: Iterable[int], *, reason: str, repair: tuple[str, ...] = ()) -> None:
    """Make these nodes and everything after them pending again, as if they had never run.

    Attempt numbers go on; the attempts that the retry policy charges start again at zero. `repair`
    is what the next attempts of these nodes are told.
    """
    numbers = draft.plan.with_descendants(roots)
    draft.withdraw(numbers)
    for number in numbers:
        node, plan_node = draft.node(number), draft.plan.nodes[number]
        if node.state is N.PENDING and number not in draft.view.nodes:
            continue
        fresh = NodeRun(
            node_no=number,
            attempts=node.attempts,
            gates=node.gates,
            interruptions=0,
            repair=() if plan_node.is_parked else repair,
        )
        draft.move(plan_node, E.NODE_RESET, fresh, reason=reason)
