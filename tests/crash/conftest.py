"""Fixtures of the crash tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from disk import Recorder
from story import Nursery

import tandem.adapters.sqlite.store as store_module
from tandem.adapters.sqlite.connection import open_connection

CHECKPOINT_PAGES = 25
"""So few that a short story meets checkpoints and starts of the WAL from its beginning."""


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Return the one process that starts engines."""
    made = Nursery()
    yield made
    made.close()


class WriterAsReader:
    """Reads through the connection that writes, whichever it is at the moment."""

    def __init__(self, writers: list[apsw.Connection]) -> None:
        self._writers = writers

    def execute(self, *arguments: Any) -> apsw.Cursor:
        """See `apsw.Connection.execute`."""
        return self._writers[-1].execute(*arguments)

    def close(self) -> None:
        """Leave it to the writer."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Record what every store that a test opens does with its disk.

    Python's VFS has no shared memory, so one connection has the file for itself and reads, too.
    """
    made = Recorder("recorder")
    writers: list[apsw.Connection] = []

    def configure(connection: apsw.Connection) -> None:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        connection.wal_autocheckpoint(CHECKPOINT_PAGES)

    def open_recorded(path: Path, **options: Any) -> apsw.Connection | WriterAsReader:
        if options.get("read_only"):
            return WriterAsReader(writers)
        apsw.connection_hooks.append(configure)
        try:
            writers.append(open_connection(path, **options, vfs="recorder"))
        finally:
            apsw.connection_hooks.remove(configure)
        return writers[-1]

    monkeypatch.setattr(store_module, "open_connection", open_recorded)
    yield made
    for writer in writers:
        writer.close()
    made.unregister()
