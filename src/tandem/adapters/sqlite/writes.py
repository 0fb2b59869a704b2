"""Writes as data: everything that may be asked of the writer, in this process or another."""

from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

import apsw
import msgspec

from tandem.adapters.sqlite.archive import Moved
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.adapters.sqlite.transfer import ImportHistories, ImportRuns
from tandem.domain.change import Change
from tandem.domain.command import Claim, Command
from tandem.domain.decision import decide
from tandem.domain.errors import EngineError
from tandem.domain.ids import ChangeId, EngineId, RunId, TenantId
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


class Claimed(NamedTuple):
    """A run that was claimed, ready to be driven, and the change that claimed it."""

    view: RunView
    change: Change


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
        view = tables.load(connection, self.run_id, self.tenant)
        change = decide(view, self.command, change_id=self.change_id, now_ms=self.now_ms)
        tables.bring_back(connection, view.run)
        tables.write(connection, change)
        return change

    def landed(self, tables: Tables, connection: apsw.Connection, result: Change | None) -> bool:
        """See `Write`."""
        return result is not None and tables.landed(connection, result)

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Change:
        """See `Write`."""
        return msgspec.msgpack.decode(raw, type=Change)


UNREADABLE_RUNS_MAX = 16
"""So many runs that cannot be read may be due before those that can."""


class ClaimRuns(msgspec.Struct, frozen=True, tag=True):
    """Claim up to `limit` due runs; the ids of their changes are made from `change_id`."""

    engine_id: EngineId
    limit: int
    own_only: bool
    now_ms: int
    change_id: ChangeId

    def perform(self, tables: Tables, connection: apsw.Connection) -> list[Claimed]:
        """See `Write`."""
        statement = tables.sql["list_claimable_own" if self.own_only else "list_claimable"]
        limit = self.limit + UNREADABLE_RUNS_MAX
        found = connection.execute(statement, (self.engine_id, self.now_ms, limit)).fetchall()
        # All are decided before the first is written: a refusal may not leave half a batch.
        claimed: list[Claimed] = []
        for (run_no,) in found:
            if len(claimed) == self.limit:
                break
            # A run whose definition is unreadable stays queued, and holds up nobody behind it.
            with suppress(EngineError):
                claimed.append(self._decide(tables, connection, run_no, len(claimed)))
        for view, change in claimed:
            tables.write(connection, change)
            view.apply(change)
        return claimed

    def _decide(
        self, tables: Tables, connection: apsw.Connection, run_no: Any, place: int
    ) -> Claimed:
        view = tables.load_by_no(connection, run_no)
        change_id = ChangeId(f"{self.change_id}-{place}") if place else self.change_id
        claim = Claim(engine_id=self.engine_id)
        return Claimed(view, decide(view, claim, change_id=change_id, now_ms=self.now_ms))

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


class PutEngine(msgspec.Struct, frozen=True, tag=True):
    """Write the row of an engine, or renew its lease."""

    engine: EngineRow

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        values = msgspec.structs.astuple(self.engine)
        run_statement(connection, tables.sql["put_engine"], values)

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
