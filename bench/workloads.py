"""The workloads of `make bench`, each on a new store at full durability.

python bench/workloads.py NAME [FOLDER]     runs one of `WORKLOADS`; prints one JSON line.

The store is made in FOLDER and left there; without one it is removed.
"""

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apsw

from tandem import Automation, Engine, Run
from tandem.adapters.sqlite.connection import open_connection
from tandem.collector import collect_rarely

PAYLOAD = "x" * 1_000


def body(**_: Any) -> dict[str, str]:
    """Return 1 KB, as a node that did something would."""
    return {"text": PAYLOAD}


def node(name: str, depends_on: list[str]) -> dict[str, Any]:
    """Describe one node that calls `body`."""
    return {
        "node_id": name,
        "depends_on": depends_on,
        "action": {"kind": "python", "function": "bench:body"},
    }


def automation(name: str, nodes: list[dict[str, Any]], parallel: int = 16) -> Any:
    """Read an automation of these nodes."""
    return Automation.from_dict(
        {"automation_id": name, "nodes": nodes, "execution": {"max_parallel_agents": parallel}}
    )


def chain(length: int) -> list[dict[str, Any]]:
    """Describe nodes that follow each other."""
    return [node(f"n{i}", [f"n{i - 1}"] if i else []) for i in range(length)]


class Meter:
    """Wall time, processor time, commits and bytes of what runs inside `with`."""

    def __init__(self, engine: Engine, nodes: int) -> None:
        self._engine, self.nodes, self.result = engine, nodes, {}

    def __enter__(self) -> "Meter":
        self._started = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        ended = self._now()
        wall, cpu, commits, size = (
            after - before for before, after in zip(self._started, ended, strict=True)
        )
        self.result = {
            "nodes": self.nodes,
            "wall_s": round(wall, 4),
            "nodes_per_s": round(self.nodes / wall, 1),
            "ms_per_node": round(1_000 * wall / self.nodes, 4),
            "cpu_ms_per_node": round(1_000 * cpu / self.nodes, 4),
            "commits_per_node": round(commits / self.nodes, 4),
            "bytes_per_node": round(size / self.nodes),
        }

    def _now(self) -> tuple[float, float, int, int]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        store = self._engine.parts.store
        size = sum(path.stat().st_size for path in store.path.parent.glob(f"{store.path.name}*"))
        return (
            time.perf_counter(),
            usage.ru_utime + usage.ru_stime,
            store.committer.commits,
            size,
        )


async def run_all(engine: Engine, document: Any, count: int) -> None:
    """Start `count` runs and wait for the end of each."""
    runs: list[Run] = await asyncio.gather(*(engine.run(document) for _ in range(count)))
    states = await asyncio.gather(*(run.wait() for run in runs))
    if set(states) != {"completed"}:
        raise RuntimeError(f"not all runs completed: {set(states)}")


async def measure_chain(engine: Engine) -> dict[str, Any]:
    """100 nodes one after another, ten times: once takes less than what disturbs it."""
    document = automation("chain", chain(100))
    await run_all(engine, document, 1)
    with Meter(engine, 1_000) as meter:
        for _ in range(10):
            await run_all(engine, document, 1)
    return meter.result


async def measure_many(engine: Engine) -> dict[str, Any]:
    """1,000 runs of 5 nodes, 50 at a time."""
    document = automation("many", chain(5))
    await run_all(engine, document, 50)
    with Meter(engine, 5_000) as meter:
        await run_all(engine, document, 1_000)
    return meter.result


async def measure_fan(engine: Engine) -> dict[str, Any]:
    """One node, then 500 at once, then one."""
    middle = [f"m{i}" for i in range(500)]
    nodes = [node("first", []), *(node(m, ["first"]) for m in middle), node("last", middle)]
    document = automation("fan", nodes, parallel=500)
    with Meter(engine, 502) as meter:
        await run_all(engine, document, 1)
    return meter.result


async def measure_growth(engine: Engine) -> dict[str, Any]:
    """The same many five times on one store; what counts is the last against the first."""
    batches = [await measure_many(engine) for _ in range(5)]
    speeds = [batch["nodes_per_s"] for batch in batches]
    return {**batches[-1], "batches": speeds, "batch5_by_batch1": round(speeds[-1] / speeds[0], 3)}


async def measure_bare(engine: Engine) -> dict[str, Any]:
    """The statements of *many* once more, without an engine: what this machine allows."""
    document = automation("many", chain(5))
    await run_all(engine, document, 50)
    store = engine.parts.store
    copy = Path(store.path).with_name("bare.db")
    target = apsw.Connection(str(copy))
    with target.backup("main", store.committer.connection, "main") as backup:
        backup.step()
    target.close()
    statements = await note_statements(engine, document)
    connection = open_connection(copy, synchronous="FULL")
    wall, cpu = time.perf_counter(), time.process_time()
    for sql, values in statements:
        connection.execute(sql, values).fetchall()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    connection.close()
    commits = sum(sql == "COMMIT" for sql, _ in statements)
    return {
        "nodes": 5_000,
        "wall_s": round(wall, 4),
        "nodes_per_s": round(5_000 / wall, 1),
        "ms_per_node": round(wall / 5, 4),
        "cpu_ms_per_node": round(cpu / 5, 4),
        "commits_per_node": round(commits / 5_000, 4),
    }


async def note_statements(engine: Engine, document: Any) -> list[tuple[str, Any]]:
    """Run 1,000 runs and return what was executed for them, in order, with its values."""
    statements: list[tuple[str, Any]] = []

    def note(_cursor: apsw.Cursor, sql: str, values: Any) -> bool:
        statements.append((sql, values))
        return True

    connection = engine.parts.store.committer.connection
    connection.exec_trace = note
    await run_all(engine, document, 1_000)
    connection.exec_trace = None
    return statements


WORKLOADS = {
    "bare": measure_bare,
    "chain": measure_chain,
    "many": measure_many,
    "fan": measure_fan,
    "growth": measure_growth,
}


async def measure(name: str, folder: str) -> None:
    """Measure one workload and print it."""
    url = f"sqlite:///{folder}/bench.db"
    if name == "bare":
        os.environ["TANDEM_STORE_WRITER"] = "inline"
    async with Engine.open(url, runs_max=50, functions={"bench:body": body}) as engine:
        result = await WORKLOADS[name](engine)
    print(json.dumps({"workload": name, **result}))


def main(name: str, folder: str | None = None) -> None:
    """Measure in this folder, or in one that is removed afterwards."""
    if folder is not None:
        asyncio.run(measure(name, folder))
        return
    where = os.environ.get("TANDEM_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="tandem-bench-", dir=where) as temporary:
        asyncio.run(measure(name, temporary))


if __name__ == "__main__":
    collect_rarely()  # as all commands do
    main(*sys.argv[1:])
