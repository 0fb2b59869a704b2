"""What may be asked of a stored automation, and what it does to it; pure.

The store loads the row, decides and writes in one transaction, so nobody acts on a row that has
moved on. Pausing decides over the runs too: see run-lifecycle T51 and W-27.
"""

from typing import assert_never

import msgspec

from tandem.domain.automation import AutomationStatus
from tandem.domain.errors import NotFound, Refused
from tandem.domain.firing import reschedule
from tandem.domain.hold import Hold, automation_key
from tandem.domain.ids import AutomationId, ChangeId, DefinitionDigest, TenantId
from tandem.domain.run import QueueReason
from tandem.domain.stored_automation import (
    AutomationChange,
    AutomationEvent,
    AutomationRecord,
    StoredAutomation,
)

A, E = AutomationStatus, AutomationEvent


class Save(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make this definition the current version.

    `status` None keeps the status that there is. `expected_version` is the version that the
    author has seen: 0 for none, None for whatever there is. `actor` is who saves it.
    """

    definition_digest: DefinitionDigest
    name: str
    creator_id: str
    actor: str = ""
    status: AutomationStatus | None = None
    expected_version: int | None = None
    reason: str = ""
    schedule: str = ""
    """The schedule of the definition, canonical JSON."""
    is_watching: bool = False
    """The definition has watch conditions."""


class PauseAutomation(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Hold everything of an automation: what runs is paused, what is queued is not claimed."""

    by: str
    reason: str = "paused by operator"


class ResumeAutomation(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let the queued runs of a paused automation go on; runs that were paused stay so."""

    by: str
    reason: str = "resumed by operator"


class DeleteAutomation(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Take an automation out of the lists. Its runs stay, and go on."""

    by: str
    reason: str = "deleted by operator"


AutomationCommand = Save | PauseAutomation | ResumeAutomation | DeleteAutomation


def decide_automation(
    row: StoredAutomation | None,
    command: AutomationCommand,
    *,
    tenant: TenantId,
    automation_id: AutomationId,
    change_id: ChangeId,
    now_ms: int,
) -> AutomationChange:
    """Decide what `command` does to the automation; `row` is None when it was never saved.

    Raises:
        NotFound: there is no such automation, or it was deleted.
        Refused: its state does not allow it; nothing is to be written.
    """
    change = _decide(
        row,
        command,
        tenant=tenant,
        automation_id=automation_id,
        change_id=change_id,
        now_ms=now_ms,
    )
    return change if change.record is None else reschedule(row, change, now_ms=now_ms)


def _decide(
    row: StoredAutomation | None,
    command: AutomationCommand,
    *,
    tenant: TenantId,
    automation_id: AutomationId,
    change_id: ChangeId,
    now_ms: int,
) -> AutomationChange:
    if isinstance(command, Save):
        if row is None:
            new = StoredAutomation(
                tenant=tenant,
                automation_id=automation_id,
                name="",
                status=A.ACTIVE,
                version=0,
                definition_digest=DefinitionDigest(""),
                creator_id=command.creator_id,
                created_at_ms=now_ms,
                updated_at_ms=now_ms,
                last_change_id=change_id,
            )
            return _save(new, command, E.CREATED, change_id=change_id, now_ms=now_ms)
        event = E.RESTORED if row.is_deleted else E.UPDATED
        return _save(row, command, event, change_id=change_id, now_ms=now_ms)
    found = present(row, automation_id)
    match command:
        case PauseAutomation():
            return _pause(found, command, change_id=change_id, now_ms=now_ms)
        case ResumeAutomation():
            return _resume(found, command, change_id=change_id, now_ms=now_ms)
        case DeleteAutomation():
            after = msgspec.structs.replace(found, deleted_at_ms=now_ms)
            return _record(
                after, E.DELETED, command.by, command.reason, change_id, now_ms, releases=True
            )
        case _:
            assert_never(command)


def present(row: StoredAutomation | None, automation_id: AutomationId) -> StoredAutomation:
    """Return the row of an automation that is there.

    Raises:
        NotFound: it was never saved, or it was deleted.
    """
    if row is None or row.is_deleted:
        raise NotFound(
            f"there is no automation {automation_id}; `tandem automations list` shows the ones "
            "there are, `tandem automations apply FILE` saves one"
        )
    return row


def check_may_run(
    row: StoredAutomation | None,
    automation_id: AutomationId,
    *,
    is_dry: bool,
    runs_draft: bool = False,
) -> None:
    """Check that a run of a stored automation may be created now.

    A paused one may: the run is queued and held, with the reason in sight. A draft may when
    `runs_draft` says that whoever asks knows what they do.

    Raises:
        NotFound: it is not there.
        Refused: it is a draft, and this is no dry run.
    """
    if present(row, automation_id).status is A.DRAFT and not is_dry and not runs_draft:
        raise Refused(
            f"automation {automation_id} is a draft: it can only be run dry (`--dry-run`); save "
            "it with `status: active` to run it",
            code="automation_draft",
        )


def hold_of(row: StoredAutomation | None) -> Hold | None:
    """Return what keeps the queued runs of this automation from being claimed, if anything."""
    if row is None or row.is_deleted or row.status is not A.PAUSED:
        return None
    return Hold(
        reason=QueueReason.AUTOMATION_PAUSED,
        resource_key=automation_key(row.automation_id),
        holder=row.automation_id,
        since_ms=row.paused_at_ms or row.updated_at_ms,
        words=_paused_words(row),
    )


def _paused_words(row: StoredAutomation) -> str:
    by = f" by {row.paused_by}" if row.paused_by else ""
    return f"automation `{row.automation_id}` is paused{by}: {row.pause_reason}"


def _save(
    row: StoredAutomation,
    command: Save,
    event: AutomationEvent,
    *,
    change_id: ChangeId,
    now_ms: int,
) -> AutomationChange:
    current = 0 if row.is_deleted else row.version
    if command.expected_version not in (None, current):
        raise Refused(
            f"cannot save automation {row.automation_id}: its version is {current}, not "
            f"{command.expected_version}; look at it with `tandem automations show "
            f"{row.automation_id}` and try again",
            code="automation_version_conflict",
        )
    is_new = row.definition_digest != command.definition_digest
    status = _status_after(row, command)
    if event is E.UPDATED and not is_new and status is row.status:
        return AutomationChange(row=row)
    after = msgspec.structs.replace(
        row,
        name=command.name,
        status=status,
        version=row.version + is_new,
        definition_digest=command.definition_digest,
        schedule=command.schedule,
        is_watching=command.is_watching,
        deleted_at_ms=None,
    )
    if status is A.PAUSED and hold_of(row) is None:
        after = _paused(after, command.reason or "saved as paused", command.actor, now_ms)
    elif status is not A.PAUSED:
        after = msgspec.structs.replace(after, pause_reason="", paused_by="", paused_at_ms=None)
    change = _record(after, event, command.actor, command.reason, change_id, now_ms)
    pauses = hold_of(after) is not None and hold_of(row) is None
    return msgspec.structs.replace(change, pauses_runs=pauses)


def _status_after(row: StoredAutomation, command: Save) -> AutomationStatus:
    """Return the status after a save. A pause is lifted by `resume` alone, never by a save."""
    if hold_of(row) is not None:
        return A.PAUSED
    return command.status or (A.ACTIVE if row.is_deleted else row.status)


def _pause(
    row: StoredAutomation, command: PauseAutomation, *, change_id: ChangeId, now_ms: int
) -> AutomationChange:
    if row.status is A.PAUSED:
        raise Refused(
            f"cannot pause automation {row.automation_id}: it is paused already",
            code="automation_not_pausable",
        )
    after = _paused(row, command.reason, command.by, now_ms)
    change = _record(after, E.PAUSED, command.by, command.reason, change_id, now_ms)
    return msgspec.structs.replace(change, pauses_runs=True)


def _resume(
    row: StoredAutomation, command: ResumeAutomation, *, change_id: ChangeId, now_ms: int
) -> AutomationChange:
    if row.status is not A.PAUSED:
        raise Refused(
            f"cannot resume automation {row.automation_id}: it is {row.status.value}",
            code="automation_not_paused",
        )
    after = msgspec.structs.replace(
        row, status=A.ACTIVE, pause_reason="", paused_by="", paused_at_ms=None
    )
    return _record(after, E.RESUMED, command.by, command.reason, change_id, now_ms, releases=True)


def _paused(row: StoredAutomation, reason: str, by: str, now_ms: int) -> StoredAutomation:
    return msgspec.structs.replace(
        row, status=A.PAUSED, pause_reason=reason, paused_by=by, paused_at_ms=now_ms
    )


def _record(
    after: StoredAutomation,
    event: AutomationEvent,
    actor: str,
    reason: str,
    change_id: ChangeId,
    now_ms: int,
    *,
    releases: bool = False,
) -> AutomationChange:
    row = msgspec.structs.replace(
        after, updated_at_ms=now_ms, event_seq=after.event_seq + 1, last_change_id=change_id
    )
    record = AutomationRecord(
        seq=row.event_seq,
        event=event,
        recorded_at_ms=now_ms,
        change_id=change_id,
        actor=actor,
        reason=reason,
        version=row.version,
        definition_digest=row.definition_digest,
    )
    return AutomationChange(row=row, record=record, releases_runs=releases)
