"""Runs of the original engine into this store: each is told once, by the copy that says most."""

from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sql import rows
from tandem.adapters.sqlite.forgetting import forget_beside
from tandem.adapters.sqlite.tables import Found, Tables, fetch, run_statement
from tandem.adapters.sqlite.transfer import Imported
from tandem.domain import original
from tandem.domain.change import Change
from tandem.domain.json import decode
from tandem.domain.receipts import first_event
from tandem.domain.run import Run

SOURCE_ORIGINAL: Final = "original:"
_KEPT: Final = ("digest", "source", "imported_at_ms", "document")


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
        return [
            Imported(one.run.run_id, self._import(tables, connection, one))
            for one in self.histories
        ]

    def _import(self, tables: Tables, connection: apsw.Connection, one: NewHistory) -> str:
        here = fetch(connection, tables.sql["find_run_by_id"], (one.run.run_id,))
        if here:
            return self._meet(tables, connection, here[0], one)
        self._tell(tables, connection, one)
        return "paused" if one.change.run.finished_at_ms is None else "imported"

    def _tell(self, tables: Tables, connection: apsw.Connection, one: NewHistory) -> int:
        run_no = tables.insert_run(connection, one.run, [first_event(one.run)], one.document)
        run = msgspec.structs.replace(one.change.run, run_no=run_no)
        tables.write_history(connection, msgspec.structs.replace(one.change, run=run))
        self._keep(tables, connection, run_no, one)
        return run_no

    def _keep(
        self, tables: Tables, connection: apsw.Connection, run_no: int, one: NewHistory
    ) -> None:
        """Keep the stored text, word for word."""
        values = (run_no, one.digest, one.source, self.now_ms, one.entry)
        run_statement(connection, tables.sql["add_imported_run"], values)

    def _meet(
        self, tables: Tables, connection: apsw.Connection, row: dict[str, Any], one: NewHistory
    ) -> str:
        """Let the copy that says most of a run be what is told; the text of each is kept."""
        kept = fetch(connection, tables.sql["list_imports"], (row["run_no"],))
        if any(copy["digest"] == one.digest for copy in kept):
            return "same"
        if not _is_another_copy(row, kept, one):
            return "differs"
        best = max(original.rank(decode(bytes(copy["document"]))) for copy in kept)
        if original.rank(decode(one.entry)) <= best:
            self._keep(tables, connection, row["run_no"], one)
            return "same"
        run = rows.run_of(row)
        forget_beside(tables, connection, run)
        tables.delete_run(connection, run)
        run_no = self._tell(tables, connection, one)
        for copy in kept:
            values = (run_no, *(copy[name] for name in _KEPT))
            run_statement(connection, tables.sql["add_imported_run"], values)
        return "renewed"

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: list[Imported] | None
    ) -> bool:
        """See `Write`."""
        return result is not None and all(
            self._is_kept(tables, connection, history)
            for history, one in zip(self.histories, result, strict=True)
            if one.outcome != "differs"
        )

    def _is_kept(self, tables: Tables, connection: apsw.Connection, one: NewHistory) -> bool:
        here = fetch(connection, tables.sql["find_run_by_id"], (one.run.run_id,))
        return any(
            fetch(connection, tables.sql["was_imported"], (row["run_no"], one.digest))
            for row in here
        )

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> list[Imported]:
        """See `Write`."""
        return unpack(raw, list[Imported])


def _is_another_copy(row: dict[str, Any], kept: Found, one: NewHistory) -> bool:
    """Say whether a run that is here came from a copy of the same run, and rests as it came."""
    births = {row["created_at_ms"], one.run.created_at_ms} - {0}
    return (
        row["last_change_id"].endswith(original.TOLD)
        and bool(kept)
        and all(copy["source"].startswith(SOURCE_ORIGINAL) for copy in kept)
        and (row["tenant"], row["automation_id"]) == (one.run.tenant, one.run.automation_id)
        and len(births) <= 1
    )
