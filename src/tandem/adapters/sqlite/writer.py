"""Where writes are done: inline on the loop, or in a process of its own when the disk is slow."""

import asyncio
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import apsw

from tandem.adapters.sqlite.committer import Committer, closed
from tandem.adapters.sqlite.tables import Tables
from tandem.adapters.sqlite.writer_process import Pending, WriterProcess
from tandem.adapters.sqlite.writes import ReadVersion, Write, data_version
from tandem.domain.errors import StoreUnavailable, StoreUnsure

T = TypeVar("T")
Commit = Callable[[apsw.Connection], None]
WriteListener = Callable[[str, int, float], None]

SLOW_COMMIT_S: Final = 0.002
"""A loop that stands still this long at the median commit is better off with a process."""
COMMITS_JUDGED: Final = 32


class CommitTimes:
    """Ends transactions and measures those that write; says once that the disk is slow."""

    def __init__(self, commit: Commit | None) -> None:
        self._commit = commit or _commit
        self._times: deque[float] = deque(maxlen=COMMITS_JUDGED)
        self._changes = 0
        self.on_slow: Callable[[], None] | None = None

    def __call__(self, connection: apsw.Connection) -> None:
        """Commit."""
        loop = asyncio.get_running_loop()
        changes, self._changes = self._changes, connection.total_changes()
        started = loop.time()
        self._commit(connection)
        if self.on_slow is None or changes == self._changes:
            return  # a commit without writes does not touch the disk
        elapsed = loop.time() - started
        self._times.append(elapsed)
        # The median can only cross the line with a slow one.
        if elapsed > SLOW_COMMIT_S and self._is_slow():
            loop.call_soon(self.on_slow)
            self.on_slow = None

    def _is_slow(self) -> bool:
        return len(self._times) == COMMITS_JUDGED and statistics.median(self._times) > SLOW_COMMIT_S


class StartWriter(Protocol):
    """Starts a writer process; the arguments are those of `WriterProcess`."""

    def __call__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        decided: Callable[[Pending], None],
        ready: Callable[[], None],
        gone: Callable[[], None],
    ) -> WriterProcess: ...


