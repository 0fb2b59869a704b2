"""What a person thinks of the output of a node (T64). It is kept and moves nothing."""

from collections.abc import Mapping
from typing import Final

import msgspec

from tandem.domain.command import Dispose
from tandem.domain.draft import Draft
from tandem.domain.errors import InvalidRequest, NotFound, NothingToDo
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import Handling
from tandem.domain.tasks import find_node

UNMARKED: Final = "unmarked"
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    UNMARKED: ("", "none", "clear"),
    "accepted": ("accept", "approve", "approved", "ok"),
    "rejected": ("reject", "deny", "denied", "fail"),
    "re_ran_strict": ("rerun_strict", "rerun-strict", "rerun", "re_ran"),
}
DISPOSITIONS: Final = tuple(_WORDS)
DISPOSITION_ALIASES: Final = {alias: word for word, others in _WORDS.items() for alias in others}


def normal_disposition(text: str) -> str:
    """Return the engine's word for a disposition.

    Raises:
        InvalidRequest: it is none.
    """
    word = text.strip().lower()
    word = DISPOSITION_ALIASES.get(word, word)
    if word not in _WORDS:
        raise InvalidRequest(
            f"`{text}` is no disposition; there are {', '.join(DISPOSITIONS)}",
            code="AUTOMATION_V2_TASK_DISPOSITION_INVALID",
        )
    return word


def dispose(draft: Draft, command: Dispose) -> None:
    """Keep what a person thinks of an output; in any state of the run."""
    word = normal_disposition(command.disposition)
    plan_node = find_node(draft, command.node_id)
    node = draft.node(plan_node.node_no)
    if node.output is None and node.output_ref is None:
        raise NotFound(
            f"node `{plan_node.node_id}` of run {draft.run.run_id} has no output to judge",
            code="AUTOMATION_V2_TASK_NODE_OUTPUT_NOT_FOUND",
        )
    handling = node.handling or Handling()
    before = handling.disposition or UNMARKED
    if before == word:
        raise NothingToDo(f"node `{plan_node.node_id}` is {word} already", code="unchanged")
    kept = msgspec.structs.replace(handling, disposition="" if word == UNMARKED else word)
    draft.nodes[plan_node.node_no] = msgspec.structs.replace(
        node, handling=None if kept == Handling() else kept
    )
    draft.happen(
        RunEvent.NODE_DISPOSITION_SET,
        node_id=plan_node.node_id,
        reason=command.reason,
        metadata={"before": before, "disposition": word, "decided_by": command.decided_by},
    )
