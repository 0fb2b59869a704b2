"""Keeping a store small: old runs are packed, what nothing can ask for again is forgotten."""

from tandem.engine.sweeps import SWEEP_LIMIT
from tandem.ports.clock import Clock
from tandem.ports.store import Store

ARCHIVE_REST_MS = 60_000
ARCHIVE_ROWS_MAX = 200
"""So many rows are packed in one transaction: about a millisecond."""
ARCHIVE_STEPS_MAX = 5
"""So many transactions of packing belong to one sweep."""


class Upkeep:
    """The parts of the sweeps that only make room.

    Args:
        store: what is kept small.
        clock: of the engine.
        retention_ms: a run that rests this long after its end is packed; 0 keeps all as they are.
        signal_retention_ms: how long an accepted signal is kept.
    """

    def __init__(
        self, *, store: Store, clock: Clock, retention_ms: int, signal_retention_ms: int
    ) -> None:
        self._store = store
        self._clock = clock
        self._retention_ms = retention_ms
        self._signal_retention_ms = signal_retention_ms
        self._archive_at_ms = 0

    async def archive(self) -> None:
        """Pack some of what is old; while there is more, again with the next sweep."""
        now_ms = self._clock.now_ms()
        if not self._retention_ms or now_ms < self._archive_at_ms:
            return
        before_ms = now_ms - self._retention_ms
        for _ in range(ARCHIVE_STEPS_MAX):
            moved = await self._store.archive(
                before_ms=before_ms, rows_max=ARCHIVE_ROWS_MAX, now_ms=now_ms
            )
            if not moved:
                self._archive_at_ms = now_ms + ARCHIVE_REST_MS
                return

    async def forget_signals(self) -> None:
        """Forget signals that no wait can find any more."""
        before_ms = self._clock.now_ms() - self._signal_retention_ms
        await self._store.forget_signals(before_ms=before_ms, limit=SWEEP_LIMIT)

    async def forget_access(self) -> None:
        """Forget keys of requests and used assertions whose time is over."""
        await self._store.forget_access(now_ms=self._clock.now_ms(), limit=SWEEP_LIMIT)
