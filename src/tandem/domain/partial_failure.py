"""What a node that is blocked or failed for good means for the others (run-lifecycle 4.10, T38).

`metadata.partial_failure_mode` of the node says it:

- `pause_downstream_only` (the default): a blocked node blocks what comes after it, everything else
  goes on; a failed node lets what runs land, and nothing new starts.
- `continue_independent`: what comes after the node is blocked, and everything else goes on in both
  cases. The run still ends as failed or blocked when nothing is left to do.
- `pause_all`: nothing new starts in both cases; what is pending is blocked.
"""

from collections.abc import Sequence
from enum import StrEnum

from tandem.domain.draft import Draft
from tandem.domain.free_json import object_at, text_of
from tandem.domain.graph import PlanNode
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.node import Node
from tandem.domain.run import NodeRun

E, N = RunEvent, NodeState


class PartialFailure(StrEnum):
    """What goes on when a node is blocked or failed for good."""

    PAUSE_DOWNSTREAM_ONLY = "pause_downstream_only"
    CONTINUE_INDEPENDENT = "continue_independent"
    PAUSE_ALL = "pause_all"


_BY_LETTERS = {mode.value.replace("_", ""): mode for mode in PartialFailure}


def mode_of(node: Node) -> PartialFailure:
    """Return the mode of a node; hyphens, spaces and case do not matter."""
    for place in ((), ("builder",), ("runtime",)):
        said = text_of(object_at(node.metadata, *place).get("partial_failure_mode"))
        letters = "".join(letter for letter in said.lower() if letter.isalpha())
        if letters in _BY_LETTERS:
            return _BY_LETTERS[letters]
    return PartialFailure.PAUSE_DOWNSTREAM_ONLY


def stops_starts(draft: Draft) -> bool:
    """Say whether a node failed so that nothing new of the run may start.

    One that was passed over, when the run was taken up for another one, stops nothing any more.
    """
    failed = draft.in_state(N.FAILED)
    return bool(failed) and any(
        mode_of(draft.plan.nodes[n].node) is not PartialFailure.CONTINUE_INDEPENDENT
        and not is_passed_over(draft.node(n))
        for n in failed
    )


def is_passed_over(node: NodeRun) -> bool:
    """Say whether a person took the run up for another node while this one had failed."""
    return node.handling is not None and node.handling.passed_over


def spread(draft: Draft, plan_node: PlanNode, event: RunEvent) -> None:
    """Block what the end of this node blocks; `event` is how it ended."""
    mode = mode_of(plan_node.node)
    if mode is PartialFailure.PAUSE_ALL:
        everything = range(len(draft.plan))
        _block(draft, everything, f"node `{plan_node.node_id}` pauses all when it is stopped")
    elif event is E.NODE_BLOCKED or mode is PartialFailure.CONTINUE_INDEPENDENT:
        after = _waiting_for(draft, plan_node.node_no)
        _block(draft, after, f"upstream node `{plan_node.node_id}` is blocked")


def held_back(draft: Draft) -> set[int]:
    """Return the nodes that a halted one keeps from starting, as this draft leaves them."""
    held: set[int] = set()
    for number in draft.in_state(N.BLOCKED, N.FAILED):
        node, mode = draft.node(number), mode_of(draft.plan.nodes[number].node)
        if node.failure is None:
            continue  # it is itself only held back
        if mode is PartialFailure.PAUSE_ALL:
            return set(range(len(draft.plan)))
        if node.state is N.BLOCKED or mode is PartialFailure.CONTINUE_INDEPENDENT:
            held.update(_waiting_for(draft, number))
    return held


def _waiting_for(draft: Draft, number: int) -> list[int]:
    """Return what comes after a node and needs it.

    What comes after a node that is completed, as by hand, does not need what was before that.
    """
    found: dict[int, None] = {}
    left = [number]
    while left:
        for after in draft.plan.nodes[left.pop()].successors:
            if after not in found and draft.node(after).state is not N.COMPLETED:
                found[after] = None
                left.append(after)
    return sorted(found)


def _block(draft: Draft, numbers: Sequence[int], reason: str) -> None:
    for number in numbers:
        node = draft.node(number)
        if node.state in (N.PENDING, N.BACKOFF):
            draft.move(draft.plan.nodes[number], E.NODE_BLOCKED, node, reason=reason)
