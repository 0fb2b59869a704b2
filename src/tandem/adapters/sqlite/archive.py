"""Old runs, packed: the rows of a run that has ended move into compressed parts, and back.

The row of the run itself stays, so lists never change. Rows move a bounded number at a time; each
is in its table or in exactly one part, and a reader puts both together, so a move that stops half
way leaves nothing to repair (W-19, W-20).
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.domain.errors import StoreError

PART_BYTES_MAX: Final = 256 * 1024
"""Rows are taken for one part until they have this size; one larger row is a part of its own."""
RUNS_AT_ONCE_MAX: Final = 50

_LEVEL = 3
_KEYS: Final = {
    "node_run": "node_run_id",
    "attempt": "attempt_no",
    "lifecycle_event": "seq",
    "wait": "wait_id",
}
"""What is packed, and what orders its rows within a run."""

Found = list[dict[str, Any]]
Packed = Mapping[str, Found]


class Moved(msgspec.Struct, frozen=True):
    """What one step moved: how many rows, and the parts it made as run number and part number."""

    rows: int
    parts: list[tuple[int, int]]
    runs_done: int


class _Table(msgspec.Struct):
    columns: list[str]
    values: list[list[Any]]


def pack(content: Mapping[str, Found]) -> bytes:
    """Write rows as one part."""
    tables = {
        name: _Table(list(found[0]), [list(row.values()) for row in found])
        for name, found in content.items()
        if found
    }
    return zlib.compress(msgspec.msgpack.encode(tables), _LEVEL)


def unpack(parts: Iterable[bytes]) -> Packed:
    """Read the rows of all parts of a run, each table in its own order."""
    content: dict[str, Found] = {name: [] for name in _KEYS}
    for part in parts:
        tables = msgspec.msgpack.decode(zlib.decompress(part), type=dict[str, _Table])
        for name, table in tables.items():
            content[name] += [dict(zip(table.columns, row, strict=True)) for row in table.values]
    for name, key in _KEYS.items():
        content[name].sort(key=lambda row, key=key: row[key])  # type: ignore[misc] # bound at once
    return content


class Archive:
    """Moves rows between their tables and the parts. It holds no connection."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    def read(self, connection: apsw.Connection, run_no: int) -> Packed:
        """Return what of a run is packed; empty tables when nothing is.

        Raises:
            StoreError: it is damaged.
        """
        found: list[Any] = connection.execute(self._sql["list_archive_parts"], (run_no,)).fetchall()
        try:
            return unpack(bytes(part) for _, part in found)
        except (zlib.error, ValueError, TypeError) as error:
            raise StoreError(
                f"the packed rows of run number {run_no} cannot be read: {error}; they are damaged"
            ) from error

    def move_in(
        self, connection: apsw.Connection, *, before_ms: int, rows_max: int, now_ms: int
    ) -> Moved:
        """Pack up to `rows_max` rows of runs that ended and did not change since `before_ms`."""
        values = (before_ms, RUNS_AT_ONCE_MAX)
        chosen: list[Any] = connection.execute(self._sql["list_retired"], values).fetchall()
        moved, done = 0, 0
        parts: list[tuple[int, int]] = []
        for (run_no,) in chosen:
            taken, is_all = self._take(connection, run_no, rows_max - moved)
            count = sum(map(len, taken.values()))
            if count:
                parts.append((run_no, self._add_part(connection, run_no, taken)))
                moved += count
            if not is_all:
                break
            connection.execute(self._sql["mark_archived"], (now_ms, run_no)).fetchall()
            done += 1
        return Moved(moved, parts, done)

    def _take(
        self, connection: apsw.Connection, run_no: int, rows_max: int
    ) -> tuple[dict[str, Found], bool]:
        """Remove rows of a run from their tables; say whether these were the last ones."""
        taken: dict[str, Found] = {}
        room, size = rows_max, 0
        for name, key in _KEYS.items():
            first, last = _range(name, run_no)
            found = self._rows(connection, f"take_{name}", (first, last, room + 1))
            chosen: Found = []
            for row in found[:room]:
                if size >= PART_BYTES_MAX:
                    break
                chosen.append(row)
                size += _size(row)
            if chosen:
                taken[name] = chosen
                values = (first, last, chosen[-1][key])
                connection.execute(self._sql[f"drop_{name}"], values).fetchall()
                if name == "lifecycle_event":
                    newest = max(row["cursor"] for row in chosen)
                    connection.execute(self._sql["note_packed"], (newest,)).fetchall()
                room -= len(chosen)
            if len(chosen) < len(found):
                return taken, False
        return taken, True

    def _rows(self, connection: apsw.Connection, name: str, values: tuple[Any, ...]) -> Found:
        cursor = connection.execute(self._sql[name], values)
        found: Found = []
        names: list[str] = []
        for row in cursor:
            names = names or [column[0] for column in cursor.get_description()]
            found.append(dict(zip(names, row, strict=True)))
        return found

    def _add_part(self, connection: apsw.Connection, run_no: int, taken: Packed) -> int:
        made: list[Any] = connection.execute(
            self._sql["add_archive_part"], (run_no, pack(taken), run_no)
        ).fetchall()
        return int(made[0][0])

    def move_out(self, connection: apsw.Connection, run_no: int) -> None:
        """Put every packed row of a run back into its table, as it was."""
        for name, found in self.read(connection, run_no).items():
            for row in found:
                insert_row(connection, name, row)
        connection.execute(self._sql["remove_archive_parts"], (run_no,)).fetchall()
        connection.execute(self._sql["mark_archived"], (None, run_no)).fetchall()

    def has_part(self, connection: apsw.Connection, run_no: int, part: int) -> bool:
        """Say whether a part is there."""
        found = connection.execute(self._sql["list_archive_parts"], (run_no,)).fetchall()
        return part in {number for number, _ in found}


def insert_row(connection: apsw.Connection, table: str, row: Mapping[str, Any]) -> None:
    """Insert a whole row; columns that it does not have get their defaults.

    Raises:
        ValueError: a name is not one of a column.
    """
    names = list(row)
    if not all(name.isidentifier() for name in (table, *names)):
        raise ValueError(f"not the columns of a table: {names}")
    places = ", ".join("?" * len(names))
    connection.execute(
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})",  # noqa: S608 # checked
        tuple(row.values()),
    ).fetchall()


def _range(table: str, run_no: int) -> tuple[int, int]:
    """Return the first and the last key that rows of a run may have."""
    match table:
        case "node_run":
            return rows.node_run_id(run_no, 0), rows.node_run_id(run_no + 1, 0) - 1
        case "attempt":
            return rows.attempt_no(run_no, 0, 0), rows.attempt_no(run_no + 1, 0, 0) - 1
        case _:
            return run_no, run_no


def _size(row: Mapping[str, Any]) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str | bytes))
