"""Making nodes pending again. This is the one place where a node loses its output."""

from collections.abc import Iterable

from tandem.domain.artifact import Invalidated, Validity
from tandem.domain.draft import Draft
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.run import Handling, NodeRun
from tandem.domain.view import RunView

E, N = RunEvent, NodeState


def reset(
    draft: Draft,
    roots: Iterable[int],
    *,
    reason: str,
    repair: tuple[str, ...] = (),
    gone: Validity = Validity.REJECTED,
) -> None:
    """Make these nodes and everything after them pending again, as if they had never run.

    Attempt numbers go on; the attempts that the retry policy charges start again at zero, so that
    a node whose attempts were used up gets new ones. `repair` is what their next attempts are told.

    What the nodes left does not count any more (W-10). `gone` is what becomes of that of the
    roots: rejected, as somebody sent them back or their attempts failed. What came after them was
    only made from it and is superseded.
    """
    roots = set(roots)
    numbers = draft.plan.with_descendants(roots)
    draft.withdraw(numbers)
    for number in numbers:
        if draft.node(number).state is N.PENDING and number not in draft.view.nodes:
            continue
        told = () if draft.plan.nodes[number].is_parked else repair
        left = gone if number in roots else Validity.SUPERSEDED
        reset_one(draft, number, reason=reason, repair=told, gone=left)


def reset_one(
    draft: Draft,
    number: int,
    *,
    reason: str,
    repair: tuple[str, ...] = (),
    gone: Validity = Validity.SUPERSEDED,
) -> None:
    """Make one node pending again.

    `repair` is what its next attempt must mend, `gone` what becomes of what it has left so far.
    """
    node = draft.node(number)
    fresh = NodeRun(
        node_no=number,
        attempts=node.attempts,
        gates=node.gates,
        repair=repair,
        handling=_dispatches(node),
    )
    draft.move(draft.plan.nodes[number], E.NODE_RESET, fresh, reason=reason)
    draft.invalidated.append(Invalidated(node_no=number, validity=gone))


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
