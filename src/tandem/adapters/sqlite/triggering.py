"""Triggers on the tables: the watermark of a schedule or the taking of a handoff, and the runs.

What is to be done was planned by the domain. Here it is compared with the rows of this moment and
written in one transaction, so a crash or another engine can neither lose nor double it.
"""

from collections.abc import Sequence
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sql import rows
from tandem.adapters.sqlite import reviewing
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.domain.automation_keeping import check_may_run
from tandem.domain.errors import ChangeRefused, NotFound, Refused
from tandem.domain.firing import (
    Fired,
    Firing,
    FiringOutcome,
    FiringPlan,
    fire,
    firings_of,
    put_off,
    undecided,
)
from tandem.domain.handoff import ConsumedHandoff, Handoff, Taken
from tandem.domain.ids import ChangeId, RunId
from tandem.domain.run import LifecycleEvent, Run
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.trigger import TriggerType, is_dry_run

FIRINGS_KEPT: Final = 1_000


class NewRows(msgspec.Struct, frozen=True):
    """A run that is about to be created, as rows."""

    run: Run
    events: tuple[LifecycleEvent, ...]
    document: bytes
    runs_draft: bool = False

    def refuse(self, tables: Tables, connection: apsw.Connection) -> None:
        """Refuse it when its automation may not run now, or is to be reviewed.

        Raises:
            NotFound: it is of a stored automation, which is not there any more.
            Refused: it may not run.
        """
        run = self.run
        if run.automation_version is not None:
            row = tables.find_automation(connection, run.tenant, run.automation_id)
            check_may_run(
                row,
                run.automation_id,
                is_dry=is_dry_run(run.trigger_type),
                runs_draft=self.runs_draft,
            )
        reviewing.refuse_creation(connection, tables.sql, run)

    def insert(self, tables: Tables, connection: apsw.Connection) -> int:
        """Write it; return its number."""
        return tables.insert_run(connection, self.run, self.events, self.document)


class FireSchedule(msgspec.Struct, frozen=True, tag=True):
    """Carry out the plan of a schedule; the result is what came of it."""

    row: StoredAutomation
    plan: FiringPlan
    new: list[NewRows]
    refusal: tuple[str, str] | None
    change_id: ChangeId
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> Fired:
        """See `Write`; everything is decided before the first statement that writes."""
        before = self.row
        if tables.find_automation(connection, before.tenant, before.automation_id) != before:
            return Fired(row=None)
        holder = find_open_run(tables, connection, before) if self.plan.due_at_ms else None
        if holder is not None:
            after = put_off(before, holder[0], now_ms=self.now_ms)
            self._advance(tables, connection, after)
            return Fired(row=after, put_off_by=holder[1])
        refusal = self.refusal or refusal_of(self.new, tables, connection)
        firings = firings_of(
            self.plan,
            tuple(new.run.run_id for new in self.new),
            trigger_type=TriggerType.SCHEDULED,
            refusal=refusal,
            change_id=self.change_id,
            now_ms=self.now_ms,
        )
        # A clock that was wrong may bring an instant again; it has its run, and the next one comes.
        firings = undecided(firings, self._decided(tables, connection, firings))
        after = fire(before, self.plan, now_ms=self.now_ms)
        self._advance(tables, connection, after)
        for firing in firings:
            record_firing(tables, connection, "add_firing", before.automation_no, firing)
        created = {firing.run_id for firing in firings}
        for new in self.new:
            if new.run.run_id in created:
                new.insert(tables, connection)
        return Fired(row=after, firings=firings)

    def _decided(
        self, tables: Tables, connection: apsw.Connection, firings: Sequence[Firing]
    ) -> set[str]:
        """Return which of these occurrences have a record."""
        number = self.row.automation_no
        return {
            firing.occurrence
            for firing in firings
            if fetch(connection, tables.sql["find_firing"], (number, firing.occurrence))
        }

    def _advance(
        self, tables: Tables, connection: apsw.Connection, after: StoredAutomation
    ) -> None:
        values = {
            **rows.automation_row(after),
            "until_before_ms": self.row.fired_until_ms,
            "next_before_ms": self.row.next_fire_at_ms,
        }
        if not fetch(connection, tables.sql["advance_schedule"], values):
            raise ChangeRefused(
                f"the schedule of automation {after.automation_id} was looked at by another engine"
            )

    def landed(self, tables: Tables, connection: apsw.Connection, result: Fired | None) -> bool:
        """See `Write`."""
        if result is None or result.row is None:
            return result is not None
        for firing in result.firings:
            values = (result.row.automation_no, firing.occurrence)
            found = fetch(connection, tables.sql["find_firing"], values)
            return bool(found) and found[0]["change_id"] == firing.change_id
        row = result.row
        return tables.find_automation(connection, row.tenant, row.automation_id) == row

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Fired:
        """See `Write`."""
        return unpack(raw, Fired)


