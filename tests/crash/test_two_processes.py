"""Two processes on one store file: each run has one driver, and nobody finds the store locked."""

import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tandem import Automation, Engine
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT, EngineId
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.ports.store import RunFilter
from tandem.testing.store_suite import Scene, chain

PROGRAM = Path(__file__).with_name("pair.py")
RUNS = 24
LIMIT_S = 60
BUSY_NODES = 10_000


class Process:
    """One of the two."""

    def __init__(self, what: str, folder: Path, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), what, str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        assert self._out.readline() == "ready\n"

    def go(self) -> None:
        """Let it begin."""
        print("go", file=self._in, flush=True)

    def result(self) -> dict[str, Any]:
        """Return what it says at its end."""
        said, _ = self._process.communicate(timeout=LIMIT_S)
        assert self._process.returncode == 0
        result: dict[str, Any] = json.loads(said)
        return result

    def end(self) -> None:
        """Kill it if it still lives."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextmanager
def two(first: str, second: str, folder: Path) -> Iterator[tuple[Process, Process]]:
    """Start two processes; they begin together when both are told."""
    one = Process(first, folder, "one")
    try:
        other = Process(second, folder, "other")
        try:
            yield one, other
        finally:
            other.end()
    finally:
        one.end()


async def create_runs(folder: Path) -> None:
    """Create runs that belong to nobody."""
    automation = Automation.from_dict(
        {
            "automation_id": "small",
            "inputs": {"type": "object", "properties": {"run_no": {"type": "integer"}}},
            "nodes": [
                {
                    "node_id": name,
                    "depends_on": after,
                    "action": {
                        "kind": "python",
                        "function": "host:work",
                        "arguments": {"run_no": "${inputs.run_no}"},
                    },
                }
                for name, after in [("a", []), ("b", ["a"]), ("c", ["b"])]
            ],
        }
    )
    async with Engine.open(f"sqlite:///{folder}/store.db", runs_max=0) as engine:
        for number in range(RUNS):
            await engine.run(automation, {"run_no": number})


async def test_each_run_is_driven_by_exactly_one_process(tmp_path: Path) -> None:
    await create_runs(tmp_path)

    with two("drive", "drive", tmp_path) as processes:
        for process in processes:
            process.go()
        engines = {process.result()["engine_id"] for process in processes}

    store = SqliteStore(tmp_path / "store.db")
    runs = store.list_runs(RunFilter(tenant=LOCAL_TENANT, limit=RUNS + 1))
    assert [run.status for run in runs] == [RunState.COMPLETED] * RUNS
    drivers = Counter[str]()
    for run in runs:
        events = store.list_events(run.run_id, tenant=LOCAL_TENANT, after_seq=0, limit=100)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert [event.event for event in events].count(RunEvent.RUN_CLAIMED) == 1
        attempts = store.list_attempts(run.run_id, tenant=LOCAL_TENANT)
        assert len(attempts) == 3
        assert len({attempt.engine_id for attempt in attempts}) == 1
        drivers[attempts[0].engine_id] += 1
    assert set(drivers) == engines, "one of them had nothing to do; the test shows little"
    lines = (tmp_path / "effects.log").read_text().splitlines()
    assert Counter(line.split()[0] for line in lines) == {str(n): 3 for n in range(RUNS)}
    assert len(set(lines)) == RUNS
    assert store.check() == []
    store.close()


async def test_process_that_commits_back_to_back_does_not_lock_the_other_out(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await Scene(store).create("long", chain(BUSY_NODES), owner=EngineId("one"))
    store.close()

    with two("busy", "calm", tmp_path) as (busy, calm):
        busy.go()
        calm.go()
        took_ms = calm.result()["took_ms"]
        busy.go()
        commits = busy.result()["commits"]

    # Neither met an error, and the busy one was busy: with two that never rest, turns alternate.
    assert commits > len(took_ms) / 2
    assert statistics.quantiles(took_ms, n=20)[-1] < 250
