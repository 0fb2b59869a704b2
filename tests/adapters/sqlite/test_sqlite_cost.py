"""What a node costs: statements, commits and bytes, whatever the store already holds."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

import tandem.wiring
from tandem import Automation, Engine
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.lifecycle import RunState
from tandem.testing.store_suite import Scene, chain, succeeded

NODES = 50
PAGE_BYTES = 4_096


class Meter:
    """Counts what the writing connection of a store does."""

    def __init__(self, store: SqliteStore) -> None:
        self.statements: Counter[str] = Counter()
        self.pages = 0
        connection = store.committer.connection
        connection.exec_trace = self._executed
        # A hook of our own takes the place of the automatic checkpoint: the WAL only grows.
        connection.set_wal_hook(self._committed)

    def _executed(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        self.statements[sql.split()[0]] += 1
        return True

    def _committed(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self.pages = pages
        return apsw.SQLITE_OK

    @property
    def changes(self) -> int:
        """Statements without those that only begin and end transactions."""
        return sum(self.statements.values()) - self.statements["BEGIN"] - self.statements["COMMIT"]


class Cost(msgspec.Struct, frozen=True):
    """What one node completion, with the start of its successor, costs on average."""

    statements: float
    commits: float
    bytes_written: float


async def cost_of_chain(store: SqliteStore, run_id: str) -> Cost:
    """Drive a chain in the store and return what a node of it cost."""
    scene = Scene(store, name=run_id)
    view = await scene.claimed(run_id, chain(NODES))
    await store.apply(scene.next(view))
    meter = Meter(store)
    await store.apply(scene.next(view, succeeded(0)))
    meter.statements.clear()
    pages, commits = meter.pages, store.committer.commits
    for number in range(1, NODES - 1):
        await store.apply(scene.next(view, succeeded(number)))
    nodes = NODES - 2
    cost = Cost(
        statements=meter.changes / nodes,
        commits=(store.committer.commits - commits) / nodes,
        bytes_written=(meter.pages - pages) * PAGE_BYTES / nodes,
    )
    await store.apply(scene.next(view, succeeded(NODES - 1)))
    assert scene.get(run_id).status is RunState.COMPLETED
    return cost


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db", synchronous="OFF")
    yield opened
    opened.close()


async def test_node_completion_costs_seven_statements_and_one_commit(store: SqliteStore) -> None:
    cost = await cost_of_chain(store, "r1")
    assert cost.statements <= 7
    assert cost.commits == 1
    assert cost.bytes_written <= 8 * PAGE_BYTES


async def test_cost_does_not_grow_with_the_runs_in_the_store(store: SqliteStore) -> None:
    alone = await cost_of_chain(store, "first")
    scene = Scene(store, name="crowd")
    for start in range(0, 10_000, 1_000):
        await asyncio.gather(
            *(
                scene.create(f"crowd-{number}", now_ms=1_800_000_000_000)
                for number in range(start, start + 1_000)
            )
        )

    crowded = await cost_of_chain(store, "last")

    assert crowded.statements == alone.statements
    assert crowded.commits == alone.commits
    # A page or two more: the trees have become deeper by a level.
    assert crowded.bytes_written <= alone.bytes_written + 2 * PAGE_BYTES


async def test_cost_does_not_grow_with_the_nodes_of_the_run(store: SqliteStore) -> None:
    """The steps of a long chain write what the steps of a short one write."""
    short = await cost_of_chain(store, "short")
    scene = Scene(store, name="long")
    view = await scene.claimed("long", chain(1_000))
    await store.apply(scene.next(view))
    for number in range(900):
        await store.apply(scene.next(view, succeeded(number)))
    meter = Meter(store)
    await store.apply(scene.next(view, succeeded(900)))
    assert meter.changes == short.statements


@pytest.mark.parametrize("nodes", [5, 40])
async def test_chain_of_n_nodes_costs_n_commits_and_a_constant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    written = 0
    changes = 0

    def commit(connection: apsw.Connection) -> None:
        nonlocal written, changes
        if connection.total_changes() != changes:
            changes = connection.total_changes()
            written += 1
        connection.execute("COMMIT")

    monkeypatch.setattr(
        tandem.wiring,
        "open_store",
        lambda settings: SqliteStore(settings.store_path, synchronous="OFF", commit=commit),
    )
    automation = Automation.from_dict(
        {
            "automation_id": "chain",
            "nodes": [
                {
                    "node_id": f"n{number}",
                    "depends_on": [f"n{number - 1}"] if number else [],
                    "action": {"kind": "python", "function": "host:work"},
                }
                for number in range(nodes)
            ],
        }
    )
    url = f"sqlite:///{tmp_path}/store.db"
    async with asyncio.timeout(30), Engine.open(url, functions={"host:work": dict}) as engine:
        before = written
        run = await engine.run(automation)
        assert await run.wait() is RunState.COMPLETED
        # Created and claimed (at times in one commit), the first start; then one for each node.
        assert nodes + 2 <= written - before <= nodes + 3
