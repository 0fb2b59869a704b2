"""The helper process of an engine that forks a supervisor for each program."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tandem.adapters.local.process import Exited, Process, Program
from tandem.domain.ids import EngineId

Isolation = Literal["auto", "pid_namespace", "subreaper"]

SUPERVISOR = Path(__file__).with_name("supervisor.py")
HELPER_END_MAX_S = 15.0


class Spawner:
    """Starts programs so that nothing of them survives the engine.

    The helper is a small process of its own, started with the first program: forking from it
    costs a tenth of starting an interpreter per program, and the engine's loop never waits for a
    fork. It carries TANDEM_ENGINE_ID, so that a takeover finds it and its supervisors.

    Args:
        isolation: `pid_namespace` runs each program in a PID namespace, so that not even one
            that clears its environment and outlives its supervisor stays. `auto` does so where
            root may (without root it takes a user namespace, in which setuid programs do not
            work). `subreaper` never does.
    """

    def __init__(self, isolation: Isolation = "auto") -> None:
        self._isolation = isolation
        self._isolates: bool | None = None if isolation == "auto" else isolation != "subreaper"
        self._deciding = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._helper: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._processes: set[Process] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def isolates(self, engine_id: EngineId) -> bool:
        """Say whether programs get a PID namespace of their own; tried out once."""
        if self._isolates is None:
            async with self._deciding:
                if self._isolates is None:
                    self._isolates = os.geteuid() == 0 and await self._can_isolate(engine_id)
        return self._isolates

    async def start(
        self, program: Program, *, engine_id: EngineId, stdout: int, stderr: int, extra: int = -1
    ) -> Process:
        """Start `program` with these descriptors; with `extra` it gets one more, as number 3.

        The descriptors are only borrowed: the caller closes its own. That the program cannot be
        started is an ending of the process, not an error.
        """
        isolate = await self.isolates(engine_id)
        fds = [stdout, stderr] if extra < 0 else [stdout, stderr, extra]
        return await self._request(program, fds, engine_id, isolate=isolate)

    async def close(self) -> None:
        """Kill the programs that still run and end the helper; twice is harmless."""
        for process in tuple(self._processes):
            await process.end()
        if self._helper is None or self._requests is None:
            return
        helper, requests = self._helper, self._requests
        self._helper = self._requests = None
        try:
            requests.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(HELPER_END_MAX_S):
                await asyncio.get_running_loop().sock_recv(requests, 1)
        except (OSError, TimeoutError):
            helper.kill()
        finally:
            requests.close()
            # It has closed its socket or was killed, so this returns at once.
            helper.wait(HELPER_END_MAX_S)

    async def _can_isolate(self, engine_id: EngineId) -> bool:
        trial = Program(argv=(), env={}, cwd="/")
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            process = await self._request(trial, [null, null], engine_id, isolate=True)
        finally:
            os.close(null)
        try:
            return await process.wait() == Exited(0)
        finally:
            await process.end()

    async def _request(
        self, program: Program, fds: list[int], engine_id: EngineId, *, isolate: bool
    ) -> Process:
        body = json.dumps(
            {
                "argv": list(program.argv),
                "env": dict(program.env),
                "cwd": program.cwd,
                "isolate": isolate,
            }
        ).encode()
        ours, theirs = socket.socketpair()
        try:
            await self._ask([theirs.fileno(), *fds], engine_id)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        process = Process(ours, b"%d\n%s" % (len(body), body))
        self._processes.add(process)
        process.call_at_end(lambda: self._processes.discard(process))
        return process

    async def _ask(self, fds: list[int], engine_id: EngineId) -> None:
        """Hand descriptors to the helper; a helper that was killed is replaced."""
        async with self._asking:  # one waits for a writable socket at a time
            while True:
                requests = self._ready_helper(engine_id)
                try:
                    socket.send_fds(requests, [b"+"], fds)
                    return
                except BlockingIOError:
                    await _writable(requests)
                except (BrokenPipeError, ConnectionResetError):
                    self._forget_helper()

    def _ready_helper(self, engine_id: EngineId) -> socket.socket:
        if self._helper is not None and self._helper.poll() is not None:
            self._forget_helper()
        if self._requests is None:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with theirs:
                self._helper = subprocess.Popen(
                    helper_command(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={"TANDEM_ENGINE_ID": engine_id},
                    start_new_session=True,
                )
            self._requests = ours
        return self._requests

    def _forget_helper(self) -> None:
        if self._requests is not None:
            self._requests.close()
        if self._helper is not None:
            self._helper.kill()
            self._helper.wait()
        self._helper = self._requests = None


def helper_command(socket_fd: int) -> list[str]:
    """Return the command line of a helper that serves this process on `socket_fd`."""
    return [sys.executable, "-I", "-S", str(SUPERVISOR), str(socket_fd), str(os.getpid())]


async def _writable(endpoint: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(endpoint, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(endpoint)
