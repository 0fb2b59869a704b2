"""The engine's end of a writer process: starts it, sends it writes, hears of them, sees it die."""

import asyncio
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from tandem.adapters.child import Child
from tandem.adapters.frames import Frames, Reader, frame
from tandem.adapters.sqlite.frames import Answer, Ask, Decided, Performed, Ready
from tandem.adapters.sqlite.tables import Tables
from tandem.adapters.sqlite.writes import Write

WRITER_PROGRAM: Final = (sys.executable, "-P", "-m", "tandem.adapters.sqlite.writer_main")
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
        self._numbers = itertools.count(1)
        self._sent: dict[int, Pending] = {}
        self._frames = Frames()
        self._reader = Reader[Answer](Answer)
        self._child = Child(
            lambda fd: [*program, str(path), synchronous, fd],
            loop=loop,
            heard=self._hear,
            gone=gone,
            reap_max_s=math.inf,
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    @property
    def undecided(self) -> list[Pending]:
        """The writes that were sent and not answered, in their order."""
        return list(self._sent.values())

    def send(self, writes: Iterable[Pending], loop: asyncio.AbstractEventLoop) -> None:
        """Send writes. One that cannot be written as bytes is refused, the others are sent."""
        self._child.use(loop)
        data = bytearray()
        for pending in writes:
            number = next(self._numbers)
            try:
                asked = frame(Ask(number, pending.write))  # type: ignore[arg-type] # of `AnyWrite`
            except Exception as error:  # noqa: BLE001 # the one who asked hears of it
                pending.tell(error=error)
                continue
            self._sent[number] = pending
            data += asked
        self._child.send(data)

    def _hear(self, more: bytes) -> None:
        for body in self._frames.feed(more):
            answer = self._reader.read(body)
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

    def close(self) -> bool:
        """Kill it and hear what it still said; False when it could not be proven dead.

        `gone` is not called. A write that it was committing is in `undecided`.
        """
        return self._child.close(wait_s=_REAP_MAX_S)
