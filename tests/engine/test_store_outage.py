"""A store that is away is waited for, and the wait has a reason that can be read."""

import asyncio
from pathlib import Path
from typing import Any

from tandem import Automation, Engine
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.change import Change
from tandem.domain.command import Command
from tandem.domain.errors import StoreUnavailable
from tandem.domain.ids import RunId, TenantId
from tandem.domain.lifecycle import RunState
from tandem.domain.view import RunView
from tandem.testing.builders import automation, python_node
from tandem.testing.executor import Script
from tandem.testing.faults import Faults
from tests.engine.conftest import call
from tests.small_world import SmallWorld

FAILED_READS = 3


async def test_an_outage_is_told_once_and_no_body_runs_twice(tmp_path: Path) -> None:
    told: list[str] = []
    ran: list[str] = []
    functions = {"test:work": lambda name: ran.append(name)}
    url = f"sqlite:///{tmp_path}/tandem.db"
    async with (
        asyncio.timeout(20),
        Engine.open(url, functions=functions, on_problem=told.append) as engine,
    ):
        store = engine.parts.store
        apply, refusals = store.apply, 3

        async def failing(change: Change) -> None:
            nonlocal refusals
            if ran and refusals:
                refusals -= 1
                raise StoreUnavailable("the disk that holds the store is full; free some space")
            await apply(change)

        store.apply = failing  # type: ignore[method-assign]
        nodes = [
            call("a", "work", arguments={"name": "a"}),
            call("b", "work", "a", arguments={"name": "b"}),
        ]
        run = await engine.run(Automation.from_dict({"automation_id": "test", "nodes": nodes}))
        assert await run.wait() == "completed"
    assert ran == ["a", "b"]
    assert refusals == 0
    assert told == [
        f"run {run.run_id} waits for the store: "
        "the disk that holds the store is full; free some space"
    ]


class Unread(SqliteStore):
    """A store that cannot be read for a while after a driver has executed something."""

    def __init__(self, path: Path, reads: Faults) -> None:
        super().__init__(path, synchronous="OFF")
        self.reads = reads
        self.asked: list[str] = []

    async def execute(self, run_id: RunId, command: Command, **how: Any) -> Change:
        """See `Store.execute`."""
        self.asked.append(type(command).__name__)
        change = await super().execute(run_id, command, **how)
        self.reads.refuse_reads(FAILED_READS)
        return change

    def read(self, run_id: RunId, *, tenant: TenantId) -> RunView:
        """See `Store.load`; it may fail."""
        if self.reads.fails_to_read():
            raise StoreUnavailable("the simulated disk cannot be read")
        return super().read(run_id, tenant=tenant)


def test_what_a_driver_executes_is_executed_once_though_it_cannot_be_read_back(
    tmp_path: Path,
) -> None:
    world = SmallWorld(tmp_path / "small.db")
    world.store.close()
    store = world.store = Unread(tmp_path / "tandem.db", Faults({}))

    async def story() -> None:
        engine = world.engine()
        told: list[str] = []
        engine.listen(lambda view, change: told.extend(e.event.value for e in change.events))
        async with engine:
            run_id = await world.start(
                engine, automation(python_node("a")), a=Script(duration_ms=60_000)
            )
            await world.until(lambda: "node_started" in world.kinds(run_id))
        assert store.asked == ["HandBack"]
        assert told.count("run_interrupted_shutdown") == 1
        assert world.row(run_id).status is RunState.QUEUED
        assert world.row(run_id).interruptions == 0

    world.tell(story())
