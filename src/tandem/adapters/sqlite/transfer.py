"""Runs out of this store as portable lines, and back in."""

from collections.abc import Iterator
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sql import portable
from tandem.adapters.sql.portable import PortableDefinition, PortableRun, RunTable
from tandem.adapters.sqlite.archive import insert_row
from tandem.adapters.sqlite.tables import Found, Tables, fetch
from tandem.domain.change import Change
from tandem.domain.decision import decide
from tandem.domain.errors import Refused
from tandem.domain.ids import ChangeId, RunId
from tandem.domain.importing import next_to_rest
from tandem.domain.receipts import first_event
from tandem.domain.run import Run

RUNS_AT_ONCE: Final = 100
SOURCE_EXPORT: Final = "export"
_NOT_OF_RUNS: Final = frozenset(
    {"run", "archive_part", "workspace_lock", "provider_throttle", "learning_due"}
)
"""Tables that name runs but are no part of what a run is.

What is packed is exported as what it was. Locks are held by engines of this store; a throttle is
about a provider, and only remembers which run heard of it. Signals belong to their tenant and are
in none of these: what they woke is in the waits and events of the run. What is due to be learned
is learned where the run ended.
"""


class Imported(msgspec.Struct, frozen=True):
    """What became of one run: `imported`, `paused`, `same` or `differs`."""

    run_id: str
    outcome: str


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
    return f"SELECT * FROM {table.name} WHERE {table.key} BETWEEN ? AND ?"  # noqa: S608 # checked


def portable_run(
    tables: Tables, connection: apsw.Connection, row: dict[str, Any], of: list[RunTable]
) -> PortableRun:
    """Return one run as it is exported; what is packed belongs to it like everything else."""
    run_no = row["run_no"]
    packed = tables.archive.read(connection, run_no)
    found: dict[RunTable, Found] = {}
    for table in of:
        here = fetch(connection, select_of(table), table.range_of(run_no))
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
) -> Iterator[PortableDefinition | PortableRun]:
    """Yield every run, oldest first, each definition before the first run that needs it.

    The caller has begun a transaction, so this is one picture of the store.
    """
    of = run_tables(connection)
    given: set[tuple[str, str]] = set()
    after = 0
    while found := fetch(connection, tables.sql["list_runs_after"], (after, RUNS_AT_ONCE)):
        for row in found:
            after = row["run_no"]
            key = (row["tenant"], row["definition_digest"])
            if key not in given:
                given.add(key)
                yield from _definition(tables, connection, *key)
            yield portable_run(tables, connection, row, of)


def _definition(
    tables: Tables, connection: apsw.Connection, tenant: str, digest: str
) -> Iterator[PortableDefinition]:
    for row in fetch(connection, tables.sql["get_definition"], (tenant, digest)):
        document = bytes(row["document"]).decode()
        yield PortableDefinition(tenant=tenant, digest=digest, document=document)


class ImportRuns(msgspec.Struct, frozen=True, tag=True):
    """Write runs that another store exported; the result says what became of each.

    A run that is here already stays as it is. One that was alive there rests here.
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
        self._refuse_without_definition(tables, connection)
        for made in self.definitions:
            values = (made.tenant, made.digest, made.document.encode())
            connection.execute(tables.sql["put_definition"], values).fetchall()
        return [self._import(tables, connection, run, of, by_name) for run in self.runs]

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

    def _refuse_without_definition(self, tables: Tables, connection: apsw.Connection) -> None:
        given = {(made.tenant, made.digest) for made in self.definitions}
        for made in self.runs:
            key = (str(made.run["tenant"]), str(made.run["definition_digest"]))
            if key in given or fetch(connection, tables.sql["get_definition"], key):
                continue
            raise Refused(
                f"the export has no definition {key[1]} for its run {made.run['run_id']}; a line "
                "is missing",
                code="export_damaged",
            )

    def _import(
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
        insert_row(connection, "run", portable.run_row_for(made))
        run_no = int(fetch(connection, tables.sql["find_run_by_id"], (run_id,))[0]["run_no"])
        for name, values in made.rows.items():
            for value in values:
                insert_row(connection, name, portable.row_for(by_name[name], value, run_no))
        connection.execute(
            tables.sql["add_imported_run"],
            (run_no, made.digest, SOURCE_EXPORT, self.now_ms, b""),
        ).fetchall()
        rested = self._bring_to_rest(tables, connection, run_no)
        return Imported(run_id, "paused" if rested else "imported")

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
            fetch(connection, tables.sql["find_run_by_id"], (one.run_id,)) for one in result
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> list[Imported]:
        """See `Write`."""
        return unpack(raw, list[Imported])


def _compare(
    tables: Tables,
    connection: apsw.Connection,
    row: dict[str, Any],
    made: PortableRun,
    of: list[RunTable],
) -> str:
    """Say whether the run that is here is the one that comes, or came from it."""
    if fetch(connection, tables.sql["was_imported"], (row["run_no"], made.digest)):
        return "same"
    return "same" if portable_run(tables, connection, row, of).digest == made.digest else "differs"


class NewHistory(msgspec.Struct, frozen=True):
    """A run of the original engine as ours: created, then changed once to what it had become."""

    run: Run
    document: bytes
    change: Change
    source: str
    digest: str
    entry: bytes


class ImportHistories(msgspec.Struct, frozen=True, tag=True):
    """Write runs of the original engine; the result says what became of each."""

    histories: list[NewHistory]
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> list[Imported]:
        """See `Write`."""
        return [self._import(tables, connection, one) for one in self.histories]

    def _import(self, tables: Tables, connection: apsw.Connection, one: NewHistory) -> Imported:
        run_id = RunId(one.run.run_id)
        here = fetch(connection, tables.sql["find_run_by_id"], (run_id,))
        if here:
            known = fetch(connection, tables.sql["was_imported"], (here[0]["run_no"], one.digest))
            return Imported(run_id, "same" if known else "differs")
        run_no = tables.insert_run(connection, one.run, [first_event(one.run)], one.document)
        run = msgspec.structs.replace(one.change.run, run_no=run_no)
        change = msgspec.structs.replace(one.change, run=run)
        tables.write_history(connection, change)
        connection.execute(
            tables.sql["add_imported_run"],
            (run_no, one.digest, one.source, self.now_ms, one.entry),
        ).fetchall()
        return Imported(run_id, "paused" if run.finished_at_ms is None else "imported")

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: list[Imported] | None
    ) -> bool:
        """See `Write`."""
        return result is not None and all(
            fetch(connection, tables.sql["find_run_by_id"], (one.run_id,)) for one in result
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> list[Imported]:
        """See `Write`."""
        return unpack(raw, list[Imported])
