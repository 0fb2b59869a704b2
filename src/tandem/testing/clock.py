"""The clock of a simulated host."""

import asyncio

from tandem.adapters.local.clock import LoopDeadline
from tandem.testing.loop import SimulatedLoop

START_MS = 1_800_000_000_000


class SimulatedClock:
    """Wall time of the loop's time; `jump_ms` moves the wall clock and leaves every span alone."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._offset_ms = 0

    def jump_ms(self, span_ms: int) -> None:
        """Set the wall clock forward or back, as an operator or NTP does."""
        self._offset_ms += span_ms

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return START_MS + self._offset_ms + int(self._loop.now_s * 1_000)

    def ticks_ms(self) -> int:
        """See `Clock.ticks_ms`."""
        return int(self._loop.now_s * 1_000)

    async def sleep(self, span_ms: float) -> None:
        """See `Clock.sleep`."""
        done = self._loop.create_future()
        timer = self._loop.call_later(span_ms / 1_000, _finish, done)
        try:
            await done
        finally:
            timer.cancel()

    def deadline(self, span_ms: float | None) -> LoopDeadline:
        """See `Clock.deadline`."""
        return LoopDeadline(span_ms)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