class TakeHandoff(msgspec.Struct, frozen=True, tag=True):
    """Create the run of a handoff and note that it has it; the result is what came of it."""

    row: StoredAutomation
    handoff: Handoff
    new: NewRows | None
    consumed: ConsumedHandoff
    refusal: tuple[str, str] | None
    change_id: ChangeId
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> Taken:
        """See `Write`; everything is decided before the first statement that writes."""
        row = self.row
        known = find_consumed(tables, connection, self.consumed)
        if known is not None:
            return Taken(consumed=known)
        now = tables.find_automation(connection, row.tenant, row.automation_id)
        if now is None or now.last_change_id != row.last_change_id:
            return Taken()
        holder = find_open_run(tables, connection, row)
        if holder is not None:
            return Taken(put_off_by=holder[1])
        new = [self.new] if self.new is not None else []
        refusal = self.refusal or refusal_of(new, tables, connection)
        firing = self._firing(refusal)
        record_firing(tables, connection, "refuse_firing", row.automation_no, firing)
        if refusal is not None:
            return Taken(code=refusal[0], reason=refusal[1])
        for each in new:
            each.insert(tables, connection)
        return Taken(consumed=self._take(tables, connection), is_new=True)

    def _take(self, tables: Tables, connection: apsw.Connection) -> ConsumedHandoff:
        values = msgspec.to_builtins(self.consumed)
        taken = fetch(connection, tables.sql["take_handoff"], values)
        if not taken:
            raise ChangeRefused(f"handoff {self.handoff.handoff_id} was taken by another engine")
        return msgspec.structs.replace(self.consumed, consumed_no=taken[0]["consumed_no"])

    def _firing(self, refusal: tuple[str, str] | None) -> Firing:
        code, reason = refusal or ("", self.handoff.words)
        return Firing(
            occurrence=self.handoff.occurrence,
            trigger_type=TriggerType.WATCH_CONDITION,
            due_at_ms=self.handoff.created_at_ms,
            decided_at_ms=self.now_ms,
            outcome=FiringOutcome.CREATED if refusal is None else FiringOutcome.REFUSED,
            run_id=self.consumed.run_id if refusal is None else None,
            code=code,
            reason=reason,
            change_id=self.change_id,
        )

    def landed(self, tables: Tables, connection: apsw.Connection, result: Taken | None) -> bool:
        """See `Write`."""
        if result is None or (not result.is_new and not result.code):
            return result is not None
        values = (self.row.automation_no, self.handoff.occurrence)
        found = fetch(connection, tables.sql["find_firing"], values)
        return bool(found) and found[0]["change_id"] == self.change_id

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Taken:
        """See `Write`."""
        return unpack(raw, Taken)


class MarkArchived(msgspec.Struct, frozen=True, tag=True):
    """Note that the file of a handoff is archived."""

    consumed_no: int
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        values = (self.now_ms, self.consumed_no)
        run_statement(connection, tables.sql["mark_handoff_archived"], values)

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`. Nobody relies on it: the next look archives what is archived once more."""
        return False

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


def refusal_of(
    new: Sequence[NewRows], tables: Tables, connection: apsw.Connection
) -> tuple[str, str] | None:
    """Return code and reason when the automation of these runs may have no new one."""
    try:
        for each in new:
            each.refuse(tables, connection)
    except (NotFound, Refused) as error:
        return error.code, str(error)
    return None


def record_firing(
    tables: Tables, connection: apsw.Connection, name: str, automation_no: int, firing: Firing
) -> None:
    """Write the record of an occurrence and forget the oldest of its automation.

    Raises:
        ChangeRefused: the occurrence was decided before; nothing may be written.
    """
    if not fetch(connection, tables.sql[name], rows.firing_row(automation_no, firing)):
        raise ChangeRefused(f"the occurrence {firing.occurrence} was decided by another engine")
    values = (automation_no, automation_no, FIRINGS_KEPT)
    run_statement(connection, tables.sql["prune_firings"], values)


def find_open_run(
    tables: Tables, connection: apsw.Connection, row: StoredAutomation
) -> tuple[int, RunId] | None:
    """Return number and id of the oldest run of an automation that has not ended."""
    values = (row.tenant, row.automation_id)
    found = fetch(connection, tables.sql["find_open_run"], values)
    return (found[0]["run_no"], RunId(found[0]["run_id"])) if found else None


def find_consumed(
    tables: Tables, connection: apsw.Connection, key: ConsumedHandoff
) -> ConsumedHandoff | None:
    """Return what is noted of a handoff that has its run already."""
    named = (key.tenant, key.automation_id, key.handoff_id, key.handed_over_at_ms)
    values = (*named, key.fingerprint)
    found = fetch(connection, tables.sql["find_consumed"], values)
    return consumed_of(found[0]) if found else None


def consumed_of(row: dict[str, Any]) -> ConsumedHandoff:
    """Read what is noted of a handoff that has its run."""
    return msgspec.convert(row, ConsumedHandoff)
