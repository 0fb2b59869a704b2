"""What people do to a run that is packed, wholly or in part: delete, fork, judge, retry it."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.adapters.sqlite.transfer import run_tables, select_of
from tandem.domain.artifact import ArtifactRef
from tandem.domain.command import (
    Account,
    Cancel,
    Command,
    Dispose,
    NoteFork,
    Recover,
    ResolveWait,
    RetryNode,
    SetOutput,
    Skip,
)
from tandem.domain.errors import NothingToDo
from tandem.domain.ids import LOCAL_TENANT, Digest, NodeId, RunId
from tandem.domain.learning import LearningPolicy
from tandem.domain.lifecycle import RunState
from tandem.domain.outcome import Failed, FailureClass
from tandem.domain.receipts import ChainCheck
from tandem.domain.settling import Settled
from tandem.domain.usage import Spent, Usage
from tandem.testing.store_suite import CONDITION, NOW_MS, Scene, chain, succeeded

LATER_MS = NOW_MS + 30 * 86_400_000
LARGE = ArtifactRef(name="n0", digest=Digest("sha256:1"), size_bytes=9, media_type="x")
N0, N1, RUN = NodeId("n0"), NodeId("n1"), RunId("run")
FIXED: list[Command] = [
    NoteFork(fork=RunId("fork"), node_id=N1),
    Dispose(node_id=N0, disposition="ok"),
    Recover(),
    RetryNode(node_id=N1),
    RetryNode(node_id=N0),
    Skip(node_id=N1, reason="r"),
    SetOutput(node_id=N0, output=b"2", reason="r"),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db", synchronous="OFF")
    yield opened
    opened.close()


async def failed_run(store: SqliteStore) -> Scene:
    """Let `n0` complete with a large output and `n1` fail."""
    scene = Scene(store)
    nodes = [{**node, "retry_policy": {"max_attempts": 1}} for node in chain(3)]
    view = await scene.claimed("run", nodes)
    await store.apply(scene.next(view))
    large = succeeded(0)
    await store.apply(
        scene.next(
            view,
            Settled(node_no=0, number=1, outcome=large.outcome, output_ref=LARGE),
        )
    )
    broken = Failed(failure_class=FailureClass.PROVIDER_TERMINAL, message="refused")
    await store.apply(scene.next(view, Settled(node_no=1, number=1, outcome=broken)))
    assert scene.get("run").status is RunState.FAILED
    return scene


async def pack_some(store: SqliteStore) -> None:
    assert await store.archive(before_ms=LATER_MS, rows_max=2, now_ms=LATER_MS) == 2


async def pack_all(store: SqliteStore) -> None:
    while await store.archive(before_ms=LATER_MS, rows_max=100, now_ms=LATER_MS):
        pass


Pack = Callable[[SqliteStore], Awaitable[None]]
PACKING = pytest.mark.parametrize("pack", [pack_some, pack_all])


def rows_of(store: SqliteStore, run_no: int) -> dict[str, int]:
    """Count the rows of a run in every table that has such, also the packed ones."""
    connection = store.committer.connection
    run = {"run_no": run_no, "tenant": LOCAL_TENANT, "run_id": RUN}
    counts = {
        table.name: len(connection.execute(select_of(table), table.range_of(run)).fetchall())
        for table in run_tables(connection)
    }
    for name in ("archive_part", "workspace_lock", "provider_throttle"):
        sql = f"SELECT count(*) FROM {name} WHERE run_no = ?"
        counts[name] = connection.execute(sql, (run_no,)).fetchall()[0][0]
    return {name: count for name, count in counts.items() if count}


def chain_of(store: SqliteStore, run_id: RunId) -> list[str]:
    """Return what is wrong with the receipts of a run."""
    run = store.find_run(run_id, tenant=LOCAL_TENANT)
    assert run is not None
    check = ChainCheck()
    check.follow(
        store.list_events(run_id, tenant=LOCAL_TENANT, after_seq=0, limit=1_000, as_stored=True)
    )
    check.close(seq=run.event_seq, head=run.event_hash)
    return check.problems


@PACKING
async def test_deletion_leaves_no_row_and_names_the_artifacts(
    store: SqliteStore, pack: Pack
) -> None:
    await failed_run(store)
    await pack(store)
    store.committer.connection.execute(
        "INSERT INTO imported_run (run_no, digest, source, imported_at_ms, document)"
        " VALUES (1, 'd', 'export', 1, x'')"
    )
    assert {"archive_part", "artifact", "imported_run"} <= rows_of(store, 1).keys()

    assert await store.delete_run(RUN, tenant=LOCAL_TENANT) == [LARGE.digest]

    assert rows_of(store, 1) == {}


@PACKING
async def test_fork_takes_over_what_is_packed(store: SqliteStore, pack: Pack) -> None:
    scene = await failed_run(store)
    await pack(store)

    made = await scene.fork("run", "n1", inputs={})

    fork = store.read(made.run_id, tenant=LOCAL_TENANT)
    assert fork.node(0).output_ref == LARGE
    assert list(fork.ready) == [1]
    assert (chain_of(store, RUN), chain_of(store, made.run_id)) == ([], [])
    assert scene.events("run")[-1].value == "run_forked"
    await store.delete_run(RUN, tenant=LOCAL_TENANT)
    assert store.is_artifact_used(LARGE.digest, tenant=LOCAL_TENANT)


@PACKING
@pytest.mark.parametrize("command", FIXED, ids=lambda command: type(command).__name__)
async def test_whatever_changes_the_run_unpacks_it(
    store: SqliteStore, pack: Pack, command: Command
) -> None:
    scene = await failed_run(store)
    before = store.list_attempts(RUN, tenant=LOCAL_TENANT)
    await pack(store)

    await scene.execute("run", command, now_ms=LATER_MS)

    assert "archive_part" not in rows_of(store, 1)
    assert scene.get("run").archived_at_ms is None
    assert chain_of(store, RUN) == []
    assert store.list_attempts(RUN, tenant=LOCAL_TENANT) == before


@PACKING
async def test_why_a_run_ended_is_told_as_before(store: SqliteStore, pack: Pack) -> None:
    await failed_run(store)

    def told() -> list[Any]:
        found = store.read_standing(RUN, tenant=LOCAL_TENANT, now_ms=LATER_MS)
        return [found.events, found.gates, found.waits]

    before = told()
    await pack(store)
    assert told() == before


async def test_wait_that_was_woken_is_found_by_its_key(store: SqliteStore) -> None:
    scene = Scene(store)
    view = await scene.claimed("run", [*CONDITION, *chain(1)])
    await store.apply(scene.next(view))
    (wait,) = view.waits.values()
    await scene.execute(
        "run", ResolveWait(wait_id=wait.wait_id, idempotency_key="k1", payload=b"{}")
    )
    await scene.execute("run", Cancel())
    run = scene.get("run")
    if run.cleanup is not None:
        store.committer.connection.execute("UPDATE run SET cleanup = NULL")
    before = store.find_woken_wait(RUN, "k1", tenant=LOCAL_TENANT)
    assert before is not None

    await pack_all(store)

    assert scene.get("run").archived_at_ms is not None
    assert store.find_woken_wait(RUN, "k1", tenant=LOCAL_TENANT) == before
    assert store.find_woken_wait(RUN, "k2", tenant=LOCAL_TENANT) is None


async def pack_none(store: SqliteStore) -> None:
    """Leave the run as it is."""


@pytest.mark.parametrize("pack", [pack_none, pack_some, pack_all])
async def test_late_account_counts_once_what_the_store_knows_already(
    store: SqliteStore, pack: Pack
) -> None:
    def account(*tokens: int) -> Account:
        used = [Usage(total_tokens=count) for count in tokens]
        return Account(
            spent=tuple(
                Spent(node_no=node_no, number=1, usage=usage, added=usage)
                for node_no, usage in enumerate(used)
            )
        )

    scene = await failed_run(store)
    await scene.execute("run", account(5, 7))
    await pack(store)

    with pytest.raises(NothingToDo):
        await scene.execute("run", account(5, 7))
    assert scene.get("run").total_tokens == 12
    await pack(store)
    await scene.execute("run", account(5, 10))

    assert scene.get("run").total_tokens == 15
    spent = [
        attempt.usage.total_tokens for attempt in store.list_attempts(RUN, tenant=LOCAL_TENANT)
    ]
    assert spent == [5, 10]
    assert chain_of(store, RUN) == []


@pytest.mark.parametrize("pack", [pack_none, pack_some, pack_all])
async def test_lesson_counts_what_is_packed(store: SqliteStore, pack: Pack) -> None:
    scene = await failed_run(store)
    await pack(store)

    learned = await store.learn(
        1, policy=LearningPolicy(), change_id=scene.change_id(), now_ms=LATER_MS
    )

    assert learned is not None
    summary = scene.get("run").learning_summary
    assert summary is not None
    assert summary.post_run_metrics is not None
    assert summary.post_run_metrics.mean_attempts_per_node == 1.0
    assert chain_of(store, RUN) == []
    await pack_all(store)
    assert scene.get("run").learning_summary == summary
