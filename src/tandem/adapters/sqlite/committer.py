"""Group commit: one transaction for all writes that are waiting right now, on the event loop.

A thread beside a busy loop starves on the GIL (measured; design 4.3), so the statements and their
COMMIT run inline. Writes are done in the order in which they were submitted.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from tandem.adapters.sqlite.turnstile import Turnstile
from tandem.domain.errors import EngineError, StoreUnavailable

T = TypeVar("T")
Statements = Callable[[apsw.Connection], T]

TURN_WAIT_MAX_S = 30.0
_TURN_POLL_S = 0.0005
_TURN_POLL_MAX_S = 0.01
_BATCH_MAX = 1_000


class _Write:
    __slots__ = ("error", "future", "landed", "result", "statements")

    def __init__(
        self,
        statements: Statements[Any],
        landed: Statements[bool],
        future: asyncio.Future[Any],
    ) -> None:
        self.statements = statements
        self.landed = landed
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None

    def tell(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
            # The one who asked may be gone; that is no reason for a warning.
            self.future.exception()
        else:
            self.future.set_result(self.result)


class Committer:
    """Collects writes and commits them together.

    `reopen` gives a fresh connection after a failed commit. `commit` ends a transaction; tests put
    a failing one in its place.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        turnstile: Turnstile,
        *,
        reopen: Callable[[], apsw.Connection],
        commit: Callable[[apsw.Connection], None] | None = None,
    ) -> None:
        self._connection = connection
        self._turnstile = turnstile
        self._reopen = reopen
        self._commit = commit or _commit
        self._waiting: deque[_Write] = deque()
        self._scheduled = False
        self._turn_asked_at: float | None = None
        self.commits = 0
        self.writes = 0

    @property
    def connection(self) -> apsw.Connection:
        """The connection that writes; for reading what this process has just written."""
        return self._connection

    def submit(self, statements: Statements[T], *, landed: Statements[bool]) -> asyncio.Future[T]:
        """Queue a write; the future is done when it is on disk.

        Args:
            statements: writes within the transaction. It may refuse with an `EngineError`, but
                only before its first write.
            landed: says on a fresh connection whether the write is on disk; asked when a commit
                failed and nobody knows.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Write(statements, landed, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush, loop)
        return future

    def close(self) -> None:
        """Refuse what still waits and close the connection."""
        for write in self._waiting:
            write.error = StoreUnavailable("the store was closed; nothing was written")
            write.tell()
        self._waiting.clear()
        self._connection.close()
        self._turnstile.close()

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._waiting:
            self._scheduled = False
            return
        if not self._turnstile.try_enter():
            self._wait_for_turn(loop)
            return
        self._turn_asked_at = None
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH_MAX))]
        try:
            self._write(batch)
        finally:
            self._turnstile.leave()
        for write in batch:
            write.tell()
        if self._waiting:
            loop.call_soon(self._flush, loop)
        else:
            self._scheduled = False

    def _wait_for_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if self._turn_asked_at is None:
            self._turn_asked_at = now
        waited = now - self._turn_asked_at
        if waited > TURN_WAIT_MAX_S:
            self._turn_asked_at = None
            self._scheduled = False
            self._fail(list(self._waiting), "another process held the store's turn too long")
            self._waiting.clear()
            return
        delay = min(max(_TURN_POLL_S, waited / 10), _TURN_POLL_MAX_S)
        loop.call_later(delay, self._flush, loop)

    def _fail(self, writes: list[_Write], why: str) -> None:
        for write in writes:
            write.error = StoreUnavailable(f"{why}; nothing was written, it is safe to try again")
            write.tell()

    def _write(self, batch: list[_Write]) -> None:
        """Write a batch as one transaction; when a statement fails, each write on its own."""
        try:
            self._transact(batch)
        except _StatementFailed as failed:
            if len(batch) == 1:
                known = isinstance(failed.error, apsw.Error | OSError)
                batch[0].error = _unavailable(failed.error) if known else failed.error
                return
            for write in batch:
                write.result = write.error = None
                self._write([write])

    def _transact(self, batch: list[_Write]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                try:
                    write.result = write.statements(connection)
                except EngineError as error:
                    write.error = error
        except Exception as error:  # noqa: BLE001 # the boundary: each writer hears of its own
            self._roll_back()
            raise _StatementFailed(error) from error
        try:
            self._commit(connection)
        except (apsw.Error, OSError) as error:
            self._look_up(batch, error)
        self.commits += 1
        self.writes += len(batch)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error:
            self._replace_connection()

    def _replace_connection(self) -> None:
        self._connection.close(True)
        self._connection = self._reopen()

    def _look_up(self, batch: list[_Write], error: Exception) -> None:
        """After a failed commit nothing is assumed: reopen, and ask the disk what it has."""
        try:
            self._replace_connection()
        except EngineError as unavailable:
            for write in batch:
                write.error = write.error or unavailable
            return
        for write in batch:
            if write.error is None and not write.landed(self._connection):
                write.error = _unavailable(error)


class _StatementFailed(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _commit(connection: apsw.Connection) -> None:
    connection.execute("COMMIT")


def _unavailable(error: Exception) -> StoreUnavailable:
    if isinstance(error, apsw.FullError):
        why = "the disk that holds the store is full; free some space"
    elif isinstance(error, apsw.ReadOnlyError):
        why = "the store is read-only; check the permissions of its folder"
    else:
        why = f"the store failed: {error}"
    return StoreUnavailable(f"{why}; nothing was written, it is safe to try again")
