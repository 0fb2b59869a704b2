"""A program that runs under a supervisor, seen from the engine."""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence

import msgspec

logger = logging.getLogger(__name__)


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to start: no shell, exactly this environment, in the absolute directory `cwd`."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str


class Exited(msgspec.Struct, frozen=True):
    """The program ended by itself with an exit code."""

    code: int


class Signalled(msgspec.Struct, frozen=True):
    """The program was ended by a signal."""

    number: int


class NotStarted(msgspec.Struct, frozen=True):
    """The program never ran. `stage` is `isolate`, `cwd` or `exec`; `errno` says why."""

    stage: str
    errno: int


class SupervisorLost(msgspec.Struct, frozen=True):
    """Something killed the supervisor; its program is dead, what that left must be looked for."""


Ending = Exited | Signalled | NotStarted | SupervisorLost


class Process:
    """One supervised program.

    When it has ended, everything that came from it is dead. The owner must await `end` (or see
    `wait` return) before it lets go of a process.
    """

    def __init__(self, control: socket.socket, request: bytes) -> None:
        """Send `request` on `control`, which from now on belongs to this object."""
        control.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._outgoing = bytearray(request)
        self._incoming = bytearray()
        self._ended: asyncio.Future[Ending] = self._loop.create_future()
        self._loop.add_reader(control, self._read)
        self._flush()

    @property
    def has_ended(self) -> bool:
        """Whether the program and everything that came from it is gone."""
        return self._ended.done()

    @property
    def is_lost(self) -> bool:
        """Whether it ended because its supervisor was killed; its processes may be left."""
        return self.has_ended and isinstance(self._ended.result(), SupervisorLost)

    def call_at_end(self, callback: Callable[[], object]) -> None:
        """Call `callback` on the loop once the program is gone."""
        self._ended.add_done_callback(lambda _: callback())

    async def wait(self) -> Ending:
        """Return how the program ended. Cancelling this does not touch the program."""
        return await asyncio.shield(self._ended)

    def stop(self, grace_ms: int) -> None:
        """Send SIGTERM to all of its processes, and SIGKILL to those left after `grace_ms`."""
        if not self.has_ended:
            self._outgoing += b"stop %d\n" % grace_ms
            self._flush()

    def kill(self) -> None:
        """Send SIGKILL to all of its processes; `wait` tells when they are gone."""
        if not self.has_ended:
            self._outgoing.clear()
            self._loop.remove_writer(self._control)
            try:
                self._control.shutdown(socket.SHUT_WR)
            except OSError:  # the supervisor is gone already, `_read` will see it
                return

    async def end(self, *, grace_ms: int = 0) -> Ending:
        """Stop or kill the program and return when all of it is gone.

        A cancellation that arrives meanwhile is raised after that, never before; with a grace
        time it turns the stop into a kill.
        """
        if grace_ms:
            self.stop(grace_ms)
        else:
            self.kill()
        cancelled: asyncio.CancelledError | None = None
        while not self._ended.done():
            try:
                await asyncio.wait((self._ended,))
            except asyncio.CancelledError as error:
                cancelled = error
                self.kill()
        if cancelled is not None:
            raise cancelled
        return self._ended.result()

    def _flush(self) -> None:
        try:
            sent = self._control.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:  # the supervisor is gone, `_read` will see it
            self._outgoing.clear()
            sent = 0
        del self._outgoing[:sent]
        if self._outgoing:
            self._loop.add_writer(self._control, self._flush)
        else:
            self._loop.remove_writer(self._control)

    def _read(self) -> None:
        try:
            chunk = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._incoming += chunk
        *lines, rest = bytes(self._incoming).split(b"\n")
        self._incoming = bytearray(rest)
        for line in lines:
            self._hear(line.decode().split())
        if not chunk:
            self._finish(SupervisorLost())

    def _hear(self, words: Sequence[str]) -> None:
        match words:
            case ["exit", code]:
                self._finish(Exited(int(code)))
            case ["signal", number]:
                self._finish(Signalled(int(number)))
            case ["failed", stage, errno]:
                self._finish(NotStarted(stage, int(errno)))
            case ["stuck", *pids]:
                logger.warning("processes %s do not die by SIGKILL; waiting", ", ".join(pids))
            case _:
                raise AssertionError(f"a supervisor said {words!r}")

    def _finish(self, ending: Ending) -> None:
        if self._ended.done():
            return
        self._loop.remove_writer(self._control)
        self._loop.remove_reader(self._control)
        self._control.close()
        self._ended.set_result(ending)
