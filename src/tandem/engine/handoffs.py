"""Handoffs: files by which automations start each other's runs (definitions 5.4).

All folders are below the workspace of the automation that watches them. A handoff is taken in the
store first, with its run; its file follows, and any engine moves it if this one does not get to it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from tandem.domain.artifact import FileStamp
from tandem.domain.automation import Automation, HandoffConfig
from tandem.domain.automation_keeping import present
from tandem.domain.creation import NewRun
from tandem.domain.errors import EngineError, InvalidRequest, NotFound, Refused, StoreUnavailable
from tandem.domain.handoff import (
    BYTES_MAX,
    LISTED_MAX,
    ConsumedHandoff,
    Handoff,
    HandoffFile,
    Taken,
    check_handoff,
    consumed,
    file_name,
    folders_of,
    is_same,
    name_beside,
    read_handoff,
    waiting_for,
    write_handoff,
)
from tandem.domain.ids import LOCAL_TENANT, AutomationId, ChangeId, TenantId
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.trigger import TriggerType
from tandem.domain.workspace_root import declared_workspace
from tandem.engine.definitions import Definitions
from tandem.engine.schedules import Prepare
from tandem.ports.clock import Clock
from tandem.ports.store import Store
from tandem.ports.workspace import WorkspaceFiles

WATCHED_MAX: Final = 100
"""So many automations are looked after in one sweep; the next one goes on behind them."""
REFUSED_REST_MS: Final = 60_000
"""A handoff of which no run can be created is tried again after so long."""
KNOWN_MAX: Final = 4_096


class HandoffListing(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the folders of an automation, oldest first (http-api 3.8)."""

    automation_id: AutomationId
    workspace_root: str
    handoff_config: HandoffConfig
    inbox: tuple[HandoffFile, ...]
    approved: tuple[HandoffFile, ...]
    archived: tuple[HandoffFile, ...]


