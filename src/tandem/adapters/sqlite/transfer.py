"""Runs out of this store as portable lines, and back in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sql import portable, rows
from tandem.adapters.sql.portable import PortableDefinition, PortableRun, RunTable
from tandem.adapters.sqlite.archive import insert_row
from tandem.adapters.sqlite.backlog import read_tasks
from tandem.adapters.sqlite.sessions import session_of
from tandem.adapters.sqlite.tables import Found, Tables, fetch, run_statement
from tandem.domain.backlog import TaskRecord
from tandem.domain.decision import decide
from tandem.domain.errors import EngineError, Refused, StoreError, StoreUnavailable
from tandem.domain.facts import RunFacts
from tandem.domain.ids import ChangeId, NodeId
from tandem.domain.importing import next_to_rest
from tandem.domain.json import decode, digest
from tandem.domain.run import Run
from tandem.domain.session import InstanceRow

RUNS_AT_ONCE: Final = 100
SOURCE_EXPORT: Final = "export"
BESIDE: Final = {
    "automation": "stored automations",
    "automation_event": "records of what happened to automations",
    "firing": "records of what schedules and triggers did",
    "review": "reviews of automations",
    "learning_candidate": "learning candidates",
    "learning_due": "ended runs that are still to be learned from",
    "signal": "signals",
    "consumed_handoff": "records of handoffs that were taken up",
    "webhook_trigger": "webhook triggers",
    "webhook_delivery": "webhook deliveries",
    "token": "tokens",
    "request_key": "idempotency keys of requests",
    "audit": "audit records",
}
"""What a store keeps beside its runs. An export is of runs, so it says how much of that stays."""

_NOT_OF_RUNS: Final = frozenset(
    {"run", "archive_part", "workspace_lock", "provider_throttle", *BESIDE}
)
"""Tables that name runs but are no part of what a run is.

