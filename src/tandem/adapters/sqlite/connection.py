"""Connections to one SQLite file: how they are opened, and how the file gets its tables."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from tandem.adapters.sql.statements import load_migrations, load_schema
from tandem.domain.errors import StoreTooNew, StoreUnavailable

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.s3fs", "afs", "ceph"}
)
_STATEMENTS = 600
"""So many are kept ready: all that there are."""
_BUSY_TIMEOUT_MS = 10_000


def open_connection(
    path: Path, *, synchronous: str, read_only: bool = False, vfs: str | None = None
) -> apsw.Connection:
    """Open the file in WAL mode; `vfs` names another way to the disk than SQLite's own.

    Raises:
        StoreUnavailable: the file cannot be opened or is not a database.
    """
    flags = (
        apsw.SQLITE_OPEN_READONLY
        if read_only
        else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    )
    try:
        if not read_only:
            make_private(path)
        connection = apsw.Connection(
            str(path), flags=flags, vfs=vfs, statementcachesize=_STATEMENTS
        )
        # Else a statement is prepared anew whenever its LIMIT is bound: 35 µs for a `find_mark`.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute(f"PRAGMA synchronous = {synchronous}").fetchall()
        connection.execute("PRAGMA cache_size = -16000").fetchall()
    except (apsw.Error, OSError) as error:
        raise StoreUnavailable(
            f"cannot open the store {path}: {error}; check that the folder exists, is writable "
            "and that the file is a Tandem store"
        ) from error
    return connection


def make_private(path: Path) -> None:
    """Make the file of a new store, for its owner alone; SQLite's files beside it follow it.

    One that is there is not even opened: closing it would free the locks that this process has.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring the tables to this version, one transaction for each step.

    A new store is made in one step (decision 31), and takes only the steps that came after it.

    Raises:
        StoreTooNew: a newer version made this store; it is left untouched.
        StoreUnavailable: the tables could not be written; the store is as it was.
    """
    migrations = load_migrations()
    newest = migrations[-1][0]
    whole, schema = load_schema()
    steps = [(number - 1, number, script) for number, script in migrations]
    if whole <= newest:
        steps.insert(0, (0, whole, schema))
    try:
        if _version(connection) == newest:
            return
        for before, number, script in steps:
            connection.execute("BEGIN IMMEDIATE")
            try:
                if _version(connection) == before:
                    connection.execute(script)
                    connection.execute(f"PRAGMA user_version = {number}").fetchall()
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    except apsw.Error as error:
        raise StoreUnavailable(
            f"cannot prepare the store {path}: {error}; the folder must be writable and have space"
        ) from error
    found = _version(connection)
    if found > newest:
        raise StoreTooNew(
            f"the store {path} has version {found}, this engine knows {newest}; "
            "use a newer engine, or another store"
        )


def _version(connection: apsw.Connection) -> int:
    value: Any = connection.execute("PRAGMA user_version").fetchall()[0][0]
    return int(value)


def refuse_network_file_system(path: Path) -> None:
    """Refuse a folder whose locks other hosts may not see.

    Raises:
        StoreUnavailable: the file system is a network file system.
    """
    kind = file_system_of(path)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise StoreUnavailable(
            f"the store {path} is on a network file system ({kind}), where SQLite may lose data; "
            "put it on a local disk, or use PostgreSQL"
        )


def file_system_of(path: Path) -> str:
    """Return the type of the file system that holds `path`, empty where it cannot be told."""
    try:
        mounts = Path("/proc/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in mounts:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        below = real == point or real.startswith(point.rstrip("/") + "/")
        if below and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind
