"""Warm worker processes for `python` actions."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tandem.adapters.local.output import Output
from tandem.adapters.local.process import Ending, Process, Program
from tandem.adapters.local.spawner import Spawner
from tandem.domain.ids import EngineId
from tandem.ports.executor import Progress

ANSWER_BYTES_MAX = 1 << 30
"""Only a net: the worker itself bounds its answers by the attempt's output bound."""
WAITING_REPORT_S = 2.0

PACKAGE_ROOT = str(Path(__file__).parents[3])
BOOT = f"import sys; sys.path.append({PACKAGE_ROOT!r}); " + (
    "from tandem.adapters.local.worker import main; main()"
)
"""Our modules are loaded before the workspace is on the path, which may hold a `json.py`."""


class WorkerKey(msgspec.Struct, frozen=True):
    """What a worker is made for; a job of another key needs another worker."""

    engine_id: EngineId
    folders: tuple[str, ...]
    env: tuple[tuple[str, str], ...]


class Worker:
    """One worker process. `is_reusable` tells whether it may get another job."""

    def __init__(self, key: WorkerKey, process: Process, pipes: tuple[int, int]) -> None:
        self.key = key
        self.is_reusable = True
        self._is_warm = False
        self._process = process
        self._pipes = pipes

    async def connect(self, channel: socket.socket) -> None:
        """Take over our end of the channel."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=channel, limit=ANSWER_BYTES_MAX
        )

    @property
    def is_alive(self) -> bool:
        """Whether its process still runs."""
        return not self._process.has_ended

    @property
    def is_lost(self) -> bool:
        """Whether its supervisor was killed, so that what it started may be left."""
        return self._process.is_lost

    async def call(
        self, job: Mapping[str, Any], stdout: Output, stderr: Output
    ) -> dict[str, Any] | Ending:
        """Send one job and return the answer, or how the worker died.

        The outputs get what user code prints meanwhile. A warm worker that died before it began
        answers `stale`, like one with old modules: the job may go to another worker.
        """
        was_warm, self._is_warm = self._is_warm, True
        self.is_reusable = False
        for output, fd in zip((stdout, stderr), self._pipes, strict=True):
            output.attach(fd)
        self._writer.write(msgspec.json.encode(job) + b"\n")
        with suppress(ConnectionError):
            await self._writer.drain()
        first = await self._line()
        if first is None and was_warm:
            return {"kind": "stale"}
        answer = await self._line() if first == {"kind": "begun"} else first
        if answer is None:
            return await self._process.wait()
        self.is_reusable = answer["kind"] != "stale" and not answer["is_dirty"]
        return answer

    async def _line(self) -> dict[str, Any] | None:
        line = b""
        with suppress(ConnectionError):
            line = await self._reader.readline()
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    async def end(self) -> None:
        """Kill the worker with all it started; return when that is gone."""
        try:
            await self._process.end()
        finally:
            if hasattr(self, "_writer"):
                self._writer.close()

    def close_pipes(self) -> None:
        """Close the pipes; only after `end` and after the outputs were closed."""
        for fd in self._pipes:
            os.close(fd)
        self._pipes = (-1, -1)


class WorkerPool:
    """Hands out workers, at most `workers_max` at a time, and keeps idle ones warm."""

    def __init__(self, spawner: Spawner, *, workers_max: int | None = None) -> None:
        self._spawner = spawner
        self._workers_max = workers_max or max(2, os.cpu_count() or 1)
        self._slots = asyncio.Semaphore(self._workers_max)
        self._idle: list[Worker] = []
        self._alive = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def lease(self, key: WorkerKey, progress: Progress) -> AsyncIterator[Worker]:
        """Yield a worker for one job; waiting for one counts as activity.

        A worker that is not reusable afterwards is killed with all that it started.
        """
        await self._slot(progress)
        try:
            worker = await self._worker(key)
            try:
                yield worker
            finally:
                if worker.is_reusable and worker.is_alive:
                    self._idle.append(worker)
                else:
                    await self._end(worker)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """End the idle workers. Those at work belong to their jobs."""
        while self._idle:
            await self._end(self._idle.pop())

    async def _slot(self, progress: Progress) -> None:
        while True:
            try:
                async with asyncio.timeout(WAITING_REPORT_S):
                    await self._slots.acquire()
                return
            except TimeoutError:
                progress("event", "waiting for a free worker process")

    async def _worker(self, key: WorkerKey) -> Worker:
        for worker in reversed(self._idle):  # the warmest first
            if worker.key == key:
                self._idle.remove(worker)
                if worker.is_alive:
                    return worker
                await self._end(worker)
                break
        while self._idle and self._alive >= self._workers_max:
            await self._end(self._idle.pop(0))
        return await self._start(key)

    async def _start(self, key: WorkerKey) -> Worker:
        self._alive += 1
        ours, theirs = socket.socketpair()
        stdout, stdout_write = os.pipe()
        stderr, stderr_write = os.pipe()
        try:
            process = await self._spawner.start(
                Program(argv=worker_command(key.folders), env=dict(key.env), cwd="/"),
                engine_id=key.engine_id,
                stdout=stdout_write,
                stderr=stderr_write,
                extra=theirs.fileno(),
            )
        except BaseException:
            self._alive -= 1
            ours.close()
            os.close(stdout)
            os.close(stderr)
            raise
        finally:
            theirs.close()
            os.close(stdout_write)
            os.close(stderr_write)
        for fd in (stdout, stderr):
            os.set_blocking(fd, False)
        worker = Worker(key, process, (stdout, stderr))
        try:
            ours.setblocking(False)
            await worker.connect(ours)
        except BaseException:
            ours.close()
            await self._end(worker)
            raise
        return worker

    async def _end(self, worker: Worker) -> None:
        try:
            await worker.end()
        finally:
            self._alive -= 1
            worker.close_pipes()


def worker_command(folders: tuple[str, ...]) -> list[str]:
    """Return the command line of a worker.

    `-P` keeps the working directory off the path while our modules load. `-B` leaves no
    `__pycache__` in workspaces; those also hide an edit within the same second.
    """
    return [sys.executable, "-P", "-B", "-c", BOOT, msgspec.json.encode(folders).decode()]
