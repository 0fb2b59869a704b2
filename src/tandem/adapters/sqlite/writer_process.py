"""The engine's end of a writer process: starts it, sends it writes, hears of them, sees it die."""

import asyncio
import itertools
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.sqlite.frames import Answer, Ask, Decided, Frames, Performed, Ready, frame
from tandem.adapters.sqlite.tables import Tables
from tandem.adapters.sqlite.writes import Write

WRITER_PROGRAM: Final = (sys.executable, "-P", "-m", "tandem.adapters.sqlite.writer_main")
_READ_BYTES = 1 << 20
_REAP_POLL_S = 0.005
_REAP_MAX_S = 10.0


class Pending:
    """A write that is not decided yet, with the future of the one who asked."""

    __slots__ = ("future", "raw", "write")

    def __init__(self, write: Write[Any], future: asyncio.Future[Any]) -> None:
        self.write = write
        self.future = future
        self.raw: bytes | None = None
        """The result, if it is committed; known before the commit."""

    def result(self, tables: Tables, connection: apsw.Connection) -> Any:
        """Read the result; None when nothing was heard of one."""
        if self.raw is None:
            return None
        return self.write.receive(tables, connection, self.raw)

    def tell(self, result: Any = None, *, error: BaseException | None = None) -> None:
        """Answer the one who asked, who may be gone."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
            self.future.exception()  # nobody has to look at it
        else:
            self.future.set_result(result)


class WriterProcess:
    """One child process that writes. Answers come on the loop that started or last used it."""

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str,
        program: Sequence[str],
        loop: asyncio.AbstractEventLoop,
        decided: Callable[[Pending], None],
        ready: Callable[[], None],
        gone: Callable[[], None],
    ) -> None:
        """Start the program.

        Args:
            path: of the store.
            synchronous: as `PRAGMA synchronous`.
            program: what to start; it is given the path, `synchronous` and a socket.
            loop: on which answers are heard.
            decided: a write is on disk; its future is not done yet.
            ready: it has the file open.
            gone: it is dead and reaped; `undecided` has what it left.

        Raises:
            OSError: it could not be started.
        """
        self._decided = decided
        self._ready = ready
        self._gone = gone
        self._loop = loop
        self._numbers = itertools.count(1)
        self._sent: dict[int, Pending] = {}
        self._unsent = bytearray()
        self._frames = Frames()
        self._decoder = msgspec.msgpack.Decoder(Answer)
        self._is_ended = False
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*program, str(path), synchronous, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except BaseException:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        loop.add_reader(self._socket, self._read)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def undecided(self) -> list[Pending]:
        """The writes that were sent and not answered, in their order."""
        return list(self._sent.values())

    def send(self, writes: Iterable[Pending], loop: asyncio.AbstractEventLoop) -> None:
        """Send writes. One that cannot be written as bytes is refused, the others are sent."""
        self._use(loop)
        for pending in writes:
            number = next(self._numbers)
            try:
                data = frame(Ask(number, pending.write))  # type: ignore[arg-type] # of `AnyWrite`
            except Exception as error:  # noqa: BLE001 # the one who asked hears of it
                pending.tell(error=error)
                continue
            self._sent[number] = pending
            self._unsent += data
        self._write()

    def _use(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._loop or self._is_ended:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._loop = loop
        loop.add_reader(self._socket, self._read)

    def _write(self) -> None:
        if self._is_ended:
            return
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._write)
            return
        except OSError:
            self._unsent.clear()  # it is dead; what it still said is read to the end first
        self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        while not self._is_ended:
            more = self._receive()
            if more is None:
                return
            if not more:
                self._end()
                return
            self._hear(more)

    def _receive(self) -> bytes | None:
        try:
            return self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _hear(self, more: bytes) -> None:
        for body in self._frames.feed(more):
            answer: Answer = self._decoder.decode(body)
            match answer:
                case Ready():
                    self._ready()
                case Performed():
                    self._sent[answer.number].raw = answer.result
                case Decided():
                    pending = self._sent.pop(answer.number)
                    if answer.trouble is None:
                        self._decided(pending)
                    else:
                        pending.tell(error=answer.trouble.error())

    def _end(self) -> None:
        """The socket ended. Only when the process is reaped has it surely stopped writing."""
        self._is_ended = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._process.kill()
        self._reap()

    def _reap(self) -> None:
        if self._process.poll() is None:
            self._loop.call_later(_REAP_POLL_S, self._reap)
        else:
            self._gone()

    def close(self) -> bool:
        """Kill it and hear what it still said; False when it could not be proven dead.

        `gone` is not called. A write that it was committing is in `undecided`.
        """
        self._gone = _nothing
        self._process.kill()
        try:
            self._process.wait(_REAP_MAX_S)
        except subprocess.TimeoutExpired:
            return False
        self._read()
        return True


def _nothing() -> None:
    """Nobody listens any more."""
