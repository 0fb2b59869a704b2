"""Group commit: one transaction for all writes that are waiting right now, on the event loop.

A thread beside a busy loop starves on the GIL (measured; design 4.3), so the statements and their
COMMIT run inline. Writes are done in the order in which they were submitted.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from tandem.adapters.sqlite.turnstile import TURN_WAIT_MAX_S, Turnstile
from tandem.domain.errors import EngineError, StoreUnavailable, StoreUnsure

T = TypeVar("T")
Statements = Callable[[apsw.Connection], T]
CommitListener = Callable[[int, float], None]

_TURN_POLL_S = 0.0005
_TURN_POLL_MAX_S = 0.01
_BATCH_MAX = 1_000
_REOPEN_S = 0.2


class _Write:
    __slots__ = ("error", "future", "is_decided", "landed", "result", "statements")

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
        self.is_decided = False

    def decide(self, error: Exception | None = None) -> None:
        self.error = self.error or error
        self.is_decided = True

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
        self._is_connected = True
        self._turnstile = turnstile
        self._reopen = reopen
        self._commit = commit or _commit
        self._waiting: deque[_Write] = deque()
        self._unsure: tuple[list[_Write], Exception] | None = None
        self._scheduled = False
        self._is_closed = False
        self._turn_asked_at: float | None = None
        self.commits = 0
        self.writes = 0
        self.on_commit: CommitListener | None = None
        """Hears of every commit that succeeded: how many writes it had, and its seconds."""

    @property
    def connection(self) -> apsw.Connection:
        """The connection that writes; for reading what this process has just written."""
        return self._connection

    def submit(self, statements: Statements[T], *, landed: Statements[bool]) -> asyncio.Future[T]:
        """Queue a write; the future is done when it is on disk.

        Args:
            statements: writes within the transaction. It may refuse with an `EngineError`, best
                before its first write: then the others of the batch are not written again.
            landed: says on a fresh connection whether the write is on disk; asked when a commit
                failed and nobody knows. It may raise `StoreUnsure`.

        Raises:
            StoreUnavailable: it was closed.
        """
        if self._is_closed:
            raise closed()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Write(statements, landed, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush, loop)
        return future

    def close(self) -> None:
        """Refuse what still waits and close the connection; twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        unsure = self._unsure[0] if self._unsure is not None else []
        for write in unsure:
            write.error = write.error or StoreUnsure(
                "the store was closed before it could say whether this was written"
            )
            write.tell()
        for write in self._waiting:
            write.error = closed()
            write.tell()
        self._waiting.clear()
        self._unsure = None
        self._connection.close()
        self._turnstile.close()

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_closed:
            return  # the numbers of its files may belong to others by now
        if self._unsure is not None and not self._ask_the_disk():
            loop.call_later(_REOPEN_S, self._flush, loop)
            return
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
            if write.is_decided:
                write.tell()
        if self._waiting or self._unsure is not None:
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
            self._turnstile.give_up()
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
            self._connect()
            self._transact(batch)
        except StoreUnavailable as error:
            for write in batch:
                write.decide(error)
        except _StatementFailed as failed:
            if len(batch) == 1:
                known = isinstance(failed.error, apsw.Error | OSError)
                batch[0].decide(_unavailable(failed.error) if known else failed.error)
                return
            for place, write in enumerate(batch):
                write.result = write.error = None
                self._write([write])
                if self._unsure is not None:
                    # The others wait, in their order, until the disk has answered.
                    self._waiting.extendleft(reversed(batch[place + 1 :]))
                    return

    def _transact(self, batch: list[_Write]) -> None:
        connection = self._connection
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                changes = connection.total_changes()
                try:
                    write.result = write.statements(connection)
                except EngineError as error:
                    if connection.total_changes() != changes:
                        raise  # a refusal that has written takes the transaction with it
                    write.error = error
        except Exception as error:  # the boundary: each writer hears of its own
            self._roll_back()
            raise _StatementFailed(error) from error
        try:
            self._commit(connection)
        except Exception as error:  # noqa: BLE001 # whatever it is, those who wait have to hear
            # Nothing is assumed: the disk is asked what it has, when it can be read again.
            self._unsure = (batch, error)
            self._ask_the_disk()
        else:
            for write in batch:
                write.decide()
            if self.on_commit is not None:
                self.on_commit(len(batch), loop.time() - began)
        self.commits += 1
        self.writes += len(batch)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error:
            self._disconnect()

    def _disconnect(self) -> None:
        self._is_connected = False
        self._connection.close(True)

    def _connect(self) -> None:
        """Open the file again when the connection had to be given up; it may take several tries."""
        if not self._is_connected:
            self._connection = self._reopen()
            self._is_connected = True

    def _ask_the_disk(self) -> bool:
        """Find out on a fresh connection what a failed commit left; False when none can be had."""
        if self._unsure is None:
            raise AssertionError("every commit is known")
        batch, error = self._unsure
        try:
            self._disconnect()
            self._connect()
            errors = [self._judge(write, error) for write in batch]
        except (EngineError, apsw.Error):
            return False
        self._unsure = None
        for write, why in zip(batch, errors, strict=True):
            write.decide(why)
        # After `_flush` has told those of its own batch, a second telling does nothing.
        for write in batch:
            write.tell()
        return True

    def _judge(self, write: _Write, error: Exception) -> Exception | None:
        """Return what to tell of a write whose commit failed: nothing, when it is on disk."""
        if write.error is not None:
            return write.error
        try:
            is_there = write.landed(self._connection)
        except StoreUnsure as unsure:
            return unsure
        return None if is_there else _unavailable(error)


def closed() -> StoreUnavailable:
    """Return what whoever uses a store after its end is told."""
    return StoreUnavailable("the store was closed; nothing was written")


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
    elif isinstance(error, apsw.IOError):
        why = f"the disk that holds the store failed ({error}); check the disk and its limits"
    else:
        why = f"the store failed: {error}"
    return StoreUnavailable(f"{why}; nothing was written, it is safe to try again")