class Writer:
    """Takes every write, in the order of the calls, wherever it is done.

    It moves to the process once and, if that dies, back for good. At both moments new writes are
    held until all earlier ones are decided.
    """

    def __init__(self, committer: Committer, tables: Tables, start: StartWriter) -> None:
        self._committer = committer
        self._tables = tables
        self._start_process = start
        self._process: WriterProcess | None = None
        self._is_inline = True
        self._is_elsewhere = False
        self._is_closed = False
        self._held: list[Pending] = []
        self._is_sending = False
        self._on_write: WriteListener | None = None

    def listen(self, on_write: WriteListener) -> None:
        """Call `on_write(place, writes, seconds)` whenever writes that went together are on disk.

        `inline` that is a commit; with the process it is what was sent to it at once.
        """
        self._on_write = on_write
        self._committer.on_commit = partial(on_write, "inline")

    @property
    def place(self) -> str:
        """`process` when another process does the writes, else `inline`."""
        return "process" if self._is_elsewhere else "inline"

    @property
    def process(self) -> WriterProcess | None:
        """The process, from its start to its end."""
        return self._process

    def hold(self) -> None:
        """Have all writes done by the process; they wait until it is there."""
        self._is_inline = False

    def submit(self, write: Write[T]) -> asyncio.Future[T]:
        """Queue a write; the future is done when it is on disk.

        Raises:
            StoreUnavailable: it was closed.
        """
        if self._is_closed:
            raise closed()
        if self._is_inline:
            job = _Job(write, self._tables)
            return self._committer.submit(job.perform, landed=job.landed)
        loop = asyncio.get_running_loop()
        pending = Pending(write, loop.create_future())
        self._held.append(pending)
        if self._is_elsewhere:
            if not self._is_sending:
                self._is_sending = True
                loop.call_soon(self._send, loop)
        elif self._process is None:
            self.move()
        return pending.future

    async def data_version(self) -> int:
        """Return a number that changes when somebody else has written to the file."""
        if self._is_elsewhere:
            return await self.submit(ReadVersion())
        return data_version(self._committer.connection)

    def move(self) -> None:
        """Start the process; writes move to it when it is ready."""
        if self._is_closed or self._process is not None:
            return
        try:
            self._process = self._start_process(
                loop=asyncio.get_running_loop(),
                decided=self._decided,
                ready=self._drain,
                gone=self._return,
            )
        except OSError:
            self._go_inline([])

    def _drain(self) -> None:
        """Hold new writes; an empty one behind all others says when these are decided."""
        self._is_inline = False
        last = self._committer.submit(_nothing, landed=_is_there)
        last.add_done_callback(lambda _done: self._go_elsewhere())

    def _go_elsewhere(self) -> None:
        # It may have died in the meantime.
        if self._process is not None and not self._is_closed:
            self._is_elsewhere = True
            self._send(asyncio.get_running_loop())

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_sending = False
        if self._is_elsewhere and self._process is not None:
            held, self._held = self._held, []
            self._measure(held, loop)
            self._process.send(held, loop)

    def _measure(self, sent: Sequence[Pending], loop: asyncio.AbstractEventLoop) -> None:
        on_write = self._on_write
        if on_write is None or not sent:
            return
        began = loop.time()

        def done(future: asyncio.Future[Any]) -> None:
            if not future.cancelled() and future.exception() is None:
                on_write("process", len(sent), loop.time() - began)

        sent[-1].future.add_done_callback(done)

    def _decided(self, pending: Pending) -> None:
        try:
            result = pending.result(self._tables, self._committer.connection)
        except apsw.Error as error:
            pending.tell(error=StoreUnavailable(f"this was written, but not read back: {error}"))
        else:
            pending.tell(result)

    def _return(self) -> None:
        """The process is dead: what it left is looked up and, where it is missing, written."""
        process, self._process = self._process, None
        self._is_elsewhere = False
        if not self._is_closed:
            self._go_inline(process.undecided if process is not None else [])

    def _go_inline(self, undecided: Iterable[Pending]) -> None:
        held, self._held = self._held, []
        for pending in [*undecided, *held]:
            job = _Job(pending.write, self._tables, left=pending)
            done = self._committer.submit(job.perform, landed=job.landed)
            done.add_done_callback(_passing_on(pending))
        self._is_inline = True

    def close(self) -> None:
        """End the process and refuse what is not on disk, then close the file.

        Twice is harmless.
        """
        self._is_closed = True
        process, self._process = self._process, None
        if process is not None:
            is_dead = process.close()
            for pending in process.undecided:
                self._settle(pending, is_dead=is_dead)
        for pending in self._held:
            pending.tell(error=closed())
        self._held.clear()
        self._committer.close()

    def _settle(self, pending: Pending, *, is_dead: bool) -> None:
        connection = self._committer.connection
        try:
            result = pending.result(self._tables, connection)
            if pending.write.landed(self._tables, connection, result):
                pending.tell(result)
            elif is_dead:
                pending.tell(error=closed())
        except StoreUnsure as unsure:
            pending.tell(error=unsure)
        except apsw.Error:
            pass
        pending.tell(
            error=StoreUnsure("the store was closed before it could say whether this was written")
        )


class _Job:
    """A write with its result, as the committer takes it. `left` was with a process that died."""

    __slots__ = ("_left", "_result", "_tables", "_write")

    def __init__(self, write: Write[Any], tables: Tables, left: Pending | None = None) -> None:
        self._write = write
        self._tables = tables
        self._left = left
        self._result: Any = None

    def perform(self, connection: apsw.Connection) -> Any:
        if self._left is not None:
            result = self._left.result(self._tables, connection)
            if self._write.landed(self._tables, connection, result):
                self._result = result
                return result
        self._result = self._write.perform(self._tables, connection)
        return self._result

    def landed(self, connection: apsw.Connection) -> bool:
        return self._write.landed(self._tables, connection, self._result)


def _passing_on(pending: Pending) -> Callable[[asyncio.Future[Any]], None]:
    def pass_on(done: asyncio.Future[Any]) -> None:
        error = done.exception()
        pending.tell(None if error is not None else done.result(), error=error)

    return pass_on


def _nothing(_connection: apsw.Connection) -> None:
    """An empty write."""


def _is_there(_connection: apsw.Connection) -> bool:
    return True


def _commit(connection: apsw.Connection) -> None:
    connection.execute("COMMIT")
