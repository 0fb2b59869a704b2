"""Opening a store and bringing it to this version."""

import os
from pathlib import Path

import apsw
import pytest

import tandem.adapters.sqlite.connection as connection_module
from tandem.adapters.sql.statements import (
    load_migrations,
    load_schema,
    load_statements,
)
from tandem.adapters.sqlite.connection import (
    file_system_of,
    migrate,
    open_connection,
    refuse_network_file_system,
)
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.errors import StoreUnavailable
from tandem.testing.store_suite import Scene, chain, plan_of

PROCESSES = 4
ROUNDS = 5


def schema_of(connection: apsw.Connection) -> list[object]:
    """Return what the schema consists of."""
    return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()


def test_store_is_durable_by_default(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    connection = store.committer.connection
    assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]
    assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    store.close()


def test_a_new_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        store = SqliteStore(tmp_path / "store.db")
    finally:
        os.umask(mask)
    store.back_up(tmp_path / "copy.db", progress=lambda _done, _all: None)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.name: path.stat().st_mode & 0o077 for path in files} == {
        path.name: 0 for path in files
    }
    assert {"store.db", "store.db-wal", "copy.db"} <= {path.name for path in files}
    store.close()


def test_migrations_are_numbered_without_gaps() -> None:
    assert [number for number, _ in load_migrations()] == [
        *range(1, len(load_migrations()) + 1),
    ]


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = open_connection(path, synchronous="FULL")
    migrate(connection, path)
    before = schema_of(connection)
    migrate(connection, path)
    assert schema_of(connection) == before
    connection.close()


def test_new_store_is_what_the_migrations_make(tmp_path: Path) -> None:
    step_by_step = apsw.Connection(":memory:")
    for _, script in load_migrations():
        step_by_step.execute(script)
    made = open_connection(tmp_path / "store.db", synchronous="OFF")
    migrate(made, tmp_path / "store.db")

    assert schema_of(made) == schema_of(step_by_step)
    assert load_schema()[0] == len(load_migrations()), "run `make fix`"
    for (table,) in made.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        # Each store draws an id of its own.
        column = "length(store_id), packed_to" if table == "store_identity" else "*"
        # A table that was made anew has counted to nothing; that is as if it had not counted.
        where = "WHERE seq > 0" if table == "sqlite_sequence" else ""
        rows = f"SELECT {column} FROM {table} {where}"
        assert made.execute(rows).fetchall() == step_by_step.execute(rows).fetchall(), table
    made.close()
    step_by_step.close()


def test_new_store_takes_the_steps_that_its_script_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, _ = load_schema()
    steps = [*load_migrations(), (newest + 1, "CREATE TABLE later (x);")]
    monkeypatch.setattr(connection_module, "load_migrations", lambda: steps)
    connection = open_connection(tmp_path / "store.db", synchronous="OFF")
    migrate(connection, tmp_path / "store.db")
    assert connection.execute("SELECT * FROM later").fetchall() == []
    assert connection.execute("PRAGMA user_version").fetchall() == [(newest + 1,)]
    connection.close()


def test_every_statement_fits_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = open_connection(path, synchronous="FULL")
    migrate(connection, path)
    for statement in load_statements().values():
        connection.execute(f"EXPLAIN {statement}", _AnyValue()).fetchall()
    connection.close()


class _AnyValue(dict[str, None]):
    def __missing__(self, key: str) -> None:
        return None


def test_failing_migration_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    connection = open_connection(path, synchronous="FULL")
    migrate(connection, path)
    before = schema_of(connection)
    newest = max(number for number, _ in load_migrations())
    broken = (
        newest + 1,
        "CREATE TABLE half (x); INSERT INTO half VALUES (1); SELECT no_such_column;",
    )
    steps = [*load_migrations(), broken]
    monkeypatch.setattr(connection_module, "load_migrations", lambda: steps)

    with pytest.raises(StoreUnavailable, match="cannot prepare the store"):
        migrate(connection, path)

    assert schema_of(connection) == before
    assert connection.execute("PRAGMA user_version").fetchall() == [(newest,)]
    assert not connection.in_transaction
    connection.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_that_make_one_store_at_once_all_get_it(tmp_path: Path) -> None:
    """They used to meet `database is locked` while the first one turned on the WAL."""
    for number in range(ROUNDS):
        path = tmp_path / str(number) / "store.db"
        gate, starter = os.pipe()
        children = []
        for _ in range(PROCESSES):
            pid = os.fork()
            if pid == 0:
                os.close(starter)
                os.read(gate, 1)
                try:
                    SqliteStore(path).close()
                except BaseException as error:
                    os.write(2, f"{error}\n".encode())
                    os._exit(1)
                os._exit(0)
            children.append(pid)
        os.close(gate)
        os.close(starter)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * PROCESSES


def test_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "file_system_of", lambda path: "nfs4")
    with pytest.raises(StoreUnavailable, match=r"network file system \(nfs4\).*local disk"):
        refuse_network_file_system(tmp_path)
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "store.db")
    assert not (tmp_path / "store.db").exists()


def test_file_system_of_a_path_is_that_of_its_longest_mount() -> None:
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(Path("/")) != ""


async def test_queued_run_of_the_first_version_is_claimed_after_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    all_steps = load_migrations()
    connection = open_connection(path, synchronous="OFF")
    monkeypatch.setattr(connection_module, "load_migrations", lambda: all_steps[:1])
    migrate(connection, path)
    plan, document = plan_of(chain(1))
    connection.execute(
        "INSERT INTO definition (tenant, digest, document) VALUES ('local', ?, ?)",
        (plan.digest, document),
    )
    connection.execute(
        "INSERT INTO run (run_id, tenant, automation_id, name, definition_digest, trigger_type,"
        " status, last_change_id, epoch, event_seq, created_at_ms, updated_at_ms, due_at_ms,"
        " parked, detail, stop_reason, pause_reason, resume_reason, inputs, workspace,"
        " nodes_total, nodes_completed) VALUES ('old', 'local', 'job', '', ?, 'manual', 'queued',"
        " 'c', 0, 1, 5, 7, 7, '', '', '', '', '', '{}', '', 1, 0)",
        (plan.digest,),
    )
    connection.close()
    monkeypatch.setattr(connection_module, "load_migrations", lambda: all_steps)

    store = SqliteStore(path, synchronous="OFF")
    scene = Scene(store)
    assert scene.get("old").queued_at_ms == 7
    assert await scene.claimed_ids() == ["old"]
    store.close()
