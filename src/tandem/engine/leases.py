"""Leases by a clock that nobody can set: those of other engines, and this engine's own.

The wall clock of a lease is for people and for commands that look only once. Whether a lease is
lost is timed by whoever asks, from the moment at which it last saw the lease change: neither a
clock that is set nor one that goes wrong on another host makes a healthy engine look dead.
"""

from typing import Final

from tandem.domain.ids import ChangeId, EngineId, RunId
from tandem.ports.clock import Clock
from tandem.ports.host import Host
from tandem.ports.store import EngineRow, Quiet

RENEWALS: Final = 3
"""How often a lease is renewed in its span."""
RETRY_MS: Final = 500
"""How soon a renewal that failed is tried again."""
STOP_SHARE: Final = 6
"""The last sixth of a lease is left for ending the attempts."""


class OwnLease:
    """The lease of this engine, as long as it is renewed."""

    def __init__(self, clock: Clock, *, lease_ms: int, renew_every_ms: int) -> None:
        self._clock = clock
        self._lease_ms = lease_ms
        self._renew_every_ms = renew_every_ms
        self._asked_at_ms = clock.ticks_ms()
        self._renewed_at_ms = self._asked_at_ms
        self._failed = False

    def ask(self) -> None:
        """Note that a renewal is about to be written."""
        self._asked_at_ms = self._clock.ticks_ms()

    def renewed(self) -> None:
        """Note that what was asked for last is on disk; the lease counts from the asking."""
        self._renewed_at_ms = self._asked_at_ms
        self._failed = False

    def failed(self) -> None:
        """Note that the renewal could not be written."""
        self._failed = True

    @property
    def pause_ms(self) -> int:
        """How long to wait before the next renewal; never past the end of the lease."""
        pause_ms = min(RETRY_MS, self._renew_every_ms) if self._failed else self._renew_every_ms
        return min(pause_ms, self.left_ms or pause_ms)

    @property
    def age_ms(self) -> int:
        """How long ago the renewal that is on disk was asked for."""
        return max(self._clock.ticks_ms() - self._renewed_at_ms, 0)

    @property
    def left_ms(self) -> int:
        """How long the attempts may still run without a renewal; 0 when they have to end."""
        over_at_ms = self._renewed_at_ms + self._lease_ms - self._lease_ms // STOP_SHARE
        return max(over_at_ms - self._clock.ticks_ms(), 0)


class LeaseWatch:
    """Says which engines are dead: by their locks where they can be seen, else by their leases."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._seen: dict[EngineId, tuple[int, int]] = {}
        self.has_strangers = False
        """Whether an engine was there at the last look whose lock cannot be seen from here."""

    def list_dead(self, engines: list[EngineRow], *, own_id: EngineId) -> list[EngineRow]:
        """Return the engines that are provably dead; to be called again and again.

        A lease is over when it did not change for its whole span while this engine looked.
        """
        others = [row for row in engines if row.engine_id != own_id]
        unseen = [row for row in others if not self._host.can_see(row)]
        self.has_strangers = bool(unseen)
        self._seen = {row.engine_id: self._first_seen(row) for row in unseen}
        now_ms = self._clock.ticks_ms()
        dead = []
        for row in others:
            seen = self._seen.get(row.engine_id)
            if seen is None:
                is_dead = self._host.is_dead(row, now_ms=self._clock.now_ms())
            else:
                is_dead = now_ms - seen[1] >= row.lease_ms
            if is_dead:
                dead.append(row)
        return dead

    def _first_seen(self, row: EngineRow) -> tuple[int, int]:
        before = self._seen.get(row.engine_id)
        if before is not None and before[0] == row.lease_until_ms:
            return before
        return row.lease_until_ms, self._clock.ticks_ms()


class QuietWatch:
    """Says which runs stay quiet while this engine looks, so that a set clock reaps nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[RunId, tuple[tuple[ChangeId, int | None], int]] = {}

    def list_stale(self, quiet: list[Quiet], *, for_ms: int) -> list[Quiet]:
        """Return the runs that did not change for so long; to be called again and again."""
        now_ms = self._clock.ticks_ms()
        seen = {}
        for run in quiet:
            mark = (run.last_change_id, run.activity_at_ms)
            before = self._seen.get(run.run_id)
            seen[run.run_id] = before if before and before[0] == mark else (mark, now_ms)
        self._seen = seen
        return [run for run in quiet if now_ms - seen[run.run_id][1] >= for_ms]
