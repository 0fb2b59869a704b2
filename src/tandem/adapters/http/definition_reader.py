"""Reads definitions: small ones on the loop, large ones in a process beside it (decision 29).

Meanwhile other requests are answered, leases are extended and runs go on.
"""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Final

import msgspec

from tandem.adapters.child import Child
from tandem.adapters.frames import Frames, Reader, frame
from tandem.adapters.http.definition_reading import (
    Answer,
    Asked,
    Form,
    Given,
    Kept,
    Parse,
    ReadBody,
    ReadDocument,
    Wrong,
    read,
)
from tandem.domain.definition import Definition
from tandem.domain.json import JsonObject, encode

INLINE_BYTES_MAX: Final = 64 * 1024
"""What is larger is read beside the loop, which it would hold up for some 20 ms or more."""
STARTS_MAX: Final = 3
"""A process that dies is started again; not for ever."""
ANSWER_MAX_S: Final = 60.0
"""A process that has not answered by then is ended."""
_REAP_MAX_S: Final = 5.0


class Question(msgspec.Struct, frozen=True, array_like=True):
    """What the process is asked, under a number."""

    number: int
    asked: Asked


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What the process says; nothing when it failed by a mistake of ours."""

    number: int
    answer: Answer | None


class ReaderProcess:
    """A child process that reads definitions, started when it is first needed.

    Args:
        program: what to start; it is given the number of a socket.
    """

    def __init__(self, program: Sequence[str]) -> None:
        self._program = program
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer | None]] = {}
        self._reader = Reader[Reply](Reply)
        self._frames = Frames()
        self._child: Child | None = None
        self._starts = 0
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._child is None else self._child.pid

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._waiting)

    async def ask(self, asked: Asked) -> Answer | None:
        """Return what the process says; None: somebody else has to read it."""
        child = self._running()
        if child is None:
            return None
        number = next(self._numbers)
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        child.send(frame(Question(number, asked)))
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                return await future
        except TimeoutError:
            child.end()
            return None
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """End the process; whoever waits is told that somebody else has to read."""
        self._is_closed = True
        if self._child is not None:
            self._child.close(wait_s=_REAP_MAX_S)
        self._gone()

    def _running(self) -> Child | None:
        if self._child is not None and not self._child.is_ended:
            return self._child
        if self._is_closed or self._child is not None or self._starts >= STARTS_MAX:
            return None
        self._starts += 1
        self._frames = Frames()
        try:
            self._child = Child(
                lambda fd: [*self._program, fd],
                loop=asyncio.get_running_loop(),
                heard=self._hear,
                gone=self._gone,
                reap_max_s=_REAP_MAX_S,
            )
        except OSError:
            return None
        return self._child

    def _hear(self, more: bytes) -> None:
        for body in self._frames.feed(more):
            reply = self._reader.read(body)
            future = self._waiting.get(reply.number)
            if future is not None and not future.done():
                future.set_result(reply.answer)

    def _gone(self) -> None:
        self._child = None
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)


class DefinitionReader:
    """Reads definitions.

    Args:
        parse: makes an automation of data, or raises `InvalidAutomation`.
        process: reads what is larger than `inline_bytes_max`; without, all is read on the loop.
        inline_bytes_max: so large may be what is read on the loop.
    """

    def __init__(
        self,
        parse: Parse,
        *,
        process: ReaderProcess | None = None,
        inline_bytes_max: int = INLINE_BYTES_MAX,
    ) -> None:
        self._parse = parse
        self._process = process
        self._inline_bytes_max = inline_bytes_max

    async def body(self, raw: bytes, form: Form) -> Given:
        """Return what a body says of a definition.

        Raises:
            HttpError: it is no JSON, or has the wrong shape.
            InvalidAutomation: it has more nodes than are looked at.
        """
        answer = await self._read(ReadBody(form, raw), len(raw))
        assert isinstance(answer, Given)
        return answer

    async def definition(self, document: JsonObject) -> Definition:
        """Return what is kept of a document.

        Raises:
            InvalidAutomation: with every mistake that was found.
        """
        written = encode(document)
        answer = await self._read(ReadDocument(written), len(written))
        assert isinstance(answer, Kept)
        return answer.definition

    async def _read(self, asked: Asked, size_bytes: int) -> Given | Kept:
        answer: Answer | None = None
        if self._process is not None and size_bytes > self._inline_bytes_max:
            answer = await self._process.ask(asked)
        if answer is None:
            answer = read(asked, self._parse)
        if isinstance(answer, Wrong):
            raise answer.error()
        return answer
