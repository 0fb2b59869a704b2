"""An automation that is kept in the store: its current version, and what happened to it."""

from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.automation import AutomationStatus
from tandem.domain.ids import AutomationId, ChangeId, DefinitionDigest, TenantId


class AutomationEvent(StrEnum):
    """Everything that can happen to a stored automation; each is recorded: who, when, why."""

    CREATED = "automation_created"
    UPDATED = "automation_updated"
    PAUSED = "automation_paused"
    RESUMED = "automation_resumed"
    DELETED = "automation_deleted"
    RESTORED = "automation_restored"
    """A deleted one was saved again; its numbers of versions go on."""


MEANINGS: Final = {
    AutomationEvent.CREATED: "It was saved for the first time.",
    AutomationEvent.UPDATED: "A new version, or another status, was saved.",
    AutomationEvent.PAUSED: "Its running runs are paused, its queued runs are held.",
    AutomationEvent.RESUMED: "Its held runs may be claimed again.",
    AutomationEvent.DELETED: "It is gone from the lists; its runs and versions stay.",
    AutomationEvent.RESTORED: "A deleted automation was saved again.",
}


class StoredAutomation(msgspec.Struct, frozen=True, kw_only=True):
    """The row of an automation. `version` counts from 1 and never goes back.

    `status` is that of the row, not the one that the document was written with. The definition of
    each version stays in the store under its digest.
    """

    automation_no: int = 0
    tenant: TenantId
    automation_id: AutomationId
    name: str
    status: AutomationStatus
    version: int
    definition_digest: DefinitionDigest
    creator_id: str
    created_at_ms: int
    updated_at_ms: int
    pause_reason: str = ""
    paused_by: str = ""
    paused_at_ms: int | None = None
    deleted_at_ms: int | None = None
    event_seq: int = 0
    last_change_id: ChangeId
    schedule: str = ""
    """The schedule of the current version, canonical JSON."""
    is_watching: bool = False
    """The current version has watch conditions."""
    next_fire_at_ms: int | None = None
    last_fired_at_ms: int | None = None
    fired_until_ms: int | None = None
    """The watermark: what fell due up to it is decided. None until the schedule was looked at."""
    deferred_at_ms: int | None = None
    """Since when a firing that is due is put off."""
    deferred_by: int | None = None
    """The number of the run that has to end first."""

    @property
    def is_deleted(self) -> bool:
        """Whether it is gone from the lists."""
        return self.deleted_at_ms is not None


class AutomationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The durable record of one thing that happened to an automation, numbered within it."""

    seq: int
    event: AutomationEvent
    recorded_at_ms: int
    change_id: ChangeId
    actor: str
    reason: str
    version: int
    definition_digest: DefinitionDigest


class AutomationChange(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an automation: its row after it, and the record of what happened.

    Without a record nothing changed and nothing is to be written. `releases_runs` says that the
    queued runs which its pause holds may be claimed again; `pauses_runs` that those which run are
    to be paused.
    """

    row: StoredAutomation
    record: AutomationRecord | None = None
    releases_runs: bool = False
    pauses_runs: bool = False
