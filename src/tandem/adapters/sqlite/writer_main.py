"""The program of the writer process: it holds the turnstile and the connection that writes.

    python -m tandem.adapters.sqlite.writer_main STORE SYNCHRONOUS SOCKET

All writes that wait on the socket are committed together by the same committer that an engine has
inline. The process ends with its engine: by the end of the socket, and by the parent-death signal.
"""

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from tandem.adapters.child_end import leave_with_engine
from tandem.adapters.frames import Frames, Reader, frame
from tandem.adapters.sql.statements import load_statements
from tandem.adapters.sqlite.committer import Committer
from tandem.adapters.sqlite.connection import open_connection
from tandem.adapters.sqlite.frames import Answer, Ask, Decided, Performed, Ready, Trouble
from tandem.adapters.sqlite.tables import Tables
from tandem.adapters.sqlite.turnstile import Turnstile
from tandem.adapters.sqlite.writes import Write, encode_result

_READ_BYTES = 1 << 20

Commit = Callable[[apsw.Connection], None]


class WriterServer:
    """Reads writes from the socket of an engine, commits them and answers."""

    def __init__(
        self, path: Path, *, synchronous: str, engine: socket.socket, commit: Commit
    ) -> None:
        def reopen() -> apsw.Connection:
            return open_connection(path, synchronous=synchronous)

        self._engine = engine
        self._inner_commit = commit
        self._tables = Tables(load_statements())
        self._committer = Committer(
            reopen(), Turnstile(path), reopen=reopen, commit=self._tell_and_commit
        )
        self._frames = Frames()
        self._reader = Reader[Ask](Ask)
        self._performed: dict[int, bytes | None] = {}
        self._answers: list[Answer] = []
        self._ended: asyncio.Event = asyncio.Event()

    async def serve(self) -> None:
        """Write until the engine is gone."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._engine, self._read)
        self._say([Ready()])
        try:
            await self._ended.wait()
        finally:
            loop.remove_reader(self._engine)
            self._committer.close()

    def _read(self) -> None:
        """Take all frames that wait right now: they become one batch."""
        while not self._ended.is_set():
            try:
                more = self._engine.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                more = b""
            if not more:
                self._ended.set()
                return
            for body in self._frames.feed(more):
                self._take(self._reader.read(body))

    def _take(self, ask: Ask) -> None:
        number, write = ask.number, ask.write
        job = _Job(write, self._tables, lambda result: self._performed.update({number: result}))
        done: asyncio.Future[Any] = self._committer.submit(job.perform, landed=job.landed)
        done.add_done_callback(lambda done: self._decided(number, done.exception()))

    def _decided(self, number: int, error: BaseException | None) -> None:
        self._performed.pop(number, None)
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._answer)
        self._answers.append(Decided(number, Trouble.of(error) if error is not None else None))

    def _answer(self) -> None:
        answers, self._answers = self._answers, []
        self._say(answers)

    def _tell_and_commit(self, connection: apsw.Connection) -> None:
        """Tell the results first: if this process dies in the commit, the engine needs them."""
        told = [
            Performed(number, result)
            for number, result in self._performed.items()
            if result is not None
        ]
        self._performed.clear()
        self._say(told)
        self._inner_commit(connection)

    def _say(self, answers: Sequence[Answer]) -> None:
        try:
            self._engine.sendall(b"".join(map(frame, answers)))
        except OSError as error:
            # Without an engine nobody was promised anything; what is open is rolled back.
            raise SystemExit(1) from error


class _Job:
    """A write with its result, as the committer takes it."""

    def __init__(
        self, write: Write[Any], tables: Tables, performed: Callable[[bytes | None], None]
    ) -> None:
        self._write = write
        self._tables = tables
        self._performed = performed
        self._result: Any = None

    def perform(self, connection: apsw.Connection) -> Any:
        self._result = self._write.perform(self._tables, connection)
        # As bytes already here: a result that cannot be told has to fail its write, no commit.
        self._performed(None if self._result is None else encode_result(self._result))
        return self._result

    def landed(self, connection: apsw.Connection) -> bool:
        return self._write.landed(self._tables, connection, self._result)


def serve(arguments: Sequence[str], commit: Commit) -> None:
    """Serve the engine at the other end of the socket until it is gone.

    Args:
        arguments: the path of the store, `PRAGMA synchronous`, the descriptor of the socket.
        commit: ends a transaction; tests give a slow or failing one.
    """
    path, synchronous, fd = arguments
    leave_with_engine()
    with socket.socket(fileno=int(fd)) as engine:

        async def run() -> None:
            await WriterServer(
                Path(path), synchronous=synchronous, engine=engine, commit=commit
            ).serve()

        asyncio.run(run())


def commit(connection: apsw.Connection) -> None:
    """End the transaction."""
    connection.execute("COMMIT")


if __name__ == "__main__":
    serve(sys.argv[1:], commit)
