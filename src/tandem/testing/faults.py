"""Faults of the disk and of processes, at chosen commits."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from random import Random

import apsw

from tandem.domain.errors import StoreUnavailable

OUTAGE_OPENS = 3
"""How often the file cannot be opened in an outage."""


class Fault(StrEnum):
    """What happens at a commit."""

    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"
    FAIL_BEFORE = "fail_before"
    """The commit fails and nothing of it is on disk."""
    FAIL_AFTER = "fail_after"
    """The commit fails although all of it is on disk."""
    OUTAGE_BEFORE = "outage_before"
    """As FAIL_BEFORE, and the file cannot be opened for a while."""
    OUTAGE_AFTER = "outage_after"
    """As FAIL_AFTER, and the file cannot be opened for a while."""


class Crashed(BaseException):
    """The process that runs this code has just died."""


class EngineDied(Exception):
    """The engine that was asked died before it answered."""


class Faults:
    """The faults of a world by the number of the commit, counted over all processes.

    A commit that writes nothing does not count.
    """

    def __init__(
        self, plan: Mapping[int, Fault], *, read_failures: float = 0, random: Random | None = None
    ) -> None:
        self._plan = dict(plan)
        self._count = 0
        self._read_failures = read_failures
        self._random = random or Random(0)
        self._reads_refused = 0
        self.opens_refused = 0

    def plan(self, fault: Fault, *, after: int) -> None:
        """Let a fault happen once `after` more commits went well."""
        self._plan[self._count + 1 + after] = fault

    def clear(self) -> None:
        """Let everything go well from here on."""
        self._plan.clear()
        self._read_failures = 0
        self._reads_refused = 0
        self.opens_refused = 0

    def refuse_reads(self, times: int) -> None:
        """Let the next reads fail."""
        self._reads_refused = times

    def fails_to_read(self) -> bool:
        """Say whether the next read fails."""
        if self._reads_refused:
            self._reads_refused -= 1
            return True
        return self._read_failures > 0 and self._random.random() < self._read_failures

    def next(self) -> Fault | None:
        """Return what happens at the next commit."""
        self._count += 1
        fault = self._plan.pop(self._count, None)
        if fault in (Fault.OUTAGE_BEFORE, Fault.OUTAGE_AFTER):
            self.opens_refused = OUTAGE_OPENS
        return fault

    def open(self) -> None:
        """Let the file be opened, or refuse it.

        Raises:
            StoreUnavailable: the file cannot be opened now.
        """
        if self.opens_refused:
            self.opens_refused -= 1
            raise StoreUnavailable("the simulated disk is away")


class FaultyCommit:
    """Ends the transactions of one process. `die` kills it, `committed` hears of what landed."""

    def __init__(
        self, faults: Faults, *, die: Callable[[], None], committed: Callable[[], None]
    ) -> None:
        self._faults = faults
        self._die = die
        self._committed = committed
        self.is_away: Callable[[], bool] = lambda: False
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
        if self.is_away():
            raise apsw.FullError("the simulated disk is away")
        fault = self._faults.next()
        if fault in (Fault.FAIL_BEFORE, Fault.OUTAGE_BEFORE):
            raise apsw.FullError("the simulated disk is full")
        if fault is Fault.CRASH_BEFORE:
            self._kill(connection)
        connection.execute("COMMIT")
        self._committed()
        if fault is Fault.CRASH_AFTER:
            self._kill(connection)
        if fault in (Fault.FAIL_AFTER, Fault.OUTAGE_AFTER):
            raise apsw.IOError("the simulated disk failed after the commit")

    def _kill(self, connection: apsw.Connection) -> None:
        # The kernel closes the file of a dead process: what was not committed is gone.
        connection.close(True)
        self._die()
        raise Crashed
