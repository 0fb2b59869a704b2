"""One of two processes on one store. `argv`: what to do, the store's folder, the engine's name.

`drive`   drives runs with an engine until all of them have ended
`busy`    commits back to back until the next line of its standard input
`calm`    commits one by one and says how long each took

Each says `ready`, begins at the first line of its standard input, and ends with a line of JSON.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from tandem import Engine
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT, EngineId
from tandem.embedded import Run
from tandem.ports.store import RunFilter
from tandem.testing.store_suite import Scene, engine_row, succeeded

CALM_COMMITS = 100


def ready() -> None:
    """Wait for the other one."""
    print("ready", flush=True)
    sys.stdin.readline()


def say(**found: object) -> None:
    """Give the result."""
    print(json.dumps(found), flush=True)


async def drive(folder: Path) -> None:
    """Drive what there is; runs belong to whoever comes first."""

    log = folder / "effects.log"

    async def work(run_no: int) -> int:
        with log.open("a") as lines:
            lines.write(f"{run_no} {os.getpid()}\n")
        # However fast the first one is, it leaves something to the other.
        while len({line.split()[1] for line in log.read_text().splitlines()}) < 2:
            await asyncio.sleep(0.01)
        return run_no

    url = f"sqlite:///{folder}/store.db"
    async with Engine.open(url, functions={"host:work": work}, runs_max=3) as engine:
        store = engine.parts.store
        for row in store.list_runs(RunFilter(tenant=LOCAL_TENANT, limit=1_000)):
            await Run(engine.parts, row.run_id).wait()
        say(engine_id=engine.parts.engine.engine_id)


async def busy(folder: Path, name: str) -> None:
    """Commit back to back; every commit writes."""
    store = SqliteStore(folder / "store.db")
    scene = Scene(store, name=name)
    (view,) = await scene.claim(EngineId(name), own_only=True)
    ready()
    loop = asyncio.get_running_loop()
    is_over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), is_over.set)
    commits = store.committer.commits
    change = scene.next(view)
    number = 0
    while not is_over.is_set():
        await store.apply(change)
        change = scene.next(view, succeeded(number))
        number += 1
    loop.remove_reader(sys.stdin.fileno())
    say(commits=store.committer.commits - commits)
    store.close()


async def calm(folder: Path, name: str) -> None:
    """Commit one at a time."""
    store = SqliteStore(folder / "store.db")
    ready()
    took_ms = []
    for number in range(CALM_COMMITS):
        started = time.perf_counter()
        await store.put_engine(engine_row(EngineId(name), lease_until_ms=number))
        took_ms.append((time.perf_counter() - started) * 1_000)
    say(took_ms=took_ms)
    store.close()


def main() -> None:
    what, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    match what:
        case "drive":
            ready()
            asyncio.run(drive(folder))
        case "busy":
            asyncio.run(busy(folder, name))
        case "calm":
            asyncio.run(calm(folder, name))


if __name__ == "__main__":
    main()
