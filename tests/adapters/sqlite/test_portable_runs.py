"""Which rows and columns belong to a run that is exported, and what never comes with it."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tandem.adapters.sql.portable import STORE_ONLY, PortableDefinition, PortableRun, read_line
from tandem.adapters.sqlite.store import SqliteStore
from tandem.adapters.sqlite.transfer import BESIDE, Imported, run_tables
from tandem.domain.admission import Needs
from tandem.domain.command import Cancel
from tandem.domain.errors import Refused
from tandem.domain.ids import LOCAL_TENANT, ChangeId, RunId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.outcome import Failed, FailureClass
from tandem.domain.settling import Settled
from tandem.testing.store_suite import NOW_MS, Scene, chain

PATH = "/work"
HELD = Needs(lock_path=PATH, concurrency_key="k", concurrency_limit=1, labels=("gpu",))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[SqliteStore, SqliteStore]]:
    here, there = (
        SqliteStore(tmp_path / f"{name}.db", synchronous="OFF") for name in ("here", "there")
    )
    yield here, there
    here.close()
    there.close()


async def move(here: SqliteStore, there: SqliteStore) -> list[Imported]:
    lines = list(here.export())
    return list(
        await there.import_runs(
            [line for line in lines if isinstance(line, PortableDefinition)],
            [line for line in lines if isinstance(line, PortableRun)],
            change_id=ChangeId("import"),
            now_ms=NOW_MS,
        )
    )


def test_every_table_that_names_runs_is_exported_or_left_out_on_purpose(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    assert {table.name for table in run_tables(stores[0].committer.connection)} == {
        "artifact",
        "attempt",
        "backlog_event",
        "backlog_source",
        "backlog_task",
        "gate",
        "imported_run",
        "instance",
        "lifecycle_event",
        "node_run",
        "run_facts",
        "session",
        "wait",
    }


def test_every_other_table_is_counted_by_an_export_or_of_this_store_alone(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    connection = stores[0].committer.connection
    found = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    )
    exported = {table.name for table in run_tables(connection)}
    with_something_else = {
        "archive_part",  # exported as what it was before it was packed
        "definition",
        "run",
        "signal_key",
        "webhook_claim",
        "webhook_payload",
        "webhook_secret",
    }
    of_this_store = {
        "admission",
        "admission_wait",
        "assertion_use",
        "engine",
        "provider_throttle",
        "store_identity",
        "workspace_lock",
    }
    expected = exported | BESIDE.keys() | with_something_else | of_this_store
    assert {name for (name,) in found} == expected


async def test_every_column_of_a_run_is_exported_or_left_out_on_purpose(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    here, _ = stores
    await Scene(here).create("run")
    _, line = here.export()
    assert isinstance(line, PortableRun)
    columns = here.committer.connection.execute(
        "SELECT name FROM pragma_table_xinfo('run')"
    ).fetchall()
    assert {name for (name,) in columns} - line.run.keys() == STORE_ONLY


async def test_run_that_was_driven_brings_no_claim_lock_or_key(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    here, there = stores
    scene = Scene(here)
    await scene.create("held", chain(2), needs=HELD)
    (view,) = await scene.claim(labels=["gpu"])
    throttled = Failed(
        failure_class=FailureClass.PROVIDER_TRANSIENT,
        message="later",
        provider="openai",
        retry_after_ms=60_000,
    )
    await here.apply(scene.next(view))
    await here.apply(scene.next(view, Settled(node_no=0, number=1, outcome=throttled)))
    await scene.create("blocked", chain(1), needs=HELD)
    await scene.claim(labels=["gpu"])
    for table in ("workspace_lock", "provider_throttle"):
        assert here.committer.connection.execute(f"SELECT 1 FROM {table}").fetchall() != []

    assert {one.outcome for one in await move(here, there)} == {"paused"}

    for table in ("workspace_lock", "provider_throttle", "signal", "engine"):
        assert there.committer.connection.execute(f"SELECT * FROM {table}").fetchall() == []
    other = Scene(there)
    for name in ("held", "blocked"):
        run = other.get(name)
        assert run.status is RunState.PAUSED
        claims = (run.engine_id, run.owner, run.cleanup, run.due_at_ms, run.queued_at_ms)
        assert claims == (None, None, None, None, None)
        assert (run.resource_key, run.queue_reason) == ("", None)
        # What it needs is a part of it: should it go on here, it takes the lock here.
        assert (run.lock_path, run.concurrency_key, run.labels) == (PATH, "k", ("gpu",))
    assert await other.claim(labels=["gpu"]) == []


async def test_run_that_would_be_resumed_by_itself_is_held(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    here, there = stores
    await Scene(here).create("run")
    here.committer.connection.execute(
        "UPDATE run SET status = 'paused', stop_kind = 'stale_reaped', due_at_ms = NULL,"
        " reaped_at_ms = ?",
        (NOW_MS,),
    )

    assert [one.outcome for one in await move(here, there)] == ["paused"]

    run = Scene(there).get("run")
    assert run.stop_kind is not StopKind.STALE_REAPED
    assert there.list_reaped(reaped_since_ms=0, attempts_max=9, limit=9) == []


async def test_fork_and_what_people_did_come_along(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    here, there = stores
    scene = Scene(here)
    await scene.create("source")
    await scene.fork("source", "n0", inputs={})
    for name in ("source", "fork"):
        await scene.execute(name, Cancel())

    assert {one.outcome for one in await move(here, there)} == {"imported"}

    assert Scene(there).get("fork").forked_from == "source"
    assert list(there.export()) == list(here.export())
    assert {one.outcome for one in await move(here, there)} == {"same"}
    before = there.read(RunId("fork"), tenant=LOCAL_TENANT).run.event_hash
    assert before == Scene(here).get("fork").event_hash


async def test_tasks_of_a_backlog_come_along(stores: tuple[SqliteStore, SqliteStore]) -> None:
    here, there = stores
    await Scene(there).create("other")
    await Scene(here).create("run")
    (run_no,) = here.committer.connection.execute("SELECT run_no FROM run").fetchone()
    rows = {
        "backlog_task": (
            run_no,
            "t1",
            0,
            0,
            "runnable",
            2,
            1,
            "",
            "",
            None,
            None,
            "",
            "c",
            1,
            2,
            '{"name":"t1","title":"T","node_id":"n0"}',
        ),
        "backlog_source": (run_no, 0, 1, ""),
        "backlog_event": (run_no, 1, "context.task.claimed", "t1", 2, "w1", "why", 3),
    }
    for table, values in rows.items():
        places = ", ".join("?" * len(values))
        here.committer.connection.execute(f"INSERT INTO {table} VALUES ({places})", values)

    assert [one.said for one in await move(here, there)] == [()]

    (there_no,) = there.committer.connection.execute(
        "SELECT run_no FROM run WHERE run_id = 'run'"
    ).fetchone()
    assert there_no != run_no
    for table, values in rows.items():
        found = there.committer.connection.execute(f"SELECT * FROM {table}").fetchall()
        assert found == [(there_no, *values[1:])]


@pytest.mark.parametrize("place", ["run", "lifecycle_event"])
async def test_columns_of_a_newer_engine_are_refused_by_name(
    stores: tuple[SqliteStore, SqliteStore], place: str
) -> None:
    here, there = stores
    await Scene(here).create("run")
    definition, run = here.export()
    assert isinstance(definition, PortableDefinition)
    assert isinstance(run, PortableRun)
    if place == "run":
        newer = msgspec.structs.replace(run, run={**run.run, "novelty": 1})
    else:
        rows = {**run.rows, place: [{**row, "novelty": 1} for row in run.rows[place]]}
        newer = msgspec.structs.replace(run, rows=rows)

    with pytest.raises(Refused, match=rf"{place}\.novelty; .* use a newer engine"):
        await there.import_runs([definition], [newer], change_id=ChangeId("i"), now_ms=NOW_MS)

    assert list(there.export()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"kind":"definition","tenant":"\xff"}', "not one of an export"),
        (b'{"kind":"content","tenant":"t","digest":"d","content":"%"}', "does not fit its digest"),
        (b'{"kind":"run","run":{"run_id":"../../a"},"rows":{}}', "an id has"),
    ],
)
def test_line_that_is_no_line_of_an_export_is_refused(line: bytes, said: str) -> None:
    with pytest.raises(Refused, match=f"line 7 .*{said}"):
        read_line(line, number=7)
