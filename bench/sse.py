"""The live events under load: many readers on a real server while many runs execute.

python bench/sse.py [--readers N] [--runs N] [--json]

Two readers follow everything, each other one a run of its own. Nobody may miss an event or get one
twice; `lag_s` is how long after the end of the last run the last reader had everything.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from typing import Any

from server import Server

AUTOMATION = {
    "automation_id": "bench",
    "name": "bench",
    "status": "active",
    "schedule": {"type": "manual"},
    "execution": {"max_parallel_agents": 4},
    "flow": {
        "nodes": [
            {
                "node_id": f"n{number}",
                "objective": "Tell the time.",
                "depends_on": [f"n{number - 1}"] if number else [],
                "action": {"kind": "python", "function": "time:time"},
            }
            for number in range(2)
        ]
    },
}
END = "automation.v2.run.completed"
TIMEOUT_S = 600


async def ask(port: int, method: str, path: str, body: object = None) -> Any:
    """Ask for a document."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = b"" if body is None else json.dumps(body).encode()
    writer.write(
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        + content
    )
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError(f"{method} {path}: {head!r} {answer!r}")
    return json.loads(answer)


class Reader:
    """One reader; it comes again with its last id when it is dropped."""

    def __init__(self, port: int, query: str, runs: int, after: str = "") -> None:
        self._port = port
        self._query = query
        self._runs = runs
        self.last_id = after
        self.connections = 0
        self.seen: Counter[tuple[str, int]] = Counter()
        self.ended: set[str] = set()
        self.done_at = 0.0
        self.is_ready = asyncio.Event()

    async def read(self) -> None:
        """Read until every run has ended."""
        while len(self.ended) < self._runs:
            self.connections += 1
            await self._connect()
        self.done_at = time.time()

    async def _connect(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        after = f"last-event-id: {self.last_id}\r\n" if self.last_id else ""
        path = f"/automations/v2/events{self._query}"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{after}\r\n".encode())
        try:
            while len(self.ended) < self._runs:
                line = await reader.readline()
                if not line:
                    return
                if line.startswith(b"id: "):
                    self.last_id = line[4:].strip().decode()
                elif line.startswith(b"data: "):
                    self._take(json.loads(line[6:]))
        finally:
            writer.close()

    def _take(self, document: Any) -> None:
        self.is_ready.set()
        envelope = document.get("envelope")
        if envelope is None:
            return
        self.seen[envelope["run_id"], envelope["seq"]] += 1
        if document["type"] == END:
            self.ended.add(envelope["run_id"])

    def missed(self) -> int:
        """Count the gaps in the numbers of each run."""
        newest: dict[str, int] = {}
        for run_id, seq in self.seen:
            newest[run_id] = max(seq, newest.get(run_id, 0))
        return sum(newest.values()) - len(self.seen)

    def repeated(self) -> int:
        """Count what came more than once."""
        return sum(self.seen.values()) - len(self.seen)


async def load(server: Server, *, readers: int, runs: int) -> dict[str, Any]:
    """Put the load on the server and measure."""
    await ask(server.port, "POST", "/automations/v2", AUTOMATION)
    rss_before_mb = server.rss_mb()
    following = [Reader(server.port, "", runs) for _ in range(min(2, readers))]
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        for reader in following:
            group.create_task(reader.read())
            await reader.is_ready.wait()
        start = following[0].last_id
        began = time.time()
        places = asyncio.Semaphore(16)

        async def run(number: int) -> None:
            async with places:
                path = "/automations/v2/bench/run_now"
                run_id = (await ask(server.port, "POST", path, {}))["run"]["run_id"]
            if number < readers - 2:
                one = Reader(server.port, f"?run_id={run_id}", 1, after=start)
                following.append(one)
                group.create_task(one.read())

        async with asyncio.TaskGroup() as starting:
            for number in range(runs):
                starting.create_task(run(number))
        created_s = time.time() - began
    summaries = await ask(server.port, "GET", "/automations/v2/bench/runs?limit=500")
    ended_at = max(run["finished_at_ms"] for run in summaries["runs"]) / 1_000
    events = len(following[0].seen)
    return {
        "workload": "sse",
        "readers": len(following),
        "runs": runs,
        "events": events,
        "missed": sum(reader.missed() for reader in following),
        "repeated": sum(reader.repeated() for reader in following),
        "dropped": sum(reader.connections - 1 for reader in following),
        "creating_s": round(created_s, 1),
        "all_s": round(ended_at - began, 1),
        "events_per_s": round(events / max(ended_at - began, 0.001)),
        "lag_s": round(max(0.0, max(reader.done_at for reader in following) - ended_at), 2),
        "rss_before_mb": round(rss_before_mb),
        "rss_peak_mb": round(server.rss_mb("VmHWM")),
    }


def main() -> int:
    """Measure, print, and fail when somebody missed something."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1_000)
    arguments = parser.parse_args()
    where = os.environ.get("TANDEM_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="tandem-sse-", dir=where) as folder:
        server = Server(folder, TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS="64")
        try:
            found = asyncio.run(load(server, readers=arguments.readers, runs=arguments.runs))
        finally:
            stop_s = server.stop()
    print(json.dumps({**found, "stop_s": round(stop_s, 2)}))
    return 1 if found["missed"] or found["repeated"] else 0


if __name__ == "__main__":
    sys.exit(main())
