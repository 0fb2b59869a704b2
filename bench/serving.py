"""What a real server answers over a store with many runs: one run, and the newest fifty.

python bench/serving.py [--runs N] [--seconds S]

The server is `tandem serve` with a token; a process of its own asks over 16 connections that stay
open, each for the next answer as soon as it has the last one. Per path it prints one JSON line:
requests a second, how long they took, and the processor time that server and asker spent on each.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop
from records import RUN, fill
from server import Server

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.json import encode

CONNECTIONS = 16
TOKEN = "bench-token-of-the-environment"
OUTPUT = encode({"text": "done"})
PATHS = {
    "one": f"/automations/v2/runs/{RUN}",
    "newest_50": "/automations/v2/runs?limit=50",
    "health": "/global/health",
}
WARM_S = 0.5


class Asker(asyncio.Protocol):
    """One connection that asks again and again."""

    def __init__(self, request: bytes, took_s: list[float]) -> None:
        self._request = request
        self._took_s = took_s
        self._left = 0
        self._head = b""
        self._began = 0.0
        self._transport: Any = None
        self.sizes: set[int] = set()

    def connection_made(self, transport: Any) -> None:
        """Ask for the first time."""
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Count what comes; at the end of an answer ask for the next."""
        if not self._left:
            self._head += data
            head, found, body = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(self._head[:500])
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self.sizes.add(length)
            self._head, self._left, data = b"", length, body
        self._left -= len(data)
        if not self._left:
            self._took_s.append(time.perf_counter() - self._began)
            self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._request)


async def ask_all(port: int, path: str, seconds: float) -> dict[str, Any]:
    """Ask for so long over all connections; return what was seen."""
    request = (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    )
    took_s: list[float] = []
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Asker(request.encode(), took_s), "127.0.0.1", port)
        for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(WARM_S)
    took_s.clear()
    spent_s, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    wall_s, spent_s = time.perf_counter() - began, time.process_time() - spent_s
    found = sorted(took_s)
    for transport, _ in made:
        transport.abort()
    return {
        "bytes": max(size for _, asker in made for size in asker.sizes),
        "requests": len(found),
        "requests_per_s": round(len(found) / wall_s),
        "p50_ms": round(1_000 * statistics.median(found), 2),
        "p99_ms": round(1_000 * found[len(found) * 99 // 100], 2),
        "asker_cpu_us": round(1e6 * spent_s / len(found)),
    }


def measure(server: Server, name: str, seconds: float) -> dict[str, Any]:
    """Have another process ask for one path."""
    spent_s = server.spent_s()
    done = subprocess.run(
        [sys.executable, __file__, "--ask", str(server.port), PATHS[name], f"--seconds={seconds}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    # What was asked while it warmed up is in neither count's rate, but in the server's time.
    asked = found["requests"] * (1 + WARM_S / seconds)
    cpu_us = round(1e6 * (server.spent_s() - spent_s) / asked)
    return {"workload": f"http_{name}", **found, "server_cpu_us": cpu_us}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(PATHS))
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--ask", nargs=2, metavar=("PORT", "PATH"))
    arguments = parser.parse_args()
    if arguments.ask:
        port, path = arguments.ask
        print(json.dumps(uvloop.run(ask_all(int(port), path, arguments.seconds))))
        return
    where = os.environ.get("TANDEM_BENCH_DIR")
    with tempfile.TemporaryDirectory(prefix="tandem-http-", dir=where) as folder:
        store = SqliteStore(Path(folder) / "tandem.db", synchronous="OFF")
        asyncio.run(fill(store, arguments.runs, output=OUTPUT))
        store.close()
        server = Server(folder, TANDEM_API_TOKEN=TOKEN)
        try:
            for name in arguments.names:
                found = measure(server, name, arguments.seconds)
                print(json.dumps({**found, "runs": arguments.runs}), flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