What is packed is exported as what it was. Locks are held by engines of this store; a throttle is
about a provider, and only remembers which run heard of it. Signals belong to their tenant and are
in none of these: what they woke is in the waits and events of the run. What is due to be learned
is learned where the run ended. Occurrences, deliveries, handoffs and requests tell what became of
something that this store was asked for, once.
"""

LEFT_OUT: Final = "left_out"
_STRANGE: Final = (ValueError, TypeError, LookupError, ArithmeticError, AssertionError)
"""What reading rows raises that no engine has written."""
_STRANGE_ROWS: Final = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError)


class Imported(msgspec.Struct, frozen=True):
    """What became of one run: `imported`, `paused`, `renewed`, `same`, `differs` or `left_out`.

    `said` are sentences about what of it did not come in, and why.
    """

    run_id: str
    outcome: str
    said: tuple[str, ...] = ()


class LeftOut(msgspec.Struct, frozen=True):
    """What of a run an export does not hold, as a sentence."""

    said: str


def run_tables(connection: apsw.Connection) -> list[RunTable]:
    """Return the tables whose rows belong to runs, from the schema itself."""
    names: list[Any] = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' "
        "ORDER BY name"
    ).fetchall()
    found: list[RunTable] = []
    for (name,) in names:
        if name in _NOT_OF_RUNS:
            continue
        columns = fetch(connection, "SELECT * FROM pragma_table_info(?)", (name,))
        keys = sum(column["pk"] > 0 for column in columns)
        table = portable.table_of(
            name,
            [
                (column["name"], column["pk"] > 0 and keys == 1 and column["type"] == "INTEGER")
                for column in columns
            ],
        )
        if table is not None:
            found.append(table)
    return found


def _columns(connection: apsw.Connection, name: str) -> set[str]:
    found = fetch(connection, "SELECT name FROM pragma_table_info(?)", (name,))
    return {row["name"] for row in found}


def select_of(table: RunTable) -> str:
    """Return the statement that reads the rows of a run, in a fixed order."""
    for name in (table.name, table.key):
        if not name.isidentifier():
            raise ValueError(f"not a name of the schema: {name}")
    of = "tenant = ? AND run_id = ?" if table.key == "run_id" else f"{table.key} BETWEEN ? AND ?"
    return f"SELECT * FROM {table.name} WHERE {of}"  # noqa: S608 # checked


def portable_run(
    tables: Tables, connection: apsw.Connection, row: dict[str, Any], of: list[RunTable]
) -> PortableRun:
    """Return one run as it is exported; what is packed belongs to it like everything else."""
    run_no = row["run_no"]
    packed = tables.archive.read(connection, run_no)
    found: dict[RunTable, Found] = {}
    for table in of:
        here = fetch(connection, select_of(table), table.range_of(row))
        every = [*packed.get(table.name, ()), *here]
        if table.name == "imported_run":
            every = [one for one in every if one["source"] != SOURCE_EXPORT]
        found[table] = sorted(every, key=_order)
    return portable.seal_run(row, found)


def _order(row: dict[str, Any]) -> tuple[str, ...]:
    """Order rows by what is the same in every store: padded numbers and texts, as they come."""
    return tuple(
        f"{value:020d}" if isinstance(value, int) else str(value)
        for key, value in row.items()
        if key not in ("run_no", "cursor", "artifact_no")
    )


def export_runs(
    tables: Tables, connection: apsw.Connection
) -> Iterator[PortableDefinition | PortableRun | LeftOut]:
    """Yield every run, oldest first, each definition before the first run that needs it.

    The caller has begun a transaction, so this is one picture of the store. A run that cannot be
    read is left out; one whose definition cannot is there without it. Both are said.
    """
    of = run_tables(connection)
    given: dict[tuple[str, str], PortableDefinition | str] = {}
    after = 0
    while found := fetch(connection, tables.sql["list_runs_after"], (after, RUNS_AT_ONCE)):
        for row in found:
            after = row["run_no"]
            key = (row["tenant"], row["definition_digest"])
            if key not in given:
                made = given[key] = _definition(tables, connection, *key)
                if isinstance(made, PortableDefinition):
                    yield made
            if isinstance(wrong := given[key], str):
                yield LeftOut(f"run {row['run_id']}: {wrong}")
            try:
                yield portable_run(tables, connection, row, of)
            except (StoreError, *_STRANGE) as error:
                yield LeftOut(f"run {row['run_id']}: it cannot be read: {error}")


def _definition(
    tables: Tables, connection: apsw.Connection, tenant: str, wanted: str
) -> PortableDefinition | str:
    """Return a definition, or what is wrong with it."""
    what = "is missing"
    for row in fetch(connection, tables.sql["get_definition"], (tenant, wanted)):
        stored = row["document"]
        document = stored.encode() if isinstance(stored, str) else bytes(stored)
        if digest(document) == wanted:
            return PortableDefinition(tenant=tenant, digest=wanted, document=document.decode())
        what = "is damaged"
    return f"its definition {wanted} {what}; only a store that has it will take the run"


def count_beside(tables: Tables, connection: apsw.Connection) -> dict[str, int]:
    """Return how much there is of what a store keeps beside its runs, by what it is."""
    found: dict[str, int] = {}
    for table, what in BESIDE.items():
        (row,) = fetch(connection, f"SELECT count(*) AS rows FROM {table}", ())  # noqa: S608 # ours
        found[what] = row["rows"]
    (row,) = fetch(connection, tables.sql["count_stray_sessions"], ())
    found["sessions of no run"] = row["sessions"]
    return {what: number for what, number in found.items() if number}


class ImportRuns(msgspec.Struct, frozen=True, tag=True):
    """Write runs that another store exported; the result says what became of each.

    A run that is here already stays as it is. One that was alive there rests here. One that cannot
    be understood is left out, and all that was written of it; the others come in.
    """

    definitions: list[PortableDefinition]
    runs: list[PortableRun]
    change_id: ChangeId
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> list[Imported]:
        """See `Write`."""
        of = run_tables(connection)
        by_name = {table.name: table for table in of}
        self._refuse_unknown(connection, by_name)
        for made in self.definitions:
            values = (made.tenant, made.digest, made.document.encode())
            connection.execute(tables.sql["put_definition"], values).fetchall()
        return [self._take(tables, connection, run, of, by_name) for run in self.runs]

    def _refuse_unknown(self, connection: apsw.Connection, by_name: dict[str, RunTable]) -> None:
        """Refuse what a newer engine added: tables, and columns of those that are here."""
        given: dict[str, set[str]] = {"run": set()}
        for made in self.runs:
            given["run"].update(made.run)
            for name, found in made.rows.items():
                given.setdefault(name, set()).update(*found)
        unknown = [name for name in given if name != "run" and name not in by_name]
        unknown += [
            f"{name}.{column}"
            for name, columns in given.items()
            if name not in unknown
            for column in columns - _columns(connection, name) - portable.NUMBERS
        ]
        if unknown:
            raise Refused(
                f"the export has what this engine does not know: {', '.join(sorted(unknown))}; "
                "nothing of these runs was imported, use a newer engine",
                code="export_too_new",
            )

    def _take(
        self,
        tables: Tables,
        connection: apsw.Connection,
        made: PortableRun,
        of: list[RunTable],
        by_name: dict[str, RunTable],
    ) -> Imported:
        run_id = str(made.run["run_id"])
        here = fetch(connection, tables.sql["find_run_by_id"], (run_id,))
        if here:
            return Imported(run_id, _compare(tables, connection, here[0], made, of))
        key = (made.run["tenant"], made.run["definition_digest"])
        if not fetch(connection, tables.sql["get_definition"], key):
            said = f"run {run_id}: its definition {key[1]} is neither here nor whole in the export"
            return Imported(run_id, LEFT_OUT, (said,))
        try:
            with connection:  # a savepoint: nothing of a run stays that is left out
                taken = self._import(tables, connection, made, of, by_name)
        except StoreUnavailable:
            raise
        except (EngineError, *_STRANGE_ROWS, *_STRANGE) as error:
            said = f"run {run_id}: it cannot be understood: {_words(error)}"
            return Imported(run_id, LEFT_OUT, (said,))
        return taken

    def _import(
        self,
        tables: Tables,
        connection: apsw.Connection,
        made: PortableRun,
        of: list[RunTable],
        by_name: dict[str, RunTable],
    ) -> Imported:
        run_id = str(made.run["run_id"])
        insert_row(connection, "run", portable.run_row_for(made))
        (row,) = fetch(connection, tables.sql["find_run_by_id"], (run_id,))
        said: list[str] = []
        for name, values in made.rows.items():
            for value in values:
                whole = portable.row_for(by_name[name], value, row)
                refusal = _make_room(tables, connection, name, whole)
                if refusal:
                    said.append(refusal)
                else:
                    insert_row(connection, name, whole)
        _understand(tables, connection, row, of)
        connection.execute(
            tables.sql["add_imported_run"],
            (row["run_no"], made.digest, SOURCE_EXPORT, self.now_ms, b""),
        ).fetchall()
        rested = self._bring_to_rest(tables, connection, row["run_no"])
        return Imported(run_id, "paused" if rested else "imported", tuple(said))

    def _bring_to_rest(self, tables: Tables, connection: apsw.Connection, run_no: int) -> int:
        """Let a run that was alive rest; return how many changes that took."""
        view = tables.load_by_no(connection, run_no)
        number = 0
        while (command := next_to_rest(view.run)) is not None:
            number += 1
            change_id = ChangeId(f"{self.change_id}-{run_no}-{number}")
            change = decide(view, command, change_id=change_id, now_ms=self.now_ms)
            tables.write(connection, change)
            view.apply(change)
        return number

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: list[Imported] | None
    ) -> bool:
        """See `Write`."""
        return result is not None and all(
            fetch(connection, tables.sql["find_run_by_id"], (one.run_id,))
            for one in result
            if one.outcome != LEFT_OUT
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> list[Imported]:
        """See `Write`."""
        return unpack(raw, list[Imported])


def _words(error: Exception) -> str:
    match error:
        case KeyError():
            return f"{error} is missing"
        case EngineError() | ValueError() | apsw.Error():
            return str(error)
        case _:
            return f"{type(error).__name__}: {error}"


def _make_room(tables: Tables, connection: apsw.Connection, name: str, row: dict[str, Any]) -> str:
    """Make room for a session or an instance of a run that is new here; return why there is none.

    What was noted for the run before it came, or for no run at all, gives way; MCP servers that
    were given here stay. What belongs to another run is never touched.
    """
    if name == "instance":
        values = tuple(row[part] for part in ("tenant", "run_id", "instance_id"))
        run_statement(connection, tables.sql["clear_instance"], values)
    if name != "session":
        return ""
    for here in fetch(connection, tables.sql["find_session"], (row["tenant"], row["session_id"])):
        if here["run_id"] not in ("", row["run_id"]):
            return (
                f"session {row['session_id']} of run {row['run_id']}: it belongs to run "
                f"{here['run_id']} here, which keeps it"
            )
        row["mcp_servers"] = here["mcp_servers"] or row.get("mcp_servers")
        run_statement(connection, tables.sql["remove_session"], (here["session_no"],))
    return ""


_READERS: Final[Mapping[str, Callable[[dict[str, Any]], object]]] = {
    "artifact": rows.artifact_of,
    "backlog_event": lambda row: msgspec.convert(row, TaskRecord),
    "backlog_source": lambda row: msgspec.convert(row, _BacklogSource),
    "backlog_task": lambda row: read_tasks([row]),
    "gate": rows.gate_of,
    "imported_run": lambda row: decode(bytes(row["document"])),
    "instance": lambda row: msgspec.convert(row, InstanceRow),
    "lifecycle_event": lambda row: rows.event_of(row, None),
    "run_facts": lambda row: msgspec.json.decode(row["facts"], type=RunFacts),
    "session": session_of,
    "wait": rows.wait_of,
}
"""How the rows of each table are read; those of nodes and attempts need the definition, too."""


class _BacklogSource(msgspec.Struct):
    node_no: int
    attempt: int
    problem: str


def _understand(
    tables: Tables, connection: apsw.Connection, row: dict[str, Any], of: list[RunTable]
) -> None:
    """Read everything of a run once, so that nothing is kept that stops whoever reads it later.

    Raises:
        ValueError: something of it cannot be read.
    """
    run = rows.run_of(row)
    try:
        nodes = [
            node.node_id
            for node in tables.plan(connection, run.tenant, run.definition_digest).nodes
        ]
    except StoreError:
        nodes = None  # a run that has ended may be history; one that is alive is not taken
    for table in of:
        for found in fetch(connection, select_of(table), table.range_of(row)):
            try:
                if table.name in ("node_run", "attempt"):
                    _read_node(table, found, run, nodes)
                elif read := _READERS.get(table.name):
                    read(found)
            except (StoreError, *_STRANGE) as error:
                raise ValueError(f"a row of {table.name}: {_words(error)}") from error


def _read_node(
    table: RunTable, row: dict[str, Any], run: Run, nodes: Sequence[NodeId] | None
) -> None:
    node_no = portable.node_no_of(table, row)
    if nodes is not None and node_no >= len(nodes):
        raise ValueError(f"it is of node number {node_no}, and there are {len(nodes)} nodes")
    if table.name == "node_run":
        rows.node_of(row)
    else:
        rows.attempt_of(row, run.run_id, {node_no: NodeId("")})


def _compare(
    tables: Tables,
    connection: apsw.Connection,
    row: dict[str, Any],
    made: PortableRun,
    of: list[RunTable],
) -> str:
    """Say whether the run that is here is the one that comes, or came from it.

    An export that tells no sessions may be of an engine that never told them: it denies none.
    """
    if fetch(connection, tables.sql["was_imported"], (row["run_no"], made.digest)):
        return "same"
    told = [table for table in of if table.key != "run_id" or table.name in made.rows]
    here = portable_run(tables, connection, row, told).digest
    if here in (made.digest, portable.digest_of(_as_of_now(connection, made, of))):
        return "same"
    return "differs"


def _as_of_now(connection: apsw.Connection, made: PortableRun, of: list[RunTable]) -> PortableRun:
    """Return a run with what its rows would have in columns that came after its export."""
    found: dict[str, list[dict[str, Any]]] = {}
    for table in of:
        if table.name in made.rows:
            defaults = _defaults(connection, table.name, table.not_exported)
            found[table.name] = [{**defaults, **row} for row in made.rows[table.name]]
    run = {**_defaults(connection, "run", portable.STORE_ONLY), **made.run}
    return PortableRun(run=run, rows=found)


def _defaults(connection: apsw.Connection, table: str, left_out: frozenset[str]) -> dict[str, Any]:
    columns = fetch(connection, "SELECT name, dflt_value FROM pragma_table_info(?)", (table,))
    return {
        column["name"]: _value_of(connection, column["dflt_value"])
        for column in columns
        if column["name"] not in left_out
    }


def _value_of(connection: apsw.Connection, default: str | None) -> Any:
    if default is None:
        return None
    found: list[Any] = connection.execute(f"SELECT {default}").fetchall()  # ours
    return found[0][0]
