"""Faults of the disk and of processes, at chosen commits."""

from collections.abc import Callable, Mapping
from enum import StrEnum

import apsw


class Fault(StrEnum):
    """What happens at a commit."""

    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"
    FAIL_BEFORE = "fail_before"
    """The commit fails and nothing of it is on disk."""
    FAIL_AFTER = "fail_after"
    """The commit fails although all of it is on disk."""


class Crashed(BaseException):
    """The process that runs this code has just died."""


class Faults:
    """The faults of a world by the number of the commit, counted over all processes.

    A commit that writes nothing does not count.
    """

    def __init__(self, plan: Mapping[int, Fault]) -> None:
        self._plan = dict(plan)
        self._count = 0

    def clear(self) -> None:
        """Let everything go well from here on."""
        self._plan.clear()

    def next(self) -> Fault | None:
        """Return what happens at the next commit."""
        self._count += 1
        return self._plan.pop(self._count, None)


class FaultyCommit:
    """Ends the transactions of one process. `die` kills it, `committed` hears of what landed."""

    def __init__(
        self, faults: Faults, *, die: Callable[[], None], committed: Callable[[], None]
    ) -> None:
        self._faults = faults
        self._die = die
        self._committed = committed
        self._connection: apsw.Connection | None = None
        self._changes = 0

    def __call__(self, connection: apsw.Connection) -> None:
        """Commit, or fail, or die."""
        if connection is not self._connection:
            self._connection, self._changes = connection, 0
        changes = connection.total_changes()
        if changes == self._changes:
            connection.execute("COMMIT")
            return
        self._changes = changes
        fault = self._faults.next()
        if fault is Fault.FAIL_BEFORE:
            raise apsw.FullError("the simulated disk is full")
        if fault is Fault.CRASH_BEFORE:
            self._kill(connection)
        connection.execute("COMMIT")
        self._committed()
        if fault is Fault.CRASH_AFTER:
            self._kill(connection)
        if fault is Fault.FAIL_AFTER:
            raise apsw.IOError("the simulated disk failed after the commit")

    def _kill(self, connection: apsw.Connection) -> None:
        # The kernel closes the file of a dead process: what was not committed is gone.
        connection.close(True)
        self._die()
        raise Crashed
