"""A run as one JSON line that any store can read: every column of every row that belongs to it.

Numbers that only one store knows (of runs, rows, cursors) are left out or written as node and
attempt numbers. What a later version adds to a table is carried along without being named here.
"""

import base64
from collections.abc import Mapping, Sequence
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
    """A table whose rows belong to runs. `surrogate` is a key that only this store knows."""

    name: str
    key: str
    surrogate: str | None

    def range_of(self, run_no: int) -> tuple[int, int]:
        """Return the first and the last key that the rows of a run may have."""
        match self.key:
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
    for key in ("attempt_no", "node_run_id", "run_no"):
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
    return msgspec.structs.replace(made, digest=_digest(made))


def _digest(made: PortableRun) -> str:
    return digest(canonical([made.run, made.rows]))


def _without_numbers(table: RunTable, row: Row) -> dict[str, Any]:
    values = {key: _plain(value) for key, value in row.items()}
    values.pop("run_no", None)
    if table.surrogate is not None:
        values.pop(table.surrogate)
    if table.key == "node_run_id":
        values["node_no"] = values.pop("node_run_id") & _NODE_MASK
    elif table.key == "attempt_no":
        key = values.pop("attempt_no")
        values["node_no"] = key >> ATTEMPT_BITS & _NODE_MASK
        values["number"] = key & _ATTEMPT_MASK
    return values


def row_for(table: RunTable, values: Row, run_no: int) -> dict[str, Any]:
    """Return a row of a portable run as this store keeps it."""
    row = {key: _stored(value) for key, value in values.items()}
    if table.key == "node_run_id":
        return {"node_run_id": node_run_id(run_no, row.pop("node_no")), **row}
    if table.key == "attempt_no":
        key = attempt_no(run_no, row.pop("node_no"), row.pop("number"))
        return {"attempt_no": key, **row}
    return {"run_no": run_no, **row}


def run_row_for(made: PortableRun) -> dict[str, Any]:
    """Return the row of the run, without its number."""
    return {key: _stored(value) for key, value in made.run.items()}


def read_line(text: bytes, *, number: int) -> Line:
    """Read one line of an export and check its digest.

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
    if isinstance(line, PortableRun) and not is_id(str(line.run.get("run_id", ""))):
        raise Refused(
            f"line {number} names a run {line.run.get('run_id')!r}; an id has {ID_RULE}",
            code="export_damaged",
        )
    if not _is_whole(line):
        raise Refused(
            f"line {number} does not fit its digest; it was changed", code="export_damaged"
        )
    return line


def _is_whole(line: Line) -> bool:
    """Say whether a line fits its digest."""
    match line:
        case PortableRun():
            return line.digest == _digest(line)
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
