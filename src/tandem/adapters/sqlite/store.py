"""The store on one SQLite file."""

import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sql.portable import PortableDefinition, PortableRun
from tandem.adapters.sql.statements import load_statements
from tandem.adapters.sqlite import records
from tandem.adapters.sqlite.access_rows import AccessRows
from tandem.adapters.sqlite.admitting import (
    ClaimedRun,
    KnownDefinition,
    list_free_keys,
    read_definition,
    read_known,
)
from tandem.adapters.sqlite.backlogs import Backlogs
from tandem.adapters.sqlite.backup import back_up
from tandem.adapters.sqlite.beside import Beside
from tandem.adapters.sqlite.committer import Committer
from tandem.adapters.sqlite.connection import (
    migrate,
    open_connection,
    refuse_network_file_system,
)
from tandem.adapters.sqlite.histories import ImportHistories, NewHistory
from tandem.adapters.sqlite.hooks import Hooks
from tandem.adapters.sqlite.signals import Deliver, ForgetSignals
from tandem.adapters.sqlite.standing import read_queue, read_standing
from tandem.adapters.sqlite.tables import Found, Tables, bare_view, fetch
from tandem.adapters.sqlite.transfer import (
    Imported,
    ImportRuns,
    LeftOut,
    count_beside,
    export_runs,
)
from tandem.adapters.sqlite.triggers import Triggers
from tandem.adapters.sqlite.turnstile import Turnstile
from tandem.adapters.sqlite.writer import CommitTimes, WriteListener, Writer
from tandem.adapters.sqlite.writer_process import WRITER_PROGRAM, WriterProcess
from tandem.adapters.sqlite.writes import (
    Apply,
    ArchiveRuns,
    ClaimRuns,
    Create,
    DeleteRun,
    Execute,
    ExecuteOnAutomation,
    FailUnreadable,
    ForkRun,
    PutEngine,
    RemoveEngine,
    WakeFreed,
    data_version,
)
from tandem.domain.admission import Claimant
from tandem.domain.artifact import NodeArtifact
from tandem.domain.automation_keeping import AutomationCommand
from tandem.domain.change import Change
from tandem.domain.command import Command
from tandem.domain.creation import NewRun, create
from tandem.domain.errors import (
    EngineError,
    NotFound,
    StoreError,
    StoreUnavailable,
)
from tandem.domain.event_cursor import EventTail
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    Digest,
    EngineId,
    NodeId,
    RunId,
    TenantId,
)
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import RunState
from tandem.domain.request_key import RequestKey
from tandem.domain.run import OPEN_WAITS, Attempt, Gate, GateStatus, LifecycleEvent, Run, Wait
from tandem.domain.run_picture import RunPicture
from tandem.domain.signal import Signal
from tandem.domain.stored_automation import AutomationChange, AutomationRecord, StoredAutomation
from tandem.domain.view import RunView
from tandem.ports.store import (
    Claimed,
    Delivered,
    EngineRow,
    EventFilter,
    EventPage,
    EventRecord,
    Held,
    Judged,
    Mark,
    OpenGate,
    OpenWait,
    Queue,
    Quiet,
    RunFilter,
    RunPage,
    RunSearch,
    Standing,
)

_NUMBER_MAX = 2**62
_PASSES_MAX = 8
"""A claim goes on so often when it comes to runs whose definitions were not read beforehand."""
_IN_STATUS = {
    "list_runs": "list_runs_of_status",
    "list_runs_of_automation": "list_runs_of_automation_in_status",
}


