"""Writes as data: everything that may be asked of the writer, in this process or another."""

from typing import Any, Protocol, TypeVar

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sqlite.admitting import AdmissionPass, Claimed, wake_free
from tandem.adapters.sqlite.archive import Moved
from tandem.adapters.sqlite.signals import Deliver, ForgetSignals, catch_up
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.adapters.sqlite.transfer import ImportHistories, ImportRuns
from tandem.domain import forking
from tandem.domain.admission import Claimant
from tandem.domain.change import Change
from tandem.domain.command import Command, DecideGate, NoteFork
from tandem.domain.decision import decide
from tandem.domain.deletion import refuse_deletion
from tandem.domain.ids import ChangeId, Digest, EngineId, NodeId, RunId, TenantId
from tandem.domain.lost import fail_unreadable
from tandem.domain.run import Gate, NodeRun, Run, Wait
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
        """
        ...

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> T_co:
        """Read the result that a writer in another process sent."""
        ...


class Create(msgspec.Struct, frozen=True, tag=True):
    """Write a new run with its definition; the result is its number."""

    run: Run
    document: bytes

    def perform(self, tables: Tables, connection: apsw.Connection) -> int:
        """See `Write`."""
        return tables.insert_run(connection, self.run, self.document)

    def landed(self, tables: Tables, connection: apsw.Connection, result: int | None) -> bool:
        """See `Write`."""
        run = self.run
        return result is not None and tables.has_event(
            connection, run.run_id, run.last_change_id, 1
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> int:
        """See `Write`."""
        return msgspec.msgpack.decode(raw, type=int)


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
    """Load a run, decide a command on it and write; the result is the change."""

    run_id: RunId
    tenant: TenantId
    command: Command
    change_id: ChangeId
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> Change:
        """See `Write`."""
        late = isinstance(self.command, DecideGate)
        view = tables.load(connection, self.run_id, self.tenant, settled_gates=late)
        change = decide(view, self.command, change_id=self.change_id, now_ms=self.now_ms)
        tables.write(connection, change)
        catch_up(tables, connection, change, self.now_ms)
        return change

    def landed(self, tables: Tables, connection: apsw.Connection, result: Change | None) -> bool:
        """See `Write`."""
        return result is not None and tables.landed(connection, result)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Change:
        """See `Write`."""
        return msgspec.msgpack.decode(raw, type=Change)


class ForkRun(msgspec.Struct, frozen=True, tag=True):
    """Write a new run that begins with outputs of another one, and note it on both.

    `inputs` are those that get another value; the others are the source's. The result is the new
    run.
    """

    source: RunId
    tenant: TenantId
    node_id: NodeId
    fork: RunId
    inputs: dict[str, Any]
    asks_again: bool
    owner: EngineId | None
    reason: str
    change_id: ChangeId
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> Run:
        """See `Write`; everything is decided before the first statement that writes."""
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
        tables.write(connection, noted)
        change.run.run_no = tables.insert_run(connection, run, document)
        tables.insert_fork(connection, change.run, change)
        return change.run

    def landed(self, tables: Tables, connection: apsw.Connection, result: Run | None) -> bool:
        """See `Write`."""
        return result is not None and tables.has_event(connection, self.fork, self.change_id, 1)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Run:
        """See `Write`."""
        return msgspec.msgpack.decode(raw, type=Run)


class DeleteRun(msgspec.Struct, frozen=True, tag=True):
    """Delete an ended run; the result are the artifacts to which nothing refers any more."""

    run_id: RunId
    tenant: TenantId

    def perform(self, tables: Tables, connection: apsw.Connection) -> list[Digest]:
        """See `Write`."""
        run = tables.run(connection, self.run_id, self.tenant)
        refuse_deletion(run)
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
        return msgspec.msgpack.decode(raw, type=list[Digest])


class ClaimRuns(msgspec.Struct, frozen=True, tag=True):
    """Claim up to `limit` due runs; the ids of their changes are made from `change_id`."""

    claimant: Claimant
    limit: int
    now_ms: int
    change_id: ChangeId

    def perform(self, tables: Tables, connection: apsw.Connection) -> list[Claimed]:
        """See `Write`. What may refuse a run is known before anything is written of it."""
        admission = AdmissionPass(tables, connection, self.claimant, now_ms=self.now_ms)
        return admission.run(limit=self.limit, change_id=self.change_id)

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: list[Claimed] | None
    ) -> bool:
        """See `Write`."""
        return result is not None and all(tables.landed(connection, change) for _, change in result)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> list[Claimed]:
        """See `Write`; the plans come from this process."""
        return [
            Claimed(parts.view(tables, connection), change)
            for parts, change in msgspec.msgpack.decode(raw, type=list[tuple[_ViewParts, Change]])
        ]


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
        return msgspec.msgpack.decode(raw, type=Moved)


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
        return msgspec.msgpack.decode(raw, type=int)


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
        return msgspec.msgpack.decode(raw, type=Change)


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

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        run_statement(connection, tables.sql["remove_engine"], (self.engine_id,))

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
        return msgspec.msgpack.decode(raw, type=int)


AnyWrite = (
    Create
    | Apply
    | Execute
    | ClaimRuns
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
)


def data_version(connection: apsw.Connection) -> int:
    """Return a number that changes when another connection has written to the file."""
    value: Any = connection.execute("PRAGMA data_version").fetchall()[0][0]
    return int(value)


class _ViewParts(msgspec.Struct, frozen=True, array_like=True):
    run: Run
    nodes: list[NodeRun]
    gates: list[Gate]
    waits: list[Wait]

    def view(self, tables: Tables, connection: apsw.Connection) -> RunView:
        plan = tables.plan(connection, self.run.tenant, self.run.definition_digest)
        return RunView(self.run, plan, self.nodes, self.gates, self.waits)


def _view_parts(value: object) -> object:
    if not isinstance(value, RunView):
        raise NotImplementedError(f"{type(value).__name__} is no part of a result")
    return _ViewParts(
        value.run,
        list(value.nodes.values()),
        list(value.gates.values()),
        list(value.waits.values()),
    )


_result_encoder = msgspec.msgpack.Encoder(enc_hook=_view_parts)


def encode_result(result: object) -> bytes:
    """Write what `perform` returned as bytes for `receive`."""
    return _result_encoder.encode(result)
