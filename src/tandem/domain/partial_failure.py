"""What a node that is blocked or failed for good means for the others (run-lifecycle 4.10, T38).

`metadata.partial_failure_mode` of the node says it:

- `pause_downstream_only` (the default): a blocked node blocks what comes after it, everything else
  goes on; a failed node lets what runs land, and nothing new starts.
- `continue_independent`: what comes after the node is blocked, and everything else goes on in both
  cases. The run still ends as failed or blocked when nothing is left to do.
- `pause_all`: nothing new starts in both cases; what is pending is blocked.
"""

from enum import StrEnum

from tandem.domain.draft import Draft
from tandem.domain.free_json import object_at, text_of
from tandem.domain.graph import PlanNode
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.node import Node

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
    """Say whether a node failed so that nothing new of the run may start."""
    failed = draft.in_state(N.FAILED)
    return bool(failed) and any(
        mode_of(draft.plan.nodes[n].node) is not PartialFailure.CONTINUE_INDEPENDENT for n in failed
    )


def spread(draft: Draft, plan_node: PlanNode, event: RunEvent) -> None:
    """Block what the end of this node blocks; `event` is how it ended."""
    mode = mode_of(plan_node.node)
    if mode is PartialFailure.PAUSE_ALL:
        everything = range(len(draft.plan))
        _block(draft, everything, f"node `{plan_node.node_id}` pauses all when it is stopped")
    elif event is E.NODE_BLOCKED or mode is PartialFailure.CONTINUE_INDEPENDENT:
        after = draft.plan.with_descendants([plan_node.node_no])
        _block(draft, after, f"upstream node `{plan_node.node_id}` is blocked")


def _block(draft: Draft, numbers: range | tuple[int, ...], reason: str) -> None:
    for number in numbers:
        node = draft.node(number)
        if node.state in (N.PENDING, N.BACKOFF):
            draft.move(draft.plan.nodes[number], E.NODE_BLOCKED, node, reason=reason)
