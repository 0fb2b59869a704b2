"""The automations that the store keeps: saving, looking at, holding and running them."""

from collections.abc import Sequence
from typing import Any, Final

from tandem.domain.automation import Automation, AutomationStatus
from tandem.domain.automation_keeping import (
    DeleteAutomation,
    PauseAutomation,
    ResumeAutomation,
    Save,
    check_may_run,
    present,
)
from tandem.domain.definition import Definition, definition_of
from tandem.domain.firing import Firing
from tandem.domain.ids import LOCAL_TENANT, AutomationId, TenantId
from tandem.domain.json import JsonObject
from tandem.domain.run import Run
from tandem.domain.stored_automation import AutomationChange, AutomationRecord, StoredAutomation
from tandem.engine.definitions import read_definition, read_document
from tandem.engine.engine import Engine

RECORDS_MAX: Final = 1_000


class Automations:
    """The stored automations of one tenant, asked through one engine."""

    def __init__(self, engine: Engine, tenant: TenantId = LOCAL_TENANT) -> None:
        self._engine = engine
        self._store = engine.store
        self._tenant = tenant

    async def save(
        self,
        automation: Automation | Definition,
        *,
        by: str,
        expected_version: int | None = None,
        reason: str = "",
    ) -> AutomationChange:
        """Make this definition the current version; without a difference nothing is written.

        The status of the document counts where the document gives one; a pause is only lifted by
        `resume`.

        Args:
            automation: the definition, or what is kept of it.
            by: who saves it.
            expected_version: the version that the author has seen, 0 for none; None for any.
            reason: why.

        Raises:
            Refused: another version is current than the expected one.
            StoreUnavailable: nothing was written.
        """
        kept = definition_of(automation) if isinstance(automation, Automation) else automation
        command = Save(
            definition_digest=kept.digest,
            name=kept.name,
            creator_id=kept.creator_id or by,
            actor=by,
            status=kept.status,
            expected_version=expected_version,
            reason=reason,
            schedule=kept.schedule,
            is_watching=kept.is_watching,
        )
        return await self._engine.execute_on_automation(
            kept.automation_id, command, tenant=self._tenant, document=kept.document
        )

    async def pause(
        self, automation_id: str, *, by: str, reason: str = "paused by operator"
    ) -> StoredAutomation:
        """Pause its running runs and hold its queued ones.

        Raises:
            NotFound: it is not there.
            Refused: it is paused already.
        """
        command = PauseAutomation(by=by, reason=reason)
        return (await self._execute(automation_id, command)).row

    async def resume(
        self, automation_id: str, *, by: str, reason: str = "resumed by operator"
    ) -> StoredAutomation:
        """Let its held runs be claimed; runs that were paused are resumed one by one.

        Raises:
            NotFound: it is not there.
            Refused: it is not paused.
        """
        command = ResumeAutomation(by=by, reason=reason)
        return (await self._execute(automation_id, command)).row

    async def delete(
        self, automation_id: str, *, by: str, reason: str = "deleted by operator"
    ) -> StoredAutomation:
        """Take it out of the lists; its runs stay and go on.

        Raises:
            NotFound: it is not there.
        """
        command = DeleteAutomation(by=by, reason=reason)
        return (await self._execute(automation_id, command)).row

    async def _execute(
        self, automation_id: str, command: PauseAutomation | ResumeAutomation | DeleteAutomation
    ) -> AutomationChange:
        return await self._engine.execute_on_automation(
            AutomationId(automation_id), command, tenant=self._tenant
        )

    async def run(
        self,
        automation_id: str,
        inputs: JsonObject | None = None,
        **how: Any,
    ) -> Run:
        """Create a run of the current version; `how` is what `Engine.start` takes.

        A run of a paused automation is queued and held.

        Raises:
            NotFound: it is not there.
            Refused: it is a draft, and the run is not dry, nor `runs_draft` given.
            InvalidAutomation: the inputs do not fit, or a node needs what is not installed.
            StoreUnavailable: nothing was written.
        """
        row = self.get(automation_id)
        check_may_run(
            row,
            row.automation_id,
            is_dry=bool(how.get("is_dry")),
            runs_draft=bool(how.get("runs_draft")),
        )
        return await self._engine.start(
            self.definition(row),
            inputs,
            tenant=self._tenant,
            stored_version=row.version,
            **how,
        )

    def get(self, automation_id: str) -> StoredAutomation:
        """Return the row of an automation.

        Raises:
            NotFound: it was never saved, or it was deleted.
        """
        found = AutomationId(automation_id)
        return present(self._store.find_automation(found, tenant=self._tenant), found)

    def list(self, *, after_id: str = "", limit: int = 100) -> Sequence[StoredAutomation]:
        """Return the automations that are there by id, those after `after_id`."""
        return self._store.list_automations(tenant=self._tenant, after_id=after_id, limit=limit)

    def records(self, row: StoredAutomation, *, after_seq: int = 0) -> Sequence[AutomationRecord]:
        """Return what happened to an automation: who, when, why; at most 1,000 records."""
        return self._store.list_automation_records(row, after_seq=after_seq, limit=RECORDS_MAX)

    def definition(self, row: StoredAutomation, version: int | None = None) -> Automation:
        """Return the definition of the current version, or of an older one.

        Raises:
            NotFound: there is no such version.
            StoreError: what is stored cannot be read.
        """
        return read_definition(self._store, row, version)

    def document(self, row: StoredAutomation) -> JsonObject:
        """Return the canonical document of the current version, whatever this version makes of it.

        Raises:
            StoreError: what is stored is no JSON.
        """
        return read_document(self._store, row)

    def firings(self, row: StoredAutomation, *, limit: int = 100) -> Sequence[Firing]:
        """Return what its triggers did lately, newest first: which runs, or why there are none."""
        return self._store.list_firings(row, limit=limit)


def told_status(row: StoredAutomation) -> str:
    """Return the status of an automation with what a person needs to know about it."""
    if row.status is not AutomationStatus.PAUSED:
        return row.status.value
    by = f" by {row.paused_by}" if row.paused_by else ""
    return f"paused{by}: {row.pause_reason}"
