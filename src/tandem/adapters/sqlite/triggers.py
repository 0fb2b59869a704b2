"""The store of triggers, on the tables of one SQLite file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from tandem.adapters.sql import rows
from tandem.adapters.sqlite.tables import Found, Tables
from tandem.adapters.sqlite.triggering import (
    FireSchedule,
    MarkArchived,
    NewRows,
    TakeHandoff,
    consumed_of,
)
from tandem.adapters.sqlite.writer import Writer
from tandem.domain.creation import NewRun, create
from tandem.domain.firing import Fired, Firing, FiringPlan
from tandem.domain.handoff import ConsumedHandoff, Handoff, Taken
from tandem.domain.ids import AutomationId, ChangeId, RunId, TenantId
from tandem.domain.stored_automation import StoredAutomation

_NUMBER_MAX: Final = 2**62


class Triggers(ABC):
    """What `ports.triggers.TriggerStore` promises; the store of the runs is made of it, too."""

    _tables: Tables
    _writer: Writer

    @abstractmethod
    def _find(self, name: str, *values: object) -> Found: ...

    def list_due_automations(self, *, now_ms: int, limit: int) -> Sequence[StoredAutomation]:
        """See `TriggerStore.list_due_automations`."""
        return [
            rows.automation_of(row) for row in self._find("list_due_automations", now_ms, limit)
        ]

    async def fire(
        self,
        row: StoredAutomation,
        plan: FiringPlan,
        runs: Sequence[NewRun],
        *,
        refusal: tuple[str, str] | None,
        change_id: ChangeId,
        now_ms: int,
    ) -> Fired:
        """See `TriggerStore.fire`."""
        new = [self._rows_of(run, now_ms) for run in runs]
        return await self._writer.submit(FireSchedule(row, plan, new, refusal, change_id, now_ms))

    def list_firings(
        self, automation: StoredAutomation, *, before_no: int | None = None, limit: int
    ) -> Sequence[Firing]:
        """See `TriggerStore.list_firings`."""
        before = _NUMBER_MAX if before_no is None else before_no
        found = self._find("list_firings", automation.automation_no, before, limit)
        return [rows.firing_of(row) for row in found]

    def find_open_run(self, automation_id: AutomationId, *, tenant: TenantId) -> RunId | None:
        """See `TriggerStore.find_open_run`."""
        found = self._find("find_open_run", tenant, automation_id)
        return RunId(found[0]["run_id"]) if found else None

    def list_watching(self, *, after_no: int, limit: int) -> Sequence[StoredAutomation]:
        """See `TriggerStore.list_watching`."""
        return [rows.automation_of(row) for row in self._find("list_watching", after_no, limit)]

    async def take_handoff(
        self,
        row: StoredAutomation,
        handoff: Handoff,
        new: NewRun | None,
        *,
        consumed: ConsumedHandoff,
        refusal: tuple[str, str] | None,
        change_id: ChangeId,
        now_ms: int,
    ) -> Taken:
        """See `TriggerStore.take_handoff`."""
        made = None if new is None else self._rows_of(new, now_ms)
        write = TakeHandoff(row, handoff, made, consumed, refusal, change_id, now_ms)
        return await self._writer.submit(write)

    def list_unarchived(self, *, after_no: int, limit: int) -> Sequence[ConsumedHandoff]:
        """See `TriggerStore.list_unarchived`."""
        return [consumed_of(row) for row in self._find("list_unarchived", after_no, limit)]

    async def mark_archived(self, consumed_no: int, *, now_ms: int) -> None:
        """See `TriggerStore.mark_archived`."""
        await self._writer.submit(MarkArchived(consumed_no, now_ms))

    def _rows_of(self, new: NewRun, now_ms: int) -> NewRows:
        run, events = create(new, now_ms=now_ms)
        self._tables.remember(new.tenant, new.plan)
        return NewRows(run, events, new.document)
