"""The store on one SQLite file."""

import os
import stat
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sql.statements import load_statements
from tandem.adapters.sqlite.committer import Committer
from tandem.adapters.sqlite.connection import (
    migrate,
    open_connection,
    refuse_network_file_system,
)
from tandem.adapters.sqlite.turnstile import Turnstile
from tandem.domain.automation import parse_document
from tandem.domain.change import Change, NodeArtifact
from tandem.domain.command import Claim, Command, decide
from tandem.domain.errors import (
    ChangeRefused,
    EngineError,
    LeaseLost,
    NotFound,
    StoreUnavailable,
)
from tandem.domain.graph import Plan
from tandem.domain.ids import ChangeId, DefinitionDigest, EngineId, RunId, TenantId
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.run import Attempt, Gate, GateStatus, LifecycleEvent, Run
from tandem.domain.view import RunView
from tandem.ports.store import EngineRow, Held, NewRun, OpenGate, RunFilter

_PLANS_MAX = 256
_NUMBER_MAX = 2**62
_IN_STATUS = {
    "list_runs": "list_runs_of_status",
    "list_runs_of_automation": "list_runs_of_automation_in_status",
}

Found = list[dict[str, Any]]


class SqliteStore:
    """Rows of runs in one file. Writes go through the committer, reads have their own connection.

    `synchronous` is FULL: what was acknowledged is on disk. NORMAL survives a killed process but
    may lose the newest commits in a power cut; OFF is for simulation only.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str = "FULL",
        commit: Callable[[apsw.Connection], None] | None = None,
    ) -> None:
        self._path = path
        self._sql = load_statements()
        self._plans: OrderedDict[tuple[TenantId, DefinitionDigest], Plan] = OrderedDict()
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
            with turnstile.turn():
                writer = reopen()
                migrate(writer, path)
                self._reader = open_connection(path, synchronous=synchronous, read_only=True)
        except EngineError:
            turnstile.close()
            raise
        self._committer = Committer(writer, turnstile, reopen=reopen, commit=commit)
        self._data_version = self._read_data_version()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def committer(self) -> Committer:
        """The write path, for its counters."""
        return self._committer

    def close(self) -> None:
        """Close the file. Writes that still wait are refused."""
        self._reader.close()
        self._committer.close()

    # Writes

    async def create_run(self, new: NewRun, *, now_ms: int) -> Run:
        """See `Store.create_run`."""
        run = Run(
            run_id=new.run_id,
            tenant=new.tenant,
            automation_id=new.plan.automation.automation_id,  # type: ignore[arg-type] # NewType
            name=new.plan.automation.name or "",
            definition_digest=new.plan.digest,
            trigger_type=new.trigger_type,
            last_change_id=new.change_id,
            owner=new.owner,
            event_seq=1,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            due_at_ms=now_ms,
            inputs=dict(new.inputs),
            workspace=new.workspace,
            nodes_total=len(new.plan),
        )
        self._remember(new.tenant, new.plan)

        def write(connection: apsw.Connection) -> Run:
            return self._insert_run(connection, run, new.document)

        return await self._committer.submit(
            write, landed=lambda c: self._has_event(c, run.run_id, new.change_id, 1)
        )

    def _insert_run(self, connection: apsw.Connection, run: Run, document: bytes) -> Run:
        connection.execute(
            self._sql["put_definition"], (run.tenant, run.definition_digest, document)
        )
        inserted: list[Any] = connection.execute(
            self._sql["insert_run"],
            (
                run.run_id,
                run.tenant,
                run.automation_id,
                run.name,
                run.definition_digest,
                run.trigger_type,
                run.status.value,
                run.last_change_id,
                run.owner,
                run.created_at_ms,
                run.updated_at_ms,
                run.due_at_ms,
                msgspec.json.encode(run.inputs).decode(),
                run.workspace,
                run.nodes_total,
            ),
        ).fetchall()
        run.run_no = int(inserted[0][0])
        event = LifecycleEvent(
            seq=1,
            event=RunEvent.RUN_CREATED,
            recorded_at_ms=run.created_at_ms,
            change_id=run.last_change_id,
        )
        connection.execute(self._sql["add_event"], rows.event_row(run.run_no, event))
        return run

    def apply(self, change: Change) -> Awaitable[None]:
        """See `Store.apply`."""
        return self._committer.submit(
            lambda connection: self._write(connection, change),
            landed=lambda connection: self._landed(connection, change),
        )

    async def execute(
        self, run_id: RunId, command: Command, *, tenant: TenantId, change_id: ChangeId, now_ms: int
    ) -> Change:
        """See `Store.execute`."""
        seq = 0

        def write(connection: apsw.Connection) -> Change:
            nonlocal seq
            view = self._load(connection, run_id, tenant)
            change = decide(view, command, change_id=change_id, now_ms=now_ms)
            seq = change.events[0].seq
            self._write(connection, change)
            return change

        return await self._committer.submit(
            write, landed=lambda c: self._has_event(c, run_id, change_id, seq)
        )

    async def claim(
        self,
        engine_id: EngineId,
        *,
        limit: int,
        own_only: bool,
        now_ms: int,
        new_change_id: Callable[[], ChangeId],
    ) -> Sequence[RunView]:
        """See `Store.claim`."""
        statement = self._sql["list_claimable_own" if own_only else "list_claimable"]
        claimed: list[tuple[RunView, Change]] = []

        def write(connection: apsw.Connection) -> Sequence[RunView]:
            claimed.clear()
            found = connection.execute(statement, (engine_id, now_ms, limit)).fetchall()
            # All are decided before the first is written: a refusal may not leave half a batch.
            for (run_no,) in found:
                row = _fetch(connection, self._sql["find_run_by_no"], (run_no,))[0]
                view = self._view(connection, rows.run_of(row))
                change = decide(
                    view, Claim(engine_id=engine_id), change_id=new_change_id(), now_ms=now_ms
                )
                claimed.append((view, change))
            for view, change in claimed:
                self._write(connection, change)
                view.apply(change)
            return [view for view, _ in claimed]

        return await self._committer.submit(
            write, landed=lambda c: all(self._landed(c, change) for _, change in claimed)
        )

    def _write(self, connection: apsw.Connection, change: Change) -> None:
        """Write one change. A refusal comes from the first statement and writes nothing."""
        execute, sql = connection.execute, self._sql
        run_no = change.run.run_no
        if change.moved:
            advanced = execute(sql["move_run"], rows.move_row(change)).fetchall()
        else:
            advanced = execute(sql["advance_run"], rows.advance_row(change)).fetchall()
        if not advanced:
            raise self._refusal(connection, change)
        for node in change.nodes:
            execute(sql["put_node_run"], rows.node_row(run_no, node))
        for attempt in change.attempts_ended:
            execute(sql["end_attempt"], rows.end_row(run_no, attempt))
        for attempt in change.attempts_started:
            execute(sql["start_attempt"], rows.start_row(run_no, attempt))
        for gate in change.gates:
            execute(sql["put_gate"], rows.gate_row(run_no, gate))
        for wait in change.waits:
            execute(sql["put_wait"], rows.wait_row(run_no, wait))
        for left in change.artifacts:
            ref = msgspec.json.encode(left.ref).decode()
            execute(sql["add_artifact"], (run_no, left.node_no, left.attempt, ref))
        for event in change.events:
            execute(sql["add_event"], rows.event_row(run_no, event))

    def _refusal(self, connection: apsw.Connection, change: Change) -> ChangeRefused | LeaseLost:
        run_id = change.run.run_id
        found = _fetch(connection, self._sql["find_run_by_no"], (change.run.run_no,))
        if not found or found[0]["epoch"] != change.epoch_before:
            return LeaseLost(f"run {run_id} is driven by another engine now; nothing was written")
        return ChangeRefused(f"run {run_id} has changed since it was read; nothing was written")

    def _landed(self, connection: apsw.Connection, change: Change) -> bool:
        return self._has_event(
            connection, change.run.run_id, change.change_id, change.events[0].seq
        )

    def _has_event(
        self, connection: apsw.Connection, run_id: RunId, change_id: ChangeId, seq: int
    ) -> bool:
        return bool(_fetch(connection, self._sql["has_event"], (run_id, change_id, seq)))

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
        try:
            self._reader.execute("BEGIN")
            try:
                return self._load(self._reader, run_id, tenant)
            finally:
                self._reader.execute("COMMIT")
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def _load(self, connection: apsw.Connection, run_id: RunId, tenant: TenantId) -> RunView:
        found = _fetch(connection, self._sql["find_run"], (run_id, tenant))
        if not found:
            raise NotFound(f"there is no run {run_id}; `tandem runs list` shows the ones there are")
        return self._view(connection, rows.run_of(found[0]))

    def _view(self, connection: apsw.Connection, run: Run) -> RunView:
        plan = self._plan(connection, run.tenant, run.definition_digest)
        first = rows.node_run_id(run.run_no, 0)
        last = rows.node_run_id(run.run_no + 1, 0) - 1
        return RunView(
            run,
            plan,
            map(rows.node_of, _fetch(connection, self._sql["list_node_runs"], (first, last))),
            map(rows.gate_of, _fetch(connection, self._sql["list_gates_of_run"], (run.run_no,))),
            map(rows.wait_of, _fetch(connection, self._sql["list_waits_of_run"], (run.run_no,))),
        )

    def _plan(
        self, connection: apsw.Connection, tenant: TenantId, digest: DefinitionDigest
    ) -> Plan:
        known = self._plans.get((tenant, digest))
        if known is not None:
            self._plans.move_to_end((tenant, digest))
            return known
        found = _fetch(connection, self._sql["get_definition"], (tenant, digest))
        if not found:
            raise NotFound(f"the definition {digest} is not in the store")
        plan = Plan(parse_document(found[0]["document"]), digest)
        self._remember(tenant, plan)
        return plan

    def _remember(self, tenant: TenantId, plan: Plan) -> None:
        self._plans[tenant, plan.digest] = plan
        if len(self._plans) > _PLANS_MAX:
            self._plans.popitem(last=False)

    # Reads

    def _find(self, name: str, *values: object) -> Found:
        try:
            return _fetch(self._reader, self._sql[name], values)
        except apsw.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: apsw.Error) -> StoreUnavailable:
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

    def list_events(
        self, run_id: RunId, *, tenant: TenantId, after_seq: int, limit: int
    ) -> Sequence[LifecycleEvent]:
        """See `Store.list_events`."""
        run = self.find_run(run_id, tenant=tenant)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        return [rows.event_of(r) for r in self._find("list_events", run.run_no, after_seq, limit)]

    def list_attempts(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Attempt]:
        """See `Store.list_attempts`."""
        view = self.read(run_id, tenant=tenant)
        run_no = view.run.run_no
        node_ids = [node.node_id for node in view.plan.nodes]
        first = rows.attempt_no(run_no, 0, 0)
        found = self._find("list_attempts", first, rows.attempt_no(run_no + 1, 0, 0) - 1)
        return [rows.attempt_of(row, run_id, node_ids) for row in found]

    def list_artifacts(self, run_id: RunId, *, tenant: TenantId) -> Sequence[NodeArtifact]:
        """Return what the attempts of a run left, oldest first."""
        run = self.find_run(run_id, tenant=tenant)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        found = self._find("list_artifacts_of_run", run.run_no)
        return [
            msgspec.convert({**row, "ref": msgspec.json.decode(row["ref"])}, NodeArtifact)
            for row in found
        ]

    def list_gates(
        self, *, tenant: TenantId, status: GateStatus, run_id: RunId | None, limit: int
    ) -> Sequence[OpenGate]:
        """See `Store.list_gates`."""
        if run_id is None:
            found = self._find("list_gates", status.value, tenant, limit)
        else:
            found = self._find("list_gates_in_run", status.value, tenant, run_id, limit)
        return [
            OpenGate(
                run_id=RunId(row["of_run"]),
                automation_id=row["automation_id"],
                name=row["name"],
                run_status=RunState(row["run_status"]),
                gate=_gate(row),
            )
            for row in found
        ]

    def list_due(self, *, now_ms: int, limit: int) -> Sequence[tuple[TenantId, RunId]]:
        """See `Store.list_due`."""
        found = self._find("list_due", now_ms, limit)
        return [(TenantId(row["tenant"]), RunId(row["run_id"])) for row in found]

    def next_due_at_ms(self) -> int | None:
        """See `Store.next_due_at_ms`."""
        found = self._find("next_due")
        return int(found[0]["due_at_ms"]) if found else None

    # Engines

    async def put_engine(self, engine: EngineRow) -> None:
        """See `Store.put_engine`."""
        values = msgspec.structs.astuple(engine)
        await self._committer.submit(
            lambda c: _run(c, self._sql["put_engine"], values),
            landed=lambda c: any(
                row["engine_id"] == engine.engine_id
                and row["lease_until_ms"] == engine.lease_until_ms
                for row in _fetch(c, self._sql["list_engines"], ())
            ),
        )

    async def remove_engine(self, engine_id: EngineId) -> None:
        """See `Store.remove_engine`."""
        await self._committer.submit(
            lambda c: _run(c, self._sql["remove_engine"], (engine_id,)),
            landed=lambda c: all(
                row["engine_id"] != engine_id for row in _fetch(c, self._sql["list_engines"], ())
            ),
        )

    def list_engines(self) -> Sequence[EngineRow]:
        """See `Store.list_engines`."""
        return [msgspec.convert(row, EngineRow) for row in self._find("list_engines")]

    def list_held(self, engine_id: EngineId) -> Sequence[Held]:
        """See `Store.list_held`."""
        return [msgspec.convert(row, Held) for row in self._find("list_held", engine_id)]

    async def changed_elsewhere(self) -> bool:
        """See `Store.changed_elsewhere`."""
        try:
            version = self._read_data_version()
        except apsw.Error:
            return True  # it cannot be told, so whoever asks has to look
        changed = version != self._data_version
        self._data_version = version
        return changed

    def _read_data_version(self) -> int:
        value: Any = self._committer.connection.execute("PRAGMA data_version").fetchall()[0][0]
        return int(value)

    def document(self, view: RunView) -> bytes:
        """See `Store.document`."""
        run = view.run
        found = self._find("get_definition", run.tenant, run.definition_digest)
        if not found:
            raise NotFound(f"the definition {run.definition_digest} is not in the store")
        return bytes(found[0]["document"])

    def check(self) -> list[str]:
        """Return what SQLite's own integrity check finds wrong; empty when all is well."""
        found = _fetch(self._reader, "PRAGMA integrity_check", ())
        return [text for row in found for text in row.values() if text != "ok"]


def _fetch(connection: apsw.Connection, sql: str, values: Sequence[Any]) -> Found:
    cursor = connection.execute(sql, values)
    # Columns are only known while the cursor is open; a statement without rows has none.
    found: Found = []
    names: list[str] | None = None
    for row in cursor:
        if names is None:
            names = [column[0] for column in cursor.get_description()]
        found.append(dict(zip(names, row, strict=True)))
    return found


def _run(connection: apsw.Connection, sql: str, values: Sequence[Any]) -> None:
    connection.execute(sql, values).fetchall()


def _gate(row: Mapping[str, Any]) -> Gate:
    hidden = ("of_run", "automation_id", "name", "run_status")
    return rows.gate_of({key: value for key, value in row.items() if key not in hidden})


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
