"""Writes as data: everything that may be asked of the writer, in this process or another."""

from contextlib import suppress
from typing import Any, Protocol, TypeVar

import apsw
import msgspec

from tandem.adapters.frames import pack, unpack
from tandem.adapters.sql import rows
from tandem.adapters.sqlite import access, reviewing
from tandem.adapters.sqlite.admitting import (
    AdmissionPass,
    Admitted,
    KnownDefinition,
    wake_free,
)
from tandem.adapters.sqlite.archive import Moved
from tandem.adapters.sqlite.backlog import TendBacklog
from tandem.adapters.sqlite.forgetting import forget_beside
from tandem.adapters.sqlite.histories import ImportHistories
from tandem.adapters.sqlite.learning import DecideCandidate, Learn
from tandem.adapters.sqlite.reviewing import AcknowledgeReview, Enrol
from tandem.adapters.sqlite.sessions import TendSession
from tandem.adapters.sqlite.signals import Deliver, ForgetSignals, catch_up
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.adapters.sqlite.transfer import ImportRuns
from tandem.adapters.sqlite.triggering import (
    FireSchedule,
    MarkArchived,
    NewRows,
    TakeHandoff,
)
from tandem.adapters.sqlite.webhooks import (
    CreateTrigger,
    DeleteTrigger,
    ExecuteOnTrigger,
    ForgetDeliveries,
    Receive,
    SettleDelivery,
)
from tandem.domain import forking
from tandem.domain.admission import Claimant
from tandem.domain.automation_keeping import AutomationCommand, decide_automation
from tandem.domain.change import Change
from tandem.domain.command import Account, Command, DecideGate, NoteFork, Pause, Repair
from tandem.domain.decision import decide
from tandem.domain.deletion import refuse_deletion
from tandem.domain.errors import EngineError, NothingToDo
from tandem.domain.guardrail import not_counted
from tandem.domain.hold import automation_key
from tandem.domain.ids import AutomationId, ChangeId, Digest, EngineId, NodeId, RunId, TenantId
from tandem.domain.lost import fail_unreadable
from tandem.domain.receipts import first_event
from tandem.domain.request_key import ALREADY_DONE, RequestKey
from tandem.domain.run import Run
from tandem.domain.saved_repair import save_repair
from tandem.domain.stored_automation import AutomationChange, StoredAutomation
from tandem.domain.view import RunView
from tandem.ports.store import EngineRow

T_co = TypeVar("T_co", covariant=True)


class Write(Protocol[T_co]):
    """One write. It holds no connection and can be sent to another process."""

    def perform(self, tables: Tables, connection: apsw.Connection) -> T_co:
        """Write within the transaction that is open.

        It may refuse with an `EngineError`, best before its first statement that writes: then
        the others of the batch are not written again.
        """
        ...

    def landed(self, tables: Tables, connection: apsw.Connection, result: Any) -> bool:
        """Say whether the write is on disk.

        `result` is what `perform` returned, None when nobody heard of it: a result is known
        before the commit, so where a write has one, None means that it was not committed.

        Raises:
            StoreUnsure: what it would have written may be deleted by now.
        """
        ...

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> T_co:
        """Read the result that a writer in another process sent."""
        ...


class Created(msgspec.Struct, frozen=True, array_like=True):
    """The number of a new run; or the run that the same request has created before."""

    run_no: int
    before: Run | None = None


class Create(NewRows, frozen=True, tag=True):
    """Write a new run with its definition.

    A run of a stored automation is refused when that may not run now. With a key the run and the
    key are written together, and a request that came before gives its run.
    """

    key: RequestKey | None = None

    def perform(self, tables: Tables, connection: apsw.Connection) -> Created:
        """See `Write`."""
        run, key = self.run, self.key
        if key is not None:
            now_ms = run.created_at_ms
            done = access.was_done(tables, connection, run.tenant, key, now_ms=now_ms)
            if done is not None:
                before = tables.run(connection, done, run.tenant)
                return Created(before.run_no, before)
        self.refuse(tables, connection)
        run_no = self.insert(tables, connection)
        if key is not None:
            now_ms = run.created_at_ms
            access.put_key(tables, connection, run.tenant, key, run.run_id, now_ms=now_ms)
        return Created(run_no)

    def landed(self, tables: Tables, connection: apsw.Connection, result: Created | None) -> bool:
        """See `Write`."""
        if result is None:
            return False
        run = self.run
        if result.before is not None:
            # It may have been created in the batch whose commit failed.
            found = fetch(connection, tables.sql["find_run"], (result.before.run_id, run.tenant))
            return bool(found)
        return tables.has_event(connection, run.run_id, run.last_change_id, 1)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Created:
        """See `Write`."""
        return unpack(raw, Created)


