"""A store that is away is waited for, and the wait has a reason that can be read."""

import asyncio
from pathlib import Path

from tandem import Automation, Engine
from tandem.domain.change import Change
from tandem.domain.errors import StoreUnavailable
from tests.engine.conftest import call


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
