"""A few engines on one store in simulated time, each on the machine and with the limits it gets."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import apsw

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.automation import Automation
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import LifecycleEvent, Run
from tandem.engine.engine import Engine
from tandem.engine.limits import Limits
from tandem.testing.artifacts import Files, MemoryArtifacts, MemoryFiles
from tandem.testing.clock import SimulatedClock
from tandem.testing.executor import Bodies, Script, ScriptedExecutor
from tandem.testing.host import SimulatedHost, SimulatedMachine
from tandem.testing.ids import SeededIds
from tandem.testing.loop import Process, SimulatedLoop

WAIT_S = 2_000


class SmallWorld:
    """One store, one clock, and the engines that a test makes."""

    def __init__(
        self,
        path: Path,
        commit: Callable[[apsw.Connection], None] | None = None,
        *,
        order: int = 0,
    ) -> None:
        self.loop = SimulatedLoop(Random(order))
        self.clock = SimulatedClock(self.loop)
        self.store = SqliteStore(path, synchronous="OFF", commit=commit)
        self.bodies = Bodies(Random(0))
        self.scripts: dict[tuple[str, str], Script] = {}
        self.files: Files = {}
        self.machine = SimulatedMachine(self.loop, Random(0), loses=0)
        self.ids = SeededIds(Random(0))
        self.told: list[str] = []

    def engine(self, process: Process | None = None, limits: Limits | None = None) -> Engine:
        """Return a new engine."""
        process = process or Process("engine")
        return Engine(
            store=self.store,
            executor=ScriptedExecutor(self.bodies, self.scripts, process, self.clock),
            artifacts=MemoryArtifacts(),
            files=MemoryFiles(self.files, self.clock),
            host=SimulatedHost(self.machine, process),
            clock=self.clock,
            ids=self.ids,
            scratch_root="/nowhere",
            limits=limits,
            on_problem=self.told.append,
        )

    async def live(self, engine: Engine) -> None:
        """Let an engine live until its task is cancelled; for one in a process of its own."""
        async with engine:
            await asyncio.Event().wait()

    async def start(self, engine: Engine, what: Automation, **scripts: Script) -> RunId:
        """Create a run whose bodies follow these scripts."""
        run_id = RunId(f"automation-v2-run-{self.ids.peek()}")
        for node in what.flow.nodes:
            script = scripts.get(node.node_id, Script(duration_ms=1))
            self.scripts[run_id, node.node_id] = script
        return (await engine.start(what)).run_id

    def row(self, run_id: RunId) -> Run:
        """Return the row of a run."""
        row = self.store.find_run(run_id, tenant=LOCAL_TENANT)
        assert row is not None
        return row

    def events(self, run_id: RunId) -> list[LifecycleEvent]:
        """Return the events of a run."""
        found = self.store.list_events(run_id, tenant=LOCAL_TENANT, after_seq=0, limit=1_000)
        return list(found)

    def kinds(self, run_id: RunId) -> list[str]:
        """Return the events of a run by name."""
        return [event.event.value for event in self.events(run_id)]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition, for a bounded simulated time."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await self.clock.sleep(5)

    async def until_status(self, run_id: RunId, *states: RunState) -> None:
        """Wait until a run is in one of these states."""
        await self.until(lambda: self.row(run_id).status in states)

    def tell(self, story: Coroutine[Any, Any, None]) -> None:
        """Run the story to its end."""
        try:
            self.loop.run_until_complete(story)
        finally:
            self.store.close()
            self.loop.dispose()
