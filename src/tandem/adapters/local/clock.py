"""The clock of this host and its running event loop."""

import asyncio
import time
from types import TracebackType

# On Linux the monotonic clock stands still while the host sleeps; this one does not.
_TICKS = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Wall time in milliseconds; spans by the event loop."""

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return time.time_ns() // 1_000_000

    def ticks_ms(self) -> int:
        """See `Clock.ticks_ms`."""
        return time.clock_gettime_ns(_TICKS) // 1_000_000

    async def sleep(self, span_ms: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(span_ms / 1_000)

    def deadline(self, span_ms: float | None) -> "LoopDeadline":
        """See `Clock.deadline`."""
        return LoopDeadline(span_ms)


class LoopDeadline:
    """A deadline on the event loop's own time."""

    def __init__(self, span_ms: float | None) -> None:
        self._timeout = asyncio.timeout(None if span_ms is None else span_ms / 1_000)

    @property
    def has_expired(self) -> bool:
        """See `Deadline.has_expired`."""
        return self._timeout.expired()

    def reschedule_in(self, span_ms: float | None) -> None:
        """See `Deadline.reschedule_in`."""
        if span_ms is None:
            self._timeout.reschedule(None)
        else:
            self._timeout.reschedule(asyncio.get_running_loop().time() + span_ms / 1_000)

    async def __aenter__(self) -> "LoopDeadline":
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._timeout.__aexit__(kind, error, trace)