class SqliteStore(Beside, AccessRows, Triggers, Backlogs, Hooks):
    """Rows of runs in one file. Writes go through the committer, reads have their own connection.

    `synchronous` is FULL: what was acknowledged is on disk. NORMAL survives a killed process but
    may lose the newest commits in a power cut; OFF is for simulation only. `commit` ends the
    transactions that are written inline; tests put a failing one in its place. `writer` is where
    writes are done: `inline`, `process`, or `auto`, which begins inline and moves to the process
    when commits are slow. `writer_program` starts that process. `is_called_off` ends the waiting
    for another process that has the turn.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str = "FULL",
        commit: Callable[[apsw.Connection], None] | None = None,
        writer: str = "inline",
        writer_program: Sequence[str] = WRITER_PROGRAM,
        is_called_off: Callable[[], bool] | None = None,
    ) -> None:
        self._path = path
        self._tables = Tables(load_statements())
        _prepare_folder(path)

        def reopen() -> apsw.Connection:
            return open_connection(path, synchronous=synchronous)

        try:
            turnstile = Turnstile(path)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot write beside the store {path}: {error.strerror}; "
                "check the permissions of its folder, or set TANDEM_STATE_DIR"
            ) from error
        try:
            # Two processes that make the same new file at once would find it locked.
            with turnstile.turn(is_called_off=is_called_off):
                connection = reopen()
                migrate(connection, path)
                self._reader = open_connection(path, synchronous=synchronous, read_only=True)
        except EngineError:
            turnstile.close()
            raise
        timed = CommitTimes(commit) if writer == "auto" else None
        self._committer = Committer(connection, turnstile, reopen=reopen, commit=timed or commit)
        start = partial(WriterProcess, path, synchronous=synchronous, program=writer_program)
        self._writer = Writer(self._committer, self._tables, start)
        if timed is not None:
            timed.on_slow = self._writer.move
        if writer == "process":
            self._writer.hold()
        self._data_version = data_version(connection)
        self._last_key = ""

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def committer(self) -> Committer:
        """The write path of this process, for its counters."""
        return self._committer

    def listen(self, on_write: WriteListener) -> None:
        """Call `on_write(place, writes, seconds)` after writes that went to disk together."""
        self._writer.listen(on_write)

    @property
    def writer(self) -> str:
        """Where writes are done now: `inline` or `process`."""
        return self._writer.place

    @property
    def writer_pid(self) -> int | None:
        """The writer process, if there is one."""
        process = self._writer.process
        return process.pid if process is not None else None

    def close(self) -> None:
        """Close the file. Writes that still wait are refused."""
        self._reader.close()
        self._writer.close()

    # Writes

    async def create_run(self, new: NewRun, *, now_ms: int) -> Run:
        """See `Store.create_run`."""
        run, events = create(new, now_ms=now_ms)
        self._tables.remember(new.tenant, new.plan)
        write = Create(run, events, new.document, new.runs_draft, new.key)
        created = await self._writer.submit(write)
        run.run_no = created.run_no
        return created.before or run

    def apply(self, change: Change) -> Awaitable[None]:
        """See `Store.apply`."""
        return self._writer.submit(Apply(change))

    async def execute(
        self,
        run_id: RunId,
        command: Command,
        *,
        tenant: TenantId,
        change_id: ChangeId,
        now_ms: int,
        key: RequestKey | None = None,
    ) -> Change:
        """See `Store.execute`."""
        # What is wrong with the run or its definition, the write itself says.
        with suppress(EngineError, apsw.Error):
            for row in fetch(self._reader, self._tables.sql["find_run"], (run_id, tenant)):
                self._tables.plan(self._reader, tenant, row["definition_digest"])
        return await self._writer.submit(Execute(run_id, tenant, command, change_id, now_ms, key))

    async def fork(
        self,
        run_id: RunId,
        node_id: NodeId,
        *,
        tenant: TenantId,
        fork: RunId,
        inputs: JsonObject,
        asks_again: bool,
        owner: EngineId | None,
        started_by: str = "",
        reason: str,
        change_id: ChangeId,
        now_ms: int,
        key: RequestKey | None = None,
    ) -> Run:
        """See `Store.fork`."""
        return await self._writer.submit(
            ForkRun(
                run_id,
                tenant,
                node_id,
                fork,
                dict(inputs),
                asks_again,
                owner,
                started_by,
                reason,
                change_id,
                now_ms,
                key,
            )
        )

    async def delete_run(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Digest]:
        """See `Store.delete_run`."""
        return await self._writer.submit(DeleteRun(run_id, tenant))

    async def claim(
        self,
        engine_id: EngineId,
        *,
        limit: int,
        now_ms: int,
        new_change_id: Callable[[], ChangeId],
        own_only: bool = False,
        labels: Sequence[str] = (),
        runs_total_max: int | None = None,
    ) -> Sequence[Claimed]:
        """See `Store.claim`."""
        claimant = Claimant(
            engine_id=engine_id,
            own_only=own_only,
            labels=tuple(labels),
            runs_total_max=runs_total_max,
        )
        known = self._read_known(claimant, limit=limit, now_ms=now_ms)
        if known is None:
            return []
        change_id = new_change_id()
        claimed: list[ClaimedRun] = []
        free = limit
        for _ in range(_PASSES_MAX):
            write = ClaimRuns(claimant, free, now_ms, change_id, known, len(claimed))
            try:
                admitted = await self._writer.submit(write)
            except StoreUnavailable:
                if not claimed:
                    raise
                break  # what was claimed before has to be driven
            claimed += admitted.runs
            free -= sum(one.is_taken for one in admitted.runs)
            if free == 0 or not admitted.unread:
                break
            known += [
                read_definition(self._tables, self._reader, name) for name in admitted.unread[:free]
            ]
        return [self._claimed(each) for each in claimed]

    def _read_known(
        self, claimant: Claimant, *, limit: int, now_ms: int
    ) -> list[KnownDefinition] | None:
        try:
            return read_known(self._tables, self._reader, claimant, limit=limit, now_ms=now_ms)
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def _claimed(self, claimed: ClaimedRun) -> Claimed:
        """Put a claimed run together with its definition, which has been read already."""
        change, parts = claimed.change, claimed.parts
        run = change.run
        try:
            plan = self._tables.plan(self._reader, run.tenant, run.definition_digest)
        except EngineError:
            return Claimed(bare_view(run), change)
        return Claimed(parts.view(run, plan), change)

    # Automations

    async def execute_on_automation(
        self,
        automation_id: AutomationId,
        command: AutomationCommand,
        *,
        tenant: TenantId,
        change_id: ChangeId,
        now_ms: int,
        document: bytes = b"",
    ) -> tuple[AutomationChange, Sequence[Change]]:
        """See `Store.execute_on_automation`."""
        changed = await self._writer.submit(
            ExecuteOnAutomation(tenant, automation_id, command, change_id, now_ms, document)
        )
        return changed.change, changed.runs

    def find_automation(
        self, automation_id: AutomationId, *, tenant: TenantId
    ) -> StoredAutomation | None:
        """See `Store.find_automation`."""
        found = self._find("find_automation", tenant, automation_id)
        return rows.automation_of(found[0]) if found else None

    def list_automations(
        self, *, tenant: TenantId, after_id: str, limit: int
    ) -> Sequence[StoredAutomation]:
        """See `Store.list_automations`."""
        found = self._find("list_automations", tenant, after_id, limit)
        return [rows.automation_of(row) for row in found]

    def list_automation_records(
        self, automation: StoredAutomation, *, after_seq: int, limit: int
    ) -> Sequence[AutomationRecord]:
        """See `Store.list_automation_records`."""
        found = self._find("list_automation_events", automation.automation_no, after_seq, limit)
        return [rows.record_of(row) for row in found]

    def automation_document(self, automation: StoredAutomation, version: int) -> bytes:
        """See `Store.automation_document`."""
        named = self._find("find_automation_version", automation.automation_no, version)
        if not named:
            raise NotFound(
                f"automation {automation.automation_id} has no version {version}; the newest is "
                f"{automation.version}"
            )
        digest = named[0]["definition_digest"]
        found = self._find("get_definition", automation.tenant, digest)
        if not found:
            raise NotFound(f"the definition {digest} is not in the store")
        return bytes(found[0]["document"])

    # Signals

    async def deliver(
        self, signal: Signal, *, tenant: TenantId, change_id: ChangeId, now_ms: int
    ) -> Delivered:
        """See `Store.deliver`."""
        return await self._writer.submit(Deliver(tenant, signal, 0, change_id, now_ms))

    async def continue_delivery(
        self, signal_no: int, *, change_id: ChangeId, now_ms: int
    ) -> Delivered:
        """See `Store.continue_delivery`."""
        write = Deliver(LOCAL_TENANT, None, signal_no, change_id, now_ms)
        return await self._writer.submit(write)

    async def forget_signals(self, *, before_ms: int, limit: int) -> int:
        """See `Store.forget_signals`."""
        if not self._find("list_old_signals", before_ms, 1):
            return 0  # without a transaction: there is nothing most of the time
        return await self._writer.submit(ForgetSignals(before_ms, limit))

    async def wake_freed(self, *, now_ms: int, limit: int) -> int:
        """See `Store.wake_freed`."""
        try:
            free, self._last_key = list_free_keys(
                self._tables, self._reader, after=self._last_key, limit=limit
            )
        except apsw.Error as error:
            raise self._unreadable(error) from error
        if not free:
            return 0
        return await self._writer.submit(WakeFreed(tuple(free), limit, now_ms))

    async def archive(self, *, before_ms: int, rows_max: int, now_ms: int) -> int:
        """See `Store.archive`."""
        moved = await self._writer.submit(ArchiveRuns(before_ms, rows_max, now_ms))
        return moved.rows + moved.runs_done

    # In and out

    def export(self) -> Iterator[PortableDefinition | PortableRun | LeftOut]:
        """Yield every run of the store at one moment, each definition before its first run.

        What of a run cannot be read is said in its place.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        connection = open_connection(self._path, synchronous="FULL", read_only=True)
        try:
            connection.execute("BEGIN")
            yield from export_runs(self._tables, connection)
        except apsw.Error as error:
            raise self._unreadable(error) from error
        finally:
            connection.close()

    def count_beside(self) -> Mapping[str, int]:
        """Return how much there is of what no export holds, by what it is.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        try:
            return count_beside(self._tables, self._reader)
        except apsw.Error as error:
            raise self._unreadable(error) from error

    async def import_runs(
        self,
        definitions: Sequence[PortableDefinition],
        runs: Sequence[PortableRun],
        *,
        change_id: ChangeId,
        now_ms: int,
    ) -> Sequence[Imported]:
        """Write exported runs in one transaction; what is here already stays as it is.

        Raises:
            Refused: they hold what this version does not know; nothing was written.
            StoreUnavailable: nothing was written.
        """
        write = ImportRuns(list(definitions), list(runs), change_id, now_ms)
        return await self._writer.submit(write)

    async def import_histories(
        self, histories: Sequence[NewHistory], *, now_ms: int
    ) -> Sequence[Imported]:
        """Write runs of the original in one transaction; what is here already stays as it is.

        Raises:
            StoreUnavailable: nothing was written.
        """
        return await self._writer.submit(ImportHistories(list(histories), now_ms))

    def find_tenant(self, run_id: RunId) -> TenantId | None:
        """Return whose a run is, None when there is no such run."""
        found = self._find("find_run_by_id", run_id)
        return TenantId(found[0]["tenant"]) if found else None

    def is_referenced(self, digest: Digest) -> bool:
        """Say whether a run of any tenant has an artifact with this digest."""
        return bool(self._find("is_digest_used", digest, None))

    def back_up(self, target: Path, *, progress: Callable[[int, int], None]) -> int:
        """Copy the store as it is at this moment to a new file; return its size in bytes.

        Raises:
            Refused: the file exists.
            StoreUnavailable: it could not be written; nothing is left there.
        """
        return back_up(self._path, target, progress=progress)

    # Loading

    async def load(self, run_id: RunId, *, tenant: TenantId) -> RunView:
        """See `Store.load`."""
        return self.read(run_id, tenant=tenant)

    def read(self, run_id: RunId, *, tenant: TenantId) -> RunView:
        """Load a run as one consistent picture.

        Raises:
            NotFound: no such run for this tenant.
            StoreUnavailable: the file cannot be read.
        """
        with self._one_picture():
            return self._tables.load(self._reader, run_id, tenant)

    # Reads

    @contextmanager
    def _one_picture(self) -> Iterator[None]:
        """Let all reads in between see the same state of the store.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        try:
            self._reader.execute("BEGIN")
            try:
                yield
            finally:
                self._reader.execute("COMMIT")
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def _find(self, name: str, *values: object) -> Found:
        try:
            return fetch(self._reader, self._tables.sql[name], values)
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: apsw.Error) -> StoreUnavailable:
        if isinstance(error, apsw.ConnectionClosedError):
            return StoreUnavailable(f"the store {self._path} was closed; nothing can be read")
        return StoreUnavailable(f"cannot read the store {self._path}: {error}; check its disk")

    def find_run(self, run_id: RunId, *, tenant: TenantId) -> Run | None:
        """See `Store.find_run`."""
        found = self._find("find_run", run_id, tenant)
        return rows.run_of(found[0]) if found else None

    def list_run_ids(self, prefix: str, *, tenant: TenantId, limit: int) -> Sequence[RunId]:
        """Return ids of runs that begin with `prefix`, in the order of the ids."""
        found = self._find("list_run_ids", tenant, prefix, prefix + "\U0010ffff", limit)
        return [RunId(row["run_id"]) for row in found]

    def list_runs(self, chosen: RunFilter) -> Sequence[Run]:
        """See `Store.list_runs`."""
        before = _NUMBER_MAX if chosen.before_no is None else chosen.before_no
        tenant, limit = chosen.tenant, chosen.limit
        name = "list_runs"
        of: tuple[str, ...] = (tenant,)
        if chosen.automation_id is not None:
            name, of = "list_runs_of_automation", (tenant, chosen.automation_id)
        if not chosen.statuses:
            return [rows.run_of(row) for row in self._find(name, *of, before, limit)]
        name = _IN_STATUS[name]
        parts = [
            self._find(name, *of, status.value, before, limit)
            for status in dict.fromkeys(chosen.statuses)
        ]
        merged = sorted((row for part in parts for row in part), key=lambda row: -row["run_no"])
        return [rows.run_of(row) for row in merged[:limit]]

    def read_newest(self, *, limit: int) -> tuple[Sequence[Run], Sequence[str], int]:
        """Return the newest runs of all tenants, which cannot be read and why, and how many exist.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        found: list[Run] = []
        wrong: list[str] = []
        with self._one_picture():
            for row in self._find("list_newest_runs", limit):
                try:
                    found.append(rows.run_of(row))
                except StoreError as error:
                    wrong.append(f"run {row['run_id']}: its row cannot be read: {error}")
            (counted,) = self._find("count_runs")
        return found, wrong, int(counted["runs"])

    def search_runs(
        self, search: RunSearch, *, is_known: Callable[[Mark], bool] | None = None
    ) -> RunPage:
        """See `Store.search_runs`."""
        with self._one_picture():
            return records.search_runs(self._tables, self._reader, search, is_known=is_known)

    def read_picture(self, run_id: RunId, *, tenant: TenantId) -> RunPicture:
        """See `Store.read_picture`."""
        with self._one_picture():
            return records.read_picture(self._tables, self._reader, run_id, tenant=tenant)

    def read_mark(self, run_id: RunId, *, tenant: TenantId) -> Mark | None:
        """See `Store.read_mark`."""
        try:
            return records.read_mark(self._tables, self._reader, run_id, tenant=tenant)
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def list_judged(
        self, *, tenant: TenantId, since_ms: int, automation_id: AutomationId | None, limit: int
    ) -> Sequence[Judged]:
        """See `Store.list_judged`."""
        with self._one_picture():
            return records.list_judged(
                self._tables,
                self._reader,
                tenant=tenant,
                since_ms=since_ms,
                automation_id=automation_id,
                limit=limit,
            )

    def list_events(
        self,
        run_id: RunId,
        *,
        tenant: TenantId,
        after_seq: int,
        limit: int,
        as_stored: bool = False,
    ) -> Sequence[LifecycleEvent]:
        """See `Store.list_events`."""
        run, found = self._events_of(run_id, tenant, after_seq, limit)
        profile = None if as_stored else run.effective_execution_profile
        return [rows.event_of(row, profile) for row in found]

    def _events_of(
        self, run_id: RunId, tenant: TenantId, after_seq: int, limit: int
    ) -> tuple[Run, Found]:
        with self._one_picture():
            run = self.find_run(run_id, tenant=tenant)
            if run is None:
                raise NotFound(f"there is no run {run_id}")
            found = self._find("list_events", run.run_no, after_seq, limit)
            packed = self._tables.packed(self._reader, run).get("lifecycle_event", ())
        return run, [*(row for row in packed if row["seq"] > after_seq), *found][:limit]

    def list_event_records(
        self, run_id: RunId, *, tenant: TenantId, after_seq: int, limit: int
    ) -> Sequence[EventRecord]:
        """See `Store.list_event_records`."""
        run, found = self._events_of(run_id, tenant, after_seq, limit)
        return [_event_record(run, row) for row in found]

    def list_events_after(self, position: int, chosen: EventFilter, *, limit: int) -> EventPage:
        """See `Store.list_events_after`."""
        with self._one_picture():
            tail = self.find_event_tail()
            if chosen.run_id is None:
                found = self._find("list_events_after", position, limit)
            else:
                found = self._events_of_run_after(position, chosen.run_id, limit)
            runs = {row["run_no"]: None for row in found}
            told = {
                run_no: rows.run_of(row)
                for run_no in runs
                for row in self._find("find_run_told", run_no)
            }
        records = [
            _event_record(run, row)
            for row in found
            if (run := told[row["run_no"]]).tenant == (chosen.tenant or run.tenant)
            and run.automation_id == (chosen.automation_id or run.automation_id)
        ]
        is_last = len(found) < limit
        # Nobody wrote in between: all of it was read as one picture.
        return EventPage(
            records=records,
            position=max(tail.position, position) if is_last else int(found[-1]["cursor"]),
            is_last=is_last,
            is_expired=chosen.run_id is None and position < tail.packed_to,
        )

    def _events_of_run_after(self, position: int, run_id: RunId, limit: int) -> Found:
        found: Found = []
        for row in self._find("find_run_by_id", run_id):
            run = rows.run_of(row)
            packed = self._tables.packed(self._reader, run).get("lifecycle_event", ())
            found += [row for row in packed if row["cursor"] > position]
            found += self._find("list_events_of_run_after", run.run_no, position, limit)
        return found[:limit]

    def find_event_tail(self) -> EventTail:
        """See `Store.find_event_tail`."""
        (row,) = self._find("find_event_tail")
        return msgspec.convert(row, EventTail)

    def list_attempts(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Attempt]:
        """See `Store.list_attempts`."""
        with self._one_picture():
            view = self._tables.load(self._reader, run_id, tenant)
            run_no = view.run.run_no
            first = rows.attempt_no(run_no, 0, 0)
            found = self._find("list_attempts", first, rows.attempt_no(run_no + 1, 0, 0) - 1)
            found = [*self._tables.packed(self._reader, view.run).get("attempt", ()), *found]
        node_ids = [node.node_id for node in view.plan.nodes]
        return [rows.attempt_of(row, run_id, node_ids) for row in found]

    def list_artifacts(self, run_id: RunId, *, tenant: TenantId) -> Sequence[NodeArtifact]:
        """See `Store.list_artifacts`."""
        run = self.find_run(run_id, tenant=tenant)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        try:
            return self._tables.artifacts_of(self._reader, run.run_no)
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def is_attempt_running(self, run_no: int, attempt: Attempt) -> bool:
        """See `Store.is_attempt_running`."""
        values = (rows.node_run_id(run_no, attempt.node_no), attempt.number)
        try:
            found = self._reader.execute(self._tables.sql["is_attempt_running"], values).fetchall()
        except apsw.Error as error:
            raise self._unreadable(error) from error
        return bool(found)

    def list_artifacts_of_node(self, run_no: int, node_no: int) -> Sequence[NodeArtifact]:
        """See `Store.list_artifacts_of_node`."""
        found = self._find("list_artifacts_of_node", run_no, node_no)
        return [rows.artifact_of(row) for row in found]

    def list_forks(self, run_id: RunId, *, tenant: TenantId, limit: int) -> Sequence[Run]:
        """See `Store.list_forks`."""
        return [rows.run_of(row) for row in self._find("list_forks", run_id, tenant, limit)]

    def is_artifact_used(self, digest: Digest, *, tenant: TenantId) -> bool:
        """See `Store.is_artifact_used`."""
        return bool(self._find("is_digest_used", digest, tenant))

    def list_gates(
        self,
        *,
        tenant: TenantId,
        status: GateStatus,
        run_id: RunId | None,
        limit: int,
        newest_first: bool = False,
        after: OpenGate | None = None,
    ) -> Sequence[OpenGate]:
        """See `Store.list_gates`."""
        if run_id is None and newest_first:
            last = after.gate if after is not None else None
            place = (_NUMBER_MAX, "") if last is None else (last.requested_at_ms, last.gate_id)
            found = self._find("list_newest_gates", status.value, tenant, *place, limit)
        elif run_id is None:
            found = self._find("list_gates", status.value, tenant, limit)
        else:
            found = self._find("list_gates_in_run", status.value, tenant, run_id, limit)
        return [
            OpenGate(
                run_id=RunId(row["of_run"]),
                automation_id=row["automation_id"],
                name=row["name"],
                run_status=RunState(row["run_status"]),
                started_by=row["started_by"],
                gate=rows.gate_of(_without_run(row)),
            )
            for row in found
        ]

    def list_gates_of_run(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Gate]:
        """See `Store.list_gates_of_run`."""
        run = self.find_run(run_id, tenant=tenant)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        return [rows.gate_of(row) for row in self._find("list_all_gates_of_run", run.run_no)]

    def list_waits(
        self, *, tenant: TenantId, limit: int, after: OpenWait | None = None
    ) -> Sequence[OpenWait]:
        """See `Store.list_waits`."""
        last = after.wait if after is not None else None
        place = (-1, "") if last is None else (last.registered_at_ms, last.wait_id)
        found = [
            row
            for status in OPEN_WAITS
            for row in self._find("list_waits", status.value, tenant, *place, limit)
        ]
        found.sort(key=lambda row: (row["registered_at_ms"], row["wait_id"]))
        return [
            OpenWait(
                run_id=RunId(row["of_run"]),
                automation_id=row["automation_id"],
                name=row["name"],
                run_status=RunState(row["run_status"]),
                wait=rows.wait_of(_without_run(row)),
            )
            for row in found[:limit]
        ]

    def find_woken_wait(
        self, run_id: RunId, idempotency_key: str, *, tenant: TenantId
    ) -> Wait | None:
        """See `Store.find_woken_wait`."""
        with self._one_picture():
            run = self.find_run(run_id, tenant=tenant)
            return self._tables.woken_wait(self._reader, run, idempotency_key) if run else None

    def list_open_signals(self, *, limit: int) -> Sequence[int]:
        """See `Store.list_open_signals`."""
        return [row["signal_no"] for row in self._find("list_open_signals", 0, limit)]

    def list_due(self, *, now_ms: int, limit: int) -> Sequence[tuple[TenantId, RunId]]:
        """See `Store.list_due`."""
        found = self._find("list_due", now_ms, limit)
        return [(TenantId(row["tenant"]), RunId(row["run_id"])) for row in found]

    def next_due_at_ms(self) -> int | None:
        """See `Store.next_due_at_ms`."""
        found = self._find("next_due")
        return int(found[0]["due_at_ms"]) if found else None

    # Waiting

    def read_standing(self, run_id: RunId, *, tenant: TenantId, now_ms: int) -> Standing:
        """See `Store.read_standing`."""
        with self._one_picture():
            return read_standing(self._tables, self._reader, run_id, tenant=tenant, now_ms=now_ms)

    def read_queue(self, *, now_ms: int) -> Queue:
        """See `Store.read_queue`."""
        with self._one_picture():
            return read_queue(self._tables, self._reader, now_ms=now_ms)

    def count_driven(self) -> Mapping[EngineId, int]:
        """See `Store.count_driven`."""
        found = self._find("count_driven_by_engine")
        return {EngineId(row["engine_id"]): row["runs"] for row in found}

    # Recovery

    async def fail_unreadable(
        self,
        run_id: RunId,
        *,
        tenant: TenantId,
        dead: EngineId,
        why: str,
        change_id: ChangeId,
        now_ms: int,
    ) -> Change:
        """See `Store.fail_unreadable`."""
        return await self._writer.submit(
            FailUnreadable(run_id, tenant, dead, why, change_id, now_ms)
        )

    def list_quiet(self, *, quiet_since_ms: int, limit: int) -> Sequence[Quiet]:
        """See `Store.list_quiet`."""
        found = self._find("list_quiet", quiet_since_ms, limit)
        return [msgspec.convert(row, Quiet) for row in found]

    def list_reaped(
        self, *, reaped_since_ms: int, attempts_max: int, limit: int
    ) -> Sequence[tuple[TenantId, RunId]]:
        """See `Store.list_reaped`."""
        found = self._find("list_reaped", reaped_since_ms, attempts_max, limit)
        return [(TenantId(row["tenant"]), RunId(row["run_id"])) for row in found]

    # Engines

    async def put_engine(
        self, engine: EngineRow, *, active: Sequence[int] = (), now_ms: int = 0
    ) -> None:
        """See `Store.put_engine`."""
        await self._writer.submit(PutEngine(engine, tuple(active), now_ms))

    async def remove_engine(
        self, engine_id: EngineId, *, lease_until_ms: int | None = None
    ) -> None:
        """See `Store.remove_engine`."""
        await self._writer.submit(RemoveEngine(engine_id, lease_until_ms))

    def list_engines(self) -> Sequence[EngineRow]:
        """See `Store.list_engines`."""
        return [rows.engine_of(row) for row in self._find("list_engines")]

    def list_held(self, engine_id: EngineId) -> Sequence[Held]:
        """See `Store.list_held`."""
        return [msgspec.convert(row, Held) for row in self._find("list_held", engine_id)]

    async def changed_elsewhere(self) -> bool:
        """See `Store.changed_elsewhere`."""
        try:
            version = await self._writer.data_version()
        except (apsw.Error, StoreUnavailable):
            return True  # it cannot be told, so whoever asks has to look
        changed = version != self._data_version
        self._data_version = version
        return changed

    def document(self, view: RunView) -> bytes:
        """See `Store.document`."""
        run = view.run
        found = self._find("get_definition", run.tenant, run.definition_digest)
        if not found:
            raise NotFound(f"the definition {run.definition_digest} is not in the store")
        return bytes(found[0]["document"])

    def check(self) -> list[str]:
        """Return what SQLite's own integrity check finds wrong; empty when all is well."""
        try:
            found = fetch(self._reader, "PRAGMA integrity_check", ())
        except apsw.Error as error:
            return [f"the check came to no end: {error}"]
        return [text for row in found for text in row.values() if text != "ok"]


def _event_record(run: Run, row: Mapping[str, Any]) -> EventRecord:
    """Return an event with its state; before that was kept, the present one has to do."""
    return EventRecord(
        run=run,
        event=rows.event_of(row, run.effective_execution_profile),
        status=RunState(row["run_status"]) if row.get("run_status") else run.status,
    )


_OF_THE_RUN = ("of_run", "automation_id", "name", "run_status", "started_by")


def _without_run(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in _OF_THE_RUN}


def _prepare_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise StoreUnavailable(f"the store {path} is not a file")
        if not os.access(path.parent, os.W_OK):
            raise StoreUnavailable(
                f"the folder {path.parent} is not writable; set TANDEM_STATE_DIR to one that is"
            )
    except OSError as error:
        raise StoreUnavailable(
            f"cannot create the folder {path.parent}: {error.strerror}; "
            "set TANDEM_STATE_DIR to a folder that can be written"
        ) from error
    refuse_network_file_system(path.parent)
