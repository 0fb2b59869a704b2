"""A run as one JSON line that any store can read: every column of every row that belongs to it.

Numbers that only one store knows (of runs, rows, cursors) are left out or written as node and
attempt numbers. What a later version adds to a table is carried along without being named here.
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tandem.adapters.sql.rows import ATTEMPT_BITS, NODE_BITS, attempt_no, node_run_id
from tandem.domain.errors import Refused
from tandem.domain.json import canonical, digest
from tandem.domain.name import ID_RULE, is_id

FORMAT: Final = "tandem-export"
VERSION: Final = 1

_NODE_MASK = (1 << NODE_BITS) - 1
_ATTEMPT_MASK = (1 << ATTEMPT_BITS) - 1
STORE_ONLY: Final = frozenset({"run_no", "archived_at_ms", "lane", "owner"})
"""Columns of a run that say where a store keeps it and for which of its engines, not what it is.

`lane` is computed from others. Another store has no engine that could be the owner.
"""

NUMBERS: Final = frozenset({"node_no", "number"})
"""What stands in a portable row for a number that only one store knows."""

NAMES: Final = ("tenant", "run_id")
"""What rows have that belong to a run by its name, and not by its number."""

_NUMBER_MIN: Final = -(2**63)
_NUMBER_MAX: Final = 2**63 - 1

Row = Mapping[str, Any]


class PortableRun(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """A run: its row, and by table the rows that belong to it. `digest` covers the other fields."""

    run: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]
    digest: str = ""


class PortableDefinition(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="definition"
):
    """A version of an automation, before the first run that executes it."""

    tenant: str
    digest: str
    document: str


class PortableContent(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="content"):
    """The bytes of a large output, base64."""

    tenant: str
    digest: str
    content: str


class Header(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="header"):
    """The first line."""

    format: str
    version: int
    exported_at_ms: int = 0


class End(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="end"):
    """The last line: what came before it, and the SHA-256 over all of that."""

    runs: int
    definitions: int
    contents: int
    digest: str


Line = Header | PortableDefinition | PortableRun | PortableContent | End
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class RunTable(msgspec.Struct, frozen=True):
    """A table whose rows belong to runs. `surrogate` is a key that only this store knows.

    `key` is the column that says whose a row is; with `run_id` its tenant does, too.
    """

    name: str
    key: str
    surrogate: str | None

    @property
    def not_exported(self) -> frozenset[str]:
        """The columns that follow from the run, or that only this store knows."""
        of_run = NAMES if self.key == "run_id" else ("run_no", self.key)
        return frozenset((*of_run, self.surrogate or self.key))

    def range_of(self, run: Row) -> tuple[Any, Any]:
        """Return the first and the last key that the rows of a run may have, or its names."""
        run_no = run["run_no"]
        match self.key:
            case "run_id":
                return run["tenant"], run["run_id"]
            case "node_run_id":
                return node_run_id(run_no, 0), node_run_id(run_no + 1, 0) - 1
            case "attempt_no":
                return attempt_no(run_no, 0, 0), attempt_no(run_no + 1, 0, 0) - 1
            case _:
                return run_no, run_no


def table_of(name: str, columns: Sequence[tuple[str, bool]]) -> RunTable | None:
    """Return how the rows of a table belong to runs, None when they do not.

    Args:
        name: of the table.
        columns: the name of each, and whether it is the whole integer primary key.
    """
    names = [column for column, _ in columns]
    for key in ("attempt_no", "node_run_id", "run_no", "run_id"):
        if key in names:
            numbers = [column for column, is_number in columns if is_number and column != key]
            return RunTable(name, key, numbers[0] if numbers else None)
    return None


def seal_run(run: Row, found: Mapping[RunTable, Sequence[Row]]) -> PortableRun:
    """Return a run as it is exported, with its digest."""
    made = PortableRun(
        run={key: _plain(value) for key, value in run.items() if key not in STORE_ONLY},
        rows={
            table.name: [_without_numbers(table, row) for row in rows]
            for table, rows in sorted(found.items(), key=lambda item: item[0].name)
            if rows
        },
    )
    return msgspec.structs.replace(made, digest=digest_of(made))


def digest_of(made: PortableRun) -> str:
    return digest(canonical([made.run, made.rows]))


def _without_numbers(table: RunTable, row: Row) -> dict[str, Any]:
    left_out = table.not_exported
    values = {key: _plain(value) for key, value in row.items() if key not in left_out}
    if table.key in ("node_run_id", "attempt_no"):
        values["node_no"] = node_no_of(table, row)
    if table.key == "attempt_no":
        values["number"] = row["attempt_no"] & _ATTEMPT_MASK
    return values


def node_no_of(table: RunTable, row: Row) -> int:
    """Return the node that a row of this store belongs to by its key."""
    key = int(row[table.key])
    return (key if table.key == "node_run_id" else key >> ATTEMPT_BITS) & _NODE_MASK


def row_for(table: RunTable, values: Row, run: Row) -> dict[str, Any]:
    """Return a row of a portable run as this store keeps it; `run` is the row of the run here.

    Raises:
        ValueError: it claims a place that only this store can give.
    """
    if foreign := table.not_exported & values.keys():
        raise ValueError(f"a row of {table.name} has `{min(foreign)}`, which no export has")
    row = {key: _stored(value) for key, value in values.items()}
    run_no = run["run_no"]
    match table.key:
        case "run_id":
            return {**{name: run[name] for name in NAMES}, **row}
        case "node_run_id":
            return {"node_run_id": node_run_id(run_no, _take_node(table, row)), **row}
        case "attempt_no":
            node_no = _take_node(table, row)
            number = _take(table, row, "number", _ATTEMPT_MASK)
            return {"attempt_no": attempt_no(run_no, node_no, number), **row}
        case _:
            return {"run_no": run_no, **row}


def _take_node(table: RunTable, row: dict[str, Any]) -> int:
    return _take(table, row, "node_no", _NODE_MASK)


def _take(table: RunTable, row: dict[str, Any], name: str, most: int) -> int:
    """Take a number out of a row. Beyond its bits it would be the key of another run."""
    value = row.pop(name, None)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"a row of {table.name} has the {name} {value!r}, not 0 to {most}")
    return value


def run_row_for(made: PortableRun) -> dict[str, Any]:
    """Return the row of the run, without its number."""
    return {key: _stored(value) for key, value in made.run.items()}


def read_line(text: bytes, *, number: int) -> Line:
    """Read one line of an export and check its digest.

    A definition may be damaged (`is_whole`): the store that it was in may have had it so, and then
    what other runs need is still to be read.

    Raises:
        Refused: it is not such a line, was changed, or a newer version wrote it.
    """
    try:
        line = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(
            f"line {number} is not one of an export: {error}; it is cut off or was changed",
            code="export_damaged",
        ) from None
    if isinstance(line, Header):
        _check_header(line)
    if isinstance(line, PortableRun):
        _check_run(line, number)
    if not isinstance(line, PortableDefinition) and not is_whole(line):
        raise Refused(
            f"line {number} does not fit its digest; it was changed", code="export_damaged"
        )
    return line


def _check_run(made: PortableRun, number: int) -> None:
    """Refuse a run that no store could have given, whatever its tables are."""
    run_id = made.run.get("run_id")
    if not is_id(str(run_id or "")):
        raise Refused(
            f"line {number} names a run {run_id!r}; an id has {ID_RULE}", code="export_damaged"
        )
    for wrong in _wrong(made):
        raise Refused(
            f"line {number}: run {run_id}: {wrong}; the line was changed", code="export_damaged"
        )


def _wrong(made: PortableRun) -> Iterator[str]:
    for name in ("run_id", "tenant", "definition_digest"):
        value = made.run.get(name)
        if not isinstance(value, str) or not value:
            yield f"its `{name}` is {value!r}, not a text"
    for name in STORE_ONLY & made.run.keys():
        yield f"it has `{name}`, which no export has"
    rows = [("run", made.run), *((name, row) for name, found in made.rows.items() for row in found)]
    for table, row in rows:
        for name, value in row.items():
            if not _is_value(value):
                yield f"`{name}` in a row of {table} is nothing that a store can hold"


def _is_value(value: Any) -> bool:
    match value:
        case int():
            return _NUMBER_MIN <= value <= _NUMBER_MAX
        case float():
            return math.isfinite(value)
        case {"b64": str() as text, **rest}:
            return not rest and _is_base64(text)
        case _:
            return value is None or isinstance(value, str)


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def is_whole(line: Line) -> bool:
    """Say whether a line fits its digest."""
    match line:
        case PortableRun():
            return line.digest == digest_of(line)
        case PortableDefinition():
            return line.digest == digest(line.document.encode())
        case PortableContent():
            try:
                return line.digest == digest(base64.b64decode(line.content))
            except ValueError:
                return False
        case _:
            return True


def _check_header(header: Header) -> None:
    if header.format != FORMAT:
        raise Refused(
            f"the file has the format `{header.format}`, not `{FORMAT}`", code="export_format"
        )
    if header.version > VERSION:
        raise Refused(
            f"the export has version {header.version}, this engine reads up to {VERSION}; "
            "nothing was imported, use a newer engine",
            code="export_too_new",
        )


def _plain(value: Any) -> Any:
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _stored(value: Any) -> Any:
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value
