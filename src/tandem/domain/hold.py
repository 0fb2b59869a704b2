"""Holding a queued run: it is not claimed until the key that blocks it is released.

The run has no due moment meanwhile, which takes it out of the index of claimable runs: however
many are held, they hide nobody. Releasing the key puts them all back.
"""

from typing import Final

import msgspec

from tandem.domain.draft import Draft
from tandem.domain.ids import AutomationId
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import QueueReason

_AUTOMATION: Final = "automation:"
AUTOMATION_KEYS_END: Final = "automation;"
"""Comes after every key of an automation and before any other key."""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Why a due run may not be claimed: what kind of reason, which key, who set it and when."""

    reason: QueueReason
    resource_key: str
    since_ms: int
    holder: str = ""
    words: str = ""


def automation_key(automation_id: AutomationId) -> str:
    """Return the key that holds the queued runs of a paused automation."""
    return f"{_AUTOMATION}{automation_id}"


def is_automation_key(key: str) -> bool:
    """Say whether this key is that of a paused automation."""
    return key.startswith(_AUTOMATION)


def hold(draft: Draft, why: Hold) -> None:
    """Put a queued run aside."""
    run = draft.run
    run.due_at_ms = None
    run.queue_reason = why.reason
    run.resource_key = why.resource_key
    run.rate_limited_provider = ""
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
