"""Holding a queued run: it is not claimed until the key that blocks it is released.

The run has no due moment meanwhile, which takes it out of the index of claimable runs: however
many are held, they hide nobody. Releasing the key puts them all back.
"""

import msgspec

from tandem.domain.draft import Draft
from tandem.domain.ids import AutomationId
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import QueueReason


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Why a due run may not be claimed: what kind of reason, which key, who set it and when."""

    reason: QueueReason
    resource_key: str
    since_ms: int
    holder: str = ""
    words: str = ""


def automation_key(automation_id: AutomationId) -> str:
    """Return the key that holds the queued runs of a paused automation."""
    return f"automation:{automation_id}"


def hold(draft: Draft, why: Hold) -> None:
    """Put a queued run aside."""
    run = draft.run
    run.due_at_ms = None
    run.queue_reason = why.reason
    run.resource_key = why.resource_key
    draft.happen(
        RunEvent.RUN_HELD,
        reason=why.words,
        metadata={
            "queue_reason": why.reason.value,
            "resource_key": why.resource_key,
            "holder": why.holder,
            "since_ms": why.since_ms,
        },
    )