class Apply(msgspec.Struct, frozen=True, tag=True):
    """Write the change of a driver."""

    change: Change

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        tables.write(connection, self.change)
        if self.change.waits:
            catch_up(tables, connection, self.change, self.change.run.updated_at_ms)

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`."""
        return tables.landed(connection, self.change)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


class Execute(msgspec.Struct, frozen=True, tag=True):
    """Load a run, decide a command on it and write; the result is the change.

    A repair that is to be saved writes the stored automation in the same transaction.
    """

    run_id: RunId
    tenant: TenantId
    command: Command
    change_id: ChangeId
    now_ms: int
    key: RequestKey | None = None

    def perform(self, tables: Tables, connection: apsw.Connection) -> Change:
        """See `Write`."""
        self._refuse_repetition(tables, connection)
        late = isinstance(self.command, DecideGate)
        view = tables.load(connection, self.run_id, self.tenant, settled_gates=late)
        command = self.command
        if isinstance(command, Account):
            command = not_counted(command, tables.usage_of(connection, view.run, command.spent))
        change = decide(view, command, change_id=self.change_id, now_ms=self.now_ms)
        row = saved = None
        if isinstance(self.command, Repair) and self.command.save:
            row = tables.find_automation(connection, self.tenant, view.run.automation_id)
            saved = save_repair(row, view.run, self.command, change)
        tables.write(connection, change)
        if saved is not None and saved.record is not None:
            tables.write_automation(connection, row, saved, b"")
        catch_up(tables, connection, change, self.now_ms)
        if self.key is not None and change.denial is None:
            access.put_key(
                tables, connection, self.tenant, self.key, self.run_id, now_ms=self.now_ms
            )
        return change

    def _refuse_repetition(self, tables: Tables, connection: apsw.Connection) -> None:
        key = self.key
        if key is None:
            return
        done = access.was_done(tables, connection, self.tenant, key, now_ms=self.now_ms)
        if done is not None:
            raise NothingToDo(
                f"the request with the Idempotency-Key `{key.key}` was done before",
                code=ALREADY_DONE,
                details={"runID": done},
            )

    def landed(self, tables: Tables, connection: apsw.Connection, result: Change | None) -> bool:
        """See `Write`."""
        return result is not None and tables.landed(connection, result)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Change:
        """See `Write`."""
        return unpack(raw, Change)


class ForkRun(msgspec.Struct, frozen=True, tag=True):
    """Write a new run that begins with outputs of another one, and note it on both.

    `inputs` are those that get another value; the others are the source's. The result is the new
    run. With a key the run and the key are written together, and a request that came before gives
    its run.
    """

    source: RunId
    tenant: TenantId
    node_id: NodeId
    fork: RunId
    inputs: dict[str, Any]
    asks_again: bool
    owner: EngineId | None
    started_by: str
    reason: str
    change_id: ChangeId
    now_ms: int
    key: RequestKey | None = None

    def perform(self, tables: Tables, connection: apsw.Connection) -> Run:
        """See `Write`; everything is decided before the first statement that writes."""
        if self.key is not None:
            done = access.was_done(tables, connection, self.tenant, self.key, now_ms=self.now_ms)
            if done is not None:
                return tables.run(connection, done, self.tenant)
        source = tables.load(connection, self.source, self.tenant)
        noted = decide(
            source,
            NoteFork(fork=self.fork, node_id=self.node_id, reason=self.reason),
            change_id=ChangeId(f"{self.change_id}-source"),
            now_ms=self.now_ms,
        )
        run = forking.new_run(
            source,
            run_id=self.fork,
            inputs=self.inputs,
            owner=self.owner,
            started_by=self.started_by,
            change_id=self.change_id,
            now_ms=self.now_ms,
        )
        change = forking.begin(
            RunView(run, source.plan),
            source,
            self.node_id,
            asks_again=self.asks_again,
            artifacts=tables.artifacts_of(connection, source.run.run_no),
            change_id=ChangeId(f"{self.change_id}-fork"),
            now_ms=self.now_ms,
        )
        document = tables.document(connection, self.tenant, run.definition_digest)
        reviewing.refuse_creation(connection, tables.sql, run)
        tables.write(connection, noted)
        change.run.run_no = tables.insert_run(connection, run, [first_event(run)], document)
        tables.insert_fork(connection, change.run, change)
        if self.key is not None:
            access.put_key(tables, connection, self.tenant, self.key, self.fork, now_ms=self.now_ms)
        return change.run

    def landed(self, tables: Tables, connection: apsw.Connection, result: Run | None) -> bool:
        """See `Write`."""
        if result is None:
            return False
        if result.run_id != self.fork:
            # It may have been made in the batch whose commit failed.
            return bool(fetch(connection, tables.sql["find_run"], (result.run_id, self.tenant)))
        return tables.has_event(connection, self.fork, self.change_id, 1)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Run:
        """See `Write`."""
        return unpack(raw, Run)


class DeleteRun(msgspec.Struct, frozen=True, tag=True):
    """Delete an ended run; the result are the artifacts to which nothing refers any more."""

    run_id: RunId
    tenant: TenantId

    def perform(self, tables: Tables, connection: apsw.Connection) -> list[Digest]:
        """See `Write`."""
        run = tables.run(connection, self.run_id, self.tenant)
        refuse_deletion(run)
        forget_beside(tables, connection, run)
        return tables.delete_run(connection, run)

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: list[Digest] | None
    ) -> bool:
        """See `Write`; ids of runs are never used again."""
        if result is None:
            return False
        return not fetch(connection, tables.sql["find_run"], (self.run_id, self.tenant))

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> list[Digest]:
        """See `Write`."""
        return unpack(raw, list[Digest])


class ClaimRuns(msgspec.Struct, frozen=True, tag=True):
    """Claim up to `limit` due runs; the ids of their changes are made from `change_id`.

    `known` are the definitions of the runs that were due a moment ago. A run that has come since
    is told as unread: its definition is not read while others wait for the writer. `before` changes
    were made from `change_id` already.
    """

    claimant: Claimant
    limit: int
    now_ms: int
    change_id: ChangeId
    known: list[KnownDefinition]
    before: int = 0

    def perform(self, tables: Tables, connection: apsw.Connection) -> Admitted:
        """See `Write`. What may refuse a run is known before anything is written of it."""
        admission = AdmissionPass(tables, connection, self.claimant, self.known, now_ms=self.now_ms)
        return admission.run(limit=self.limit, change_id=self.change_id, before=self.before)

    def landed(self, tables: Tables, connection: apsw.Connection, result: Admitted | None) -> bool:
        """See `Write`."""
        return result is not None and all(
            tables.landed(connection, one.change) for one in result.runs
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Admitted:
        """See `Write`."""
        return unpack(raw, Admitted)


class ChangedAutomation(msgspec.Struct, frozen=True, array_like=True):
    """What a command did to an automation, and to the runs that were driven."""

    change: AutomationChange
    runs: list[Change]


class ExecuteOnAutomation(msgspec.Struct, frozen=True, tag=True):
    """Load an automation, decide a command on it and write, with what follows for its runs."""

    tenant: TenantId
    automation_id: AutomationId
    command: AutomationCommand
    change_id: ChangeId
    now_ms: int
    document: bytes = b""

    def perform(self, tables: Tables, connection: apsw.Connection) -> ChangedAutomation:
        """See `Write`."""
        before = tables.find_automation(connection, self.tenant, self.automation_id)
        change = decide_automation(
            before,
            self.command,
            tenant=self.tenant,
            automation_id=self.automation_id,
            change_id=self.change_id,
            now_ms=self.now_ms,
        )
        if change.record is None:
            return ChangedAutomation(change, [])
        runs = self._paused(tables, connection, change.row) if change.pauses_runs else []
        row = tables.write_automation(connection, before, change, self.document)
        if change.releases_runs:
            key = automation_key(self.automation_id)
            run_statement(connection, tables.sql["release_runs"], (self.now_ms, key, self.tenant))
        for run in runs:
            tables.write(connection, run)
        return ChangedAutomation(msgspec.structs.replace(change, row=row), runs)

    def _paused(
        self, tables: Tables, connection: apsw.Connection, row: StoredAutomation
    ) -> list[Change]:
        """Decide the pause of every run of the automation that is driven now (T51)."""
        changes: list[Change] = []
        command = Pause(reason=row.pause_reason)
        found: list[Any] = connection.execute(
            tables.sql["list_driven_of_automation"], (self.tenant, self.automation_id)
        ).fetchall()
        for (run_no,) in found:
            # One that is being paused already, or cannot be read, is no reason to pause nothing.
            with suppress(EngineError):
                view = tables.load_by_no(connection, run_no)
                change_id = ChangeId(f"{self.change_id}-{len(changes) + 1}")
                changes.append(decide(view, command, change_id=change_id, now_ms=self.now_ms))
        return changes

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: ChangedAutomation | None
    ) -> bool:
        """See `Write`."""
        if result is None or result.change.record is None:
            return result is not None
        number = result.change.row.automation_no
        return tables.has_automation_record(connection, number, result.change.record)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> ChangedAutomation:
        """See `Write`."""
        return unpack(raw, ChangedAutomation)


class ArchiveRuns(msgspec.Struct, frozen=True, tag=True):
    """Pack rows of runs that ended; the result is what was moved."""

    before_ms: int
    rows_max: int
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> Moved:
        """See `Write`."""
        return tables.archive.move_in(
            connection, before_ms=self.before_ms, rows_max=self.rows_max, now_ms=self.now_ms
        )

    def landed(self, tables: Tables, connection: apsw.Connection, result: Moved | None) -> bool:
        """See `Write`."""
        return result is not None and all(
            tables.archive.has_part(connection, *part) for part in result.parts
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Moved:
        """See `Write`."""
        return unpack(raw, Moved)


class WakeFreed(msgspec.Struct, frozen=True, tag=True):
    """Put runs that wait for these keys back into the queue if the keys are free; how many."""

    keys: tuple[str, ...]
    limit: int
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> int:
        """See `Write`."""
        return sum(
            wake_free(tables, connection, key, now_ms=self.now_ms, limit=self.limit)
            for key in self.keys
        )

    def landed(self, tables: Tables, connection: apsw.Connection, result: int | None) -> bool:
        """See `Write`. Nobody relies on it: what was not woken is found by the next look."""
        return False

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> int:
        """See `Write`."""
        return unpack(raw, int)


class FailUnreadable(msgspec.Struct, frozen=True, tag=True):
    """End a run whose engine died and whose definition cannot be read; the result is the change."""

    run_id: RunId
    tenant: TenantId
    dead: EngineId
    why: str
    change_id: ChangeId
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> Change:
        """See `Write`."""
        run, nodes = tables.load_rows(connection, self.run_id, self.tenant)
        change = fail_unreadable(
            run,
            nodes,
            dead=self.dead,
            why=self.why,
            change_id=self.change_id,
            now_ms=self.now_ms,
        )
        tables.write(connection, change)
        return change

    def landed(self, tables: Tables, connection: apsw.Connection, result: Change | None) -> bool:
        """See `Write`."""
        return result is not None and tables.landed(connection, result)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Change:
        """See `Write`."""
        return unpack(raw, Change)


class PutEngine(msgspec.Struct, frozen=True, tag=True):
    """Write the row of an engine, or renew its lease, and mark its runs that show life."""

    engine: EngineRow
    active: tuple[int, ...] = ()
    now_ms: int = 0

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        run_statement(connection, tables.sql["put_engine"], rows.engine_row(self.engine))
        for run_no in self.active:
            row = (self.now_ms, run_no, self.engine.engine_id)
            run_statement(connection, tables.sql["mark_active"], row)

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`."""
        return any(
            row["engine_id"] == self.engine.engine_id
            and row["lease_until_ms"] == self.engine.lease_until_ms
            for row in fetch(connection, tables.sql["list_engines"], ())
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


class RemoveEngine(msgspec.Struct, frozen=True, tag=True):
    """Forget an engine."""

    engine_id: EngineId
    lease_until_ms: int | None

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        row = (self.engine_id, self.lease_until_ms)
        run_statement(connection, tables.sql["remove_engine"], row)

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`."""
        return all(
            row["engine_id"] != self.engine_id
            for row in fetch(connection, tables.sql["list_engines"], ())
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


class ReadVersion(msgspec.Struct, frozen=True, tag=True):
    """Read which version of the file the writer sees; it writes nothing."""

    def perform(self, tables: Tables, connection: apsw.Connection) -> int:
        """See `Write`."""
        return data_version(connection)

    def landed(self, tables: Tables, connection: apsw.Connection, result: int | None) -> bool:
        """See `Write`."""
        return False

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> int:
        """See `Write`."""
        return unpack(raw, int)


AnyWrite = (
    Create
    | Apply
    | Execute
    | ClaimRuns
    | ExecuteOnAutomation
    | ArchiveRuns
    | ImportRuns
    | ImportHistories
    | WakeFreed
    | FailUnreadable
    | Deliver
    | ForgetSignals
    | ForkRun
    | DeleteRun
    | PutEngine
    | RemoveEngine
    | ReadVersion
    | Learn
    | DecideCandidate
    | Enrol
    | AcknowledgeReview
    | TendSession
    | access.AccessWrite
    | FireSchedule
    | TakeHandoff
    | MarkArchived
    | TendBacklog
    | CreateTrigger
    | ExecuteOnTrigger
    | DeleteTrigger
    | Receive
    | SettleDelivery
    | ForgetDeliveries
)


def data_version(connection: apsw.Connection) -> int:
    """Return a number that changes when another connection has written to the file."""
    value: Any = connection.execute("PRAGMA data_version").fetchall()[0][0]
    return int(value)


def encode_result(result: object) -> bytes:
    """Write what `perform` returned as bytes for `receive`."""
    return pack(result)