class Handoffs:
    """The handoffs of the stored automations of a store."""

    def __init__(
        self,
        *,
        store: Store,
        files: WorkspaceFiles,
        clock: Clock,
        prepare: Prepare,
        new_change_id: Callable[[], ChangeId],
        created: Callable[[], None],
        complain: Callable[[str], None],
    ) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._prepare = prepare
        self._new_change_id = new_change_id
        self._created = created
        self._complain = complain
        self._definitions = Definitions(store)
        self._known: dict[tuple[str, str], tuple[FileStamp | None, HandoffFile]] = {}
        self._refused: dict[tuple[int, str], int] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._after_no = 0

    # People and bodies

    def deposit(self, handoff: Handoff, *, tenant: TenantId = LOCAL_TENANT) -> str:
        """Put a handoff before the automation that it is for; return the path of its file.

        It goes to the inbox, or straight to the approved ones when the target approves by itself.
        The same handoff again replaces its own file.

        Raises:
            NotFound: the target is not stored.
            InvalidRequest: a field is blank or out of bounds, or the target has no workspace.
            Refused: the folder leads out of the workspace, or the file cannot be written.
        """
        try:
            check_handoff(handoff)
        except ValueError as error:
            raise InvalidRequest(f"this is no handoff: {error}", code="handoff_invalid") from None
        workspace, config = self._place(AutomationId(handoff.target_automation_id), tenant)
        folder = config.approved_dir if config.auto_approve else config.inbox_dir
        path = self._place_for(workspace, folder, handoff)
        self._files.put_file(workspace, path, write_handoff(handoff))
        return path

    def approve(
        self, automation_id: AutomationId, handoff_id: str, *, tenant: TenantId = LOCAL_TENANT
    ) -> Handoff:
        """Move a handoff from the inbox to the approved ones; again is harmless.

        Raises:
            NotFound: the automation is not stored, or has no such handoff.
            InvalidRequest: it has no workspace.
            Refused: a folder leads out of the workspace, or a file cannot be written.
        """
        workspace, config = self._place(automation_id, tenant)
        for file in self._scan(workspace, config.inbox_dir):
            if file.handoff is not None and file.handoff.handoff_id == handoff_id:
                path = self._place_for(workspace, config.approved_dir, file.handoff)
                self._files.put_file(workspace, path, write_handoff(file.handoff))
                self._files.remove_file(workspace, f"{config.inbox_dir}/{file.file}")
                return file.handoff
        for file in self._scan(workspace, config.approved_dir):
            if file.handoff is not None and file.handoff.handoff_id == handoff_id:
                return file.handoff
        raise NotFound(
            f"automation {automation_id} has no handoff {handoff_id} in its inbox; "
            f"`tandem handoffs list {automation_id}` shows what it has"
        )

    def _place_for(self, workspace: str, folder: str, handoff: Handoff) -> str:
        """Return where a handoff goes: beside another one of its id that still waits."""
        name = file_name(handoff.handoff_id)
        there = self._read(workspace, folder, name, None).handoff
        is_used = there is not None and there.fingerprint != handoff.fingerprint
        return f"{folder}/{name_beside(handoff, is_used=is_used)}"

    def list(
        self, automation_id: AutomationId, *, tenant: TenantId = LOCAL_TENANT
    ) -> HandoffListing:
        """Return what is in the folders of an automation, up to 512 files of each.

        Raises:
            NotFound: the automation is not stored.
            InvalidRequest: it has no workspace.
        """
        workspace, config = self._place(automation_id, tenant)
        return HandoffListing(
            automation_id=automation_id,
            workspace_root=workspace,
            handoff_config=config,
            inbox=self._shown(workspace, config.inbox_dir),
            approved=self._shown(workspace, config.approved_dir),
            archived=self._shown(workspace, config.archived_dir),
        )

    def _shown(self, workspace: str, folder: str) -> tuple[HandoffFile, ...]:
        found = self._scan(workspace, folder)
        return tuple(
            sorted(found, key=lambda f: (f.handoff.created_at_ms if f.handoff else 0, f.file))
        )

    def _place(self, automation_id: AutomationId, tenant: TenantId) -> tuple[str, HandoffConfig]:
        row = present(self._store.find_automation(automation_id, tenant=tenant), automation_id)
        return _place_of(self._definitions.of(row))

    # The sweep

    async def tend(self) -> None:
        """Archive what was taken, and start runs of what is approved.

        Raises:
            StoreUnavailable: the store failed; everything stays as it is.
        """
        await self._archive_left()
        rows = self._store.list_watching(after_no=self._after_no, limit=WATCHED_MAX)
        self._after_no = rows[-1].automation_no if len(rows) == WATCHED_MAX else 0
        for row in rows:
            try:
                await self._watch(row)
            except StoreUnavailable:
                raise
            except EngineError as error:
                self._tell(row.automation_id, "", f"its handoffs are not looked at: {error}")

    async def _watch(self, row: StoredAutomation) -> None:
        """Start at most one run of an automation: of the oldest handoff that it waits for."""
        if self._store.find_open_run(row.automation_id, tenant=row.tenant) is not None:
            return
        automation = self._definitions.of(row)
        workspace, config = _place_of(automation)
        files = self._scan(workspace, config.approved_dir)
        for file in files:
            if file.problem:
                self._tell(row.automation_id, file.file, file.problem)
        now_ms = self._clock.now_ms()
        for file in waiting_for(files, row.automation_id, automation.watch_conditions):
            assert file.handoff is not None
            key = (row.automation_no, file.handoff.occurrence)
            if self._refused.get(key, 0) > now_ms:
                continue
            taken = await self._take(row, automation, file, file.handoff)
            if taken.consumed is not None:
                # Not what was taken once: a copy may come back by another name.
                seen = msgspec.structs.replace(
                    taken.consumed,
                    workspace=workspace,
                    file=f"{config.approved_dir}/{file.file}",
                )
                try:
                    await self._archive(seen)
                except Refused as error:
                    self._tell(row.automation_id, file.file, f"it has its run, but: {error}")
            if taken.code:
                if len(self._refused) >= KNOWN_MAX:
                    self._refused.clear()
                self._refused[key] = now_ms + REFUSED_REST_MS
            elif taken.is_new or taken.consumed is None:
                return

    async def _take(
        self, row: StoredAutomation, automation: Automation, file: HandoffFile, handoff: Handoff
    ) -> Taken:
        new: NewRun | None = None
        refusal = None
        try:
            new = self._prepare(
                automation,
                tenant=row.tenant,
                trigger_type=TriggerType.WATCH_CONDITION,
                trigger_reason=handoff.words,
                consumed_handoff_id=handoff.handoff_id,
                stored_version=row.version,
            )
        except StoreUnavailable:
            raise
        except EngineError as error:
            refusal = (error.code, str(error))
        now_ms = self._clock.now_ms()
        workspace, config = _place_of(automation)
        taken = await self._store.take_handoff(
            row,
            handoff,
            new,
            consumed=ConsumedHandoff(
                tenant=row.tenant,
                automation_id=row.automation_id,
                handoff_id=handoff.handoff_id,
                handed_over_at_ms=handoff.created_at_ms,
                fingerprint=handoff.fingerprint,
                run_id=new.run_id if new is not None else "",  # type: ignore[arg-type] # not written
                consumed_at_ms=now_ms,
                workspace=workspace,
                file=f"{config.approved_dir}/{file.file}",
                archived_dir=config.archived_dir,
            ),
            refusal=refusal,
            change_id=self._new_change_id(),
            now_ms=now_ms,
        )
        if taken.is_new:
            self._created()
        return taken

    async def _archive_left(self) -> None:
        """Archive the files of handoffs whose taking was cut off before that."""
        after_no = 0
        while left := self._store.list_unarchived(after_no=after_no, limit=WATCHED_MAX):
            after_no = left[-1].consumed_no
            for taken in left:
                with suppress(Refused, NotFound):
                    await self._archive(taken)

    async def _archive(self, taken: ConsumedHandoff) -> None:
        """Move the file of a handoff that has its run; what was moved already stays there."""
        try:
            content = self._files.read_text(taken.workspace, taken.file, bytes_max=BYTES_MAX)
            handoff = read_handoff(content.encode())
        except (NotFound, ValueError):
            handoff = None  # it was moved before, or replaced by something else
        if handoff is not None and is_same(handoff, taken):
            self._files.put_file(
                taken.workspace,
                f"{taken.archived_dir}/{self._archived_name(taken, handoff)}",
                write_handoff(consumed(handoff, taken)),
            )
            self._files.remove_file(taken.workspace, taken.file)
        await self._store.mark_archived(taken.consumed_no, now_ms=self._clock.now_ms())

    def _archived_name(self, taken: ConsumedHandoff, handoff: Handoff) -> str:
        name = name_beside(handoff, is_used=False)
        there = self._read(taken.workspace, taken.archived_dir, name, None)
        is_used = (
            there.problem == "" and there.handoff is not None and not is_same(there.handoff, taken)
        )
        return name_beside(handoff, is_used=is_used)

    # Files

    def _scan(self, workspace: str, folder: str) -> Sequence[HandoffFile]:
        """Return what is in a folder; only what has changed since the last look is read."""
        found = []
        if len(self._known) > KNOWN_MAX:
            self._known.clear()
        for name, stamp in self._files.list_files(workspace, folder, ".json", limit=LISTED_MAX):
            key = (f"{workspace}/{folder}", name)
            known = self._known.get(key)
            if known is None or known[0] != stamp:
                known = self._known[key] = stamp, self._read(workspace, folder, name, stamp)
            found.append(known[1])
        return found

    def _read(self, workspace: str, folder: str, name: str, stamp: FileStamp | None) -> HandoffFile:
        try:
            text = self._files.read_text(workspace, f"{folder}/{name}", bytes_max=BYTES_MAX + 1)
            if len(text.encode()) > BYTES_MAX:
                raise ValueError(f"it has more than {BYTES_MAX} bytes")
            return HandoffFile(file=name, handoff=read_handoff(text.encode()))
        except NotFound:
            return HandoffFile(file=name)
        except (Refused, ValueError) as error:
            return HandoffFile(file=name, problem=str(error))

    def _tell(self, automation_id: str, file: str, problem: str) -> None:
        """Tell of a problem, once as long as this engine lives."""
        key = (automation_id, file, problem)
        if key in self._told:
            return
        if len(self._told) >= KNOWN_MAX:
            self._told.clear()
        self._told.add(key)
        where = f"handoff file `{file}`" if file else "handoffs"
        self._complain(f"{where} of automation `{automation_id}`: {problem}")


def listing_document(found: HandoffListing) -> dict[str, Any]:
    """Return a listing as the published contract shows it (http-api 3.8)."""
    folders = {"inbox": found.inbox, "approved": found.approved, "archived": found.archived}
    shown = {
        name: [msgspec.to_builtins(file.handoff) for file in files if file.handoff is not None]
        for name, files in folders.items()
    }
    counts = {name: len(files) for name, files in shown.items()}
    return {
        "automation_id": found.automation_id,
        "workspace_root": found.workspace_root,
        "handoff_config": found.handoff_config.model_dump(mode="json"),
        **shown,
        "counts": {**counts, "total": sum(counts.values())},
    }


def _place_of(automation: Automation) -> tuple[str, HandoffConfig]:
    workspace = declared_workspace(automation)
    if not workspace:
        raise InvalidRequest(
            f"automation {automation.automation_id} names no `workspace_root`, so it has no place "
            "for handoffs",
            code="handoff_without_workspace",
        )
    return workspace, folders_of(automation.handoff_config)
