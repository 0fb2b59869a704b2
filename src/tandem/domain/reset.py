"""Making nodes pending again. This is the one place where a node loses its output."""

from collections.abc import Iterable

from tandem.domain.artifact import Invalidated, Validity
from tandem.domain.draft import Draft
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.partial_failure import held_back
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
    free_held(draft, reason=reason)


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


def free_held(draft: Draft, *, reason: str) -> None:
    """Make the nodes pending again that were blocked only by others which are not halted any more.

    Also those that do not come after such a node: one may have paused all.
    """
    halted = [n for n in sorted(draft.in_state(N.BLOCKED)) if draft.node(n).failure is None]
    held = held_back(draft) if halted else ()
    for number in halted:
        if number not in held:
            reset_one(draft, number, reason=reason)


def has_run(node: NodeRun) -> bool:
    """Say whether a node was tried, here or in the run from which this one took its output over."""
    return bool(node.attempts) or (node.state is N.COMPLETED and node.started_at_ms is not None)


def declared_files(view: RunView, numbers: Iterable[int]) -> list[str]:
    """Return the files that the contracts of those of these nodes name that have run."""
    contracts = [view.plan.nodes[n].node.output_contract for n in numbers if has_run(view.node(n))]
    return sorted({path for contract in contracts if contract for path in contract.required_files})
