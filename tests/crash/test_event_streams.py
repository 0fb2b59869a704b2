"""Streams over a server that is killed under load, and over processes that commit at once."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from tests.adapters.http.streams import reading
from tests.forked import Forked

from tandem.adapters.local.clock import SystemClock
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT
from tandem.engine.event_feed import EventFeed, Told, Wanted

LIMIT_S = 90
CREATORS = 4
RUNS_AFTER = 6
"""How many runs each creator makes after the server was killed."""
READERS = 12
ENDS = {"automation.v2.run.completed", "automation.v2.run.failed", "automation.v2.run.blocked"}
AUTOMATION = {
    "automation_id": "job",
    "name": "job",
    "status": "active",
    "schedule": {"type": "manual"},
    "flow": {
        "nodes": [
            {
                "node_id": f"n{number}",
                "objective": "Tell the time.",
                "depends_on": [f"n{number - 1}"] if number else [],
                "action": {"kind": "python", "function": "time:time"},
            }
            for number in range(3)
        ]
    },
}
WRITER = """
import asyncio, sys
from pathlib import Path
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT
from tandem.testing.store_suite import Scene

async def main(name):
    store = SqliteStore(Path(sys.argv[1]), synchronous="OFF")
    scene = Scene(store, name=name)
    print("ready", flush=True)
    sys.stdin.readline()
    for first in range(0, 300, 10):
        await asyncio.gather(*(scene.create(f"{name}{first + n}") for n in range(10)))
        while not store.list_run_ids({"a": "b", "b": "a"}[name], tenant=LOCAL_TENANT, limit=1):
            await asyncio.sleep(0.001)  # they meet, however fast one of them is
    store.close()

asyncio.run(main(sys.argv[2]))
"""


class Served:
    """`tandem serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.process = Forked(
            [sys.executable, "-m", "tandem", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "TANDEM_STATE_DIR": str(folder),
                "TANDEM_LOG_FORMAT": "console",
                "TANDEM_LOG_LEVEL": "error",  # nobody empties the pipe
            },
        )
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "serving on http://" in line)
        self.port = int(line.strip().rsplit(":", 1)[1])

    async def ask(self, method: str, path: str, body: object = None, *, key: str = "") -> Any:
        """Return an answer.

        Raises:
            OSError: the server is not there, or went before its answer was.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        content = b"" if body is None else json.dumps(body).encode()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
            f"idempotency-key: {key}\r\n\r\n".encode()
            + content
        )
        try:
            head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if not answer.endswith(b"}") or b" 503 " in head:
            raise ConnectionResetError("the server was killed, or begins")
        assert b" 200 " in head.split(b"\r\n")[0], answer
        return json.loads(answer)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Follower:
    """Follows one run, or all, over every connection that it needs."""

    def __init__(self, query: str, after: str, *, runs: int = sys.maxsize) -> None:
        self.query = query
        self.runs = runs
        self.last_id = after
        self.heard: list[tuple[str, int]] = []
        self.ended: set[str] = set()
        self.ends: list[str] = []
        self.resets = 0

    async def follow(self, served: list[Served]) -> None:
        while len(self.ended) < self.runs:
            try:
                await self._listen(served[-1].port)
            except OSError:
                await asyncio.sleep(0.05)  # nobody listens there any more, or not yet

    async def _listen(self, port: int) -> None:
        path = f"/automations/v2/events{self.query}"
        headers = {"last-event-id": self.last_id} if self.last_id else {}
        try:
            async with reading(port, path, headers) as stream:
                while len(self.ended) < self.runs and (frame := await stream.frame()) is not None:
                    self.last_id = frame.id or self.last_id
                    self.resets += frame.type == "stream.reset"
                    envelope = frame.document.get("envelope")
                    if envelope is not None:
                        self.heard.append((envelope["run_id"], envelope["seq"]))
                    if frame.type in ENDS:
                        self.ended.add(frame.document["runID"])
                        self.ends.append(frame.document["runID"])
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the server is dead") from error


async def create(served: list[Served], key: str) -> str:
    """Return the run of a key; ask again until an answer says it."""
    while True:
        try:
            started = await served[-1].ask("POST", "/automations/v2/job/run_now", {}, key=key)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return str(started["run"]["run_id"])


async def test_a_killed_server_costs_no_run_and_no_reader_an_event(tmp_path: Path) -> None:
    served = [Served(tmp_path)]
    run_ids: list[str] = []
    try:
        async with asyncio.timeout(LIMIT_S):
            await served[0].ask("POST", "/automations/v2", AUTOMATION)
            async with reading(served[0].port, "/automations/v2/events") as stream:
                first = await stream.frame()
                assert first is not None
            everything = Follower("", first.id)
            followers = [everything]
            killed = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(everything.follow(served))

                async def make(numbers: Iterator[int]) -> None:
                    left = RUNS_AFTER
                    while left:
                        left -= killed.is_set()
                        run_id = await create(served, f"key-{next(numbers)}")
                        run_ids.append(run_id)
                        if len(followers) <= READERS:
                            one = Follower(f"?run_id={run_id}", first.id, runs=1)
                            followers.append(one)
                            group.create_task(one.follow(served))

                numbers = count()
                creators = [group.create_task(make(numbers)) for _ in range(CREATORS)]
                while not everything.ended:
                    await asyncio.sleep(0.01)
                served[0].process.kill()
                killed.set()
                acknowledged = len(run_ids)
                served[0].process.wait()
                served.append(Served(tmp_path))
                await asyncio.wait(creators)
                while not everything.ended.issuperset(run_ids):
                    await asyncio.sleep(0.01)
                listener.cancel()
            listed = await served[-1].ask("GET", "/automations/v2/job/runs?limit=500")
    finally:
        for one in served:
            one.end()
    assert 0 < acknowledged <= len(run_ids) - CREATORS, "it was not killed under load"
    assert {run["run_id"] for run in listed["runs"]} == set(run_ids) == everything.ended
    assert len(listed["runs"]) == len(run_ids), "a repeated creation made another run"
    assert {run["status"] for run in listed["runs"]} == {"completed"}
    for follower in followers:
        assert follower.resets == 0
        assert len(follower.heard) == len(set(follower.heard)), "something came twice"
        assert sorted(follower.ends) == sorted(follower.ended), "a run has ended twice"
        for run_id in follower.ended:
            numbers = [seq for heard, seq in follower.heard if heard == run_id]
            assert numbers == list(range(1, len(numbers) + 1)), run_id


async def test_events_of_processes_that_commit_at_once_are_all_heard_in_order(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, synchronous="OFF")
    heard: list[Told] = []
    async with EventFeed(store, SystemClock()) as feed, asyncio.timeout(LIMIT_S):
        with feed.subscribe(Wanted(tenant=LOCAL_TENANT)) as reader:
            assert not await reader.next(wait_ms=1)
            writers = [
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, str(path), name],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for name in ("a", "b")
            ]
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == "ready\n"
            for writer in writers:
                assert writer.stdin is not None
                print("go", file=writer.stdin, flush=True)
            while len(heard) < 600:
                heard += await reader.next(wait_ms=1_000)
                assert reader.ending is None
            for writer in writers:
                writer.communicate()
            assert [writer.returncode for writer in writers] == [0, 0]
    store.close()
    positions = [told.cursor.position for told in heard]
    assert positions == sorted(set(positions))
    assert {told.run_id for told in heard} == {f"{w}{n}" for w in "ab" for n in range(300)}
    order = [told.run_id[0] for told in heard]
    assert order != sorted(order), "the two have not met"
