"""A copy of the store while engines go on writing to it."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import apsw

from tandem.adapters.sql.statements import load_statements
from tandem.adapters.sqlite.connection import make_private, open_connection
from tandem.domain.errors import Refused, StoreUnavailable

PAGES_AT_ONCE: Final = 2_000


def back_up(
    source: Path, target: Path, *, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> int:
    """Copy the store as it is at one moment; return the size of the copy in bytes.

    The copy is made under another name, checked, synced and then renamed, so the target is either
    whole or not there. Writers are not held up: the copy reads one snapshot of the WAL.

    Raises:
        Refused: the target exists.
        StoreUnavailable: the copy could not be written, or is not sound.
    """
    if target.exists():
        raise Refused(f"{target} exists; name another file or remove it", code="file_exists")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        _copy(source, partial, progress)
        _sync(partial)
        # Unlike a rename this never replaces a file that came in the meantime.
        os.link(partial, target)
        _sync(target.parent)
        return target.stat().st_size
    except FileExistsError:
        raise Refused(f"{target} exists; name another file", code="file_exists") from None
    except (apsw.Error, OSError) as error:
        raise StoreUnavailable(
            f"cannot write the backup {target}: {error}; nothing was left there"
        ) from error
    finally:
        for name in (partial, *(Path(f"{partial}{end}") for end in ("-wal", "-shm", "-journal"))):
            with suppress(OSError):
                name.unlink()


def _copy(source: Path, partial: Path, progress: Callable[[int, int], None]) -> None:
    reader = open_connection(source, synchronous="FULL", read_only=True)
    make_private(partial)
    writer = apsw.Connection(str(partial))
    try:
        # With the snapshot held, commits of others do not make the copy begin again.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        with writer.backup("main", reader, "main") as copy:
            while not copy.done:
                copy.step(PAGES_AT_ONCE)
                progress(copy.page_count - copy.remaining, copy.page_count)
        # Once it is written to, its events are others than those that follow in the source.
        writer.execute(load_statements()["renew_store_id"]).fetchall()
        # One file, without a WAL beside it that might be forgotten.
        writer.execute("PRAGMA journal_mode = DELETE").fetchall()
        found = writer.execute("PRAGMA quick_check(1)").fetchall()
        if found != [("ok",)]:
            raise StoreUnavailable(f"the copy is not sound: {found[0][0]}; check the store itself")
    finally:
        writer.close()
        reader.close()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
