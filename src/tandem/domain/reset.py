"""Making nodes pending again. This is the one place where a node loses its output."""

from collections.abc import Iterable

from tandem.domain.draft import Draft
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.run import Handling, NodeRun
from tandem.domain.view import RunView

E, N = RunEvent, NodeState


def reset(draft: Draft, roots: Iterable[int], *, reason: str, repair: tuple[str, ...] = ()) -> None:
    """Make these nodes and everything after them pending again, as if they had never run.

    Attempt numbers go on; the attempts that the retry policy charges start again at zero, so that
    a node whose attempts were used up gets new ones. `repair` is what their next attempts are told.
    """
    numbers = draft.plan.with_descendants(roots)
    draft.withdraw(numbers)
    for number in numbers:
        if draft.node(number).state is N.PENDING and number not in draft.view.nodes:
            continue
        told = () if draft.plan.nodes[number].is_parked else repair
        reset_one(draft, number, reason=reason, repair=told)


def reset_one(draft: Draft, number: int, *, reason: str, repair: tuple[str, ...] = ()) -> None:
    """Make one node pending again; `repair` is what its next attempt must mend."""
    node = draft.node(number)
    fresh = NodeRun(
        node_no=number,
        attempts=node.attempts,
        gates=node.gates,
        repair=repair,
        handling=_dispatches(node),
    )
    draft.move(draft.plan.nodes[number], E.NODE_RESET, fresh, reason=reason)


def _dispatches(node: NodeRun) -> Handling | None:
    """Return what a reset keeps: how often the node was sent out again."""
    handling = node.handling
    if handling is None or not handling.dispatches:
        return None
    return Handling(dispatches=handling.dispatches, dispatched_at_ms=handling.dispatched_at_ms)


def free_descendants(draft: Draft, number: int, *, reason: str) -> None:
    """Make the nodes pending again that are blocked only because this one was."""
    halted = draft.in_state(N.BLOCKED)
    roots = {n for n in halted if draft.node(n).failure is not None} - {number}
    held = set(draft.plan.with_descendants(roots))
    for after in draft.plan.with_descendants([number]):
        if after != number and after in halted and after not in held:
            reset_one(draft, after, reason=reason)


def declared_files(view: RunView, numbers: Iterable[int]) -> list[str]:
    """Return the files that the contracts of those of these nodes name that have run."""
    contracts = [view.plan.nodes[n].node.output_contract for n in numbers if view.node(n).attempts]
    return sorted({path for contract in contracts if contract for path in contract.required_files})
