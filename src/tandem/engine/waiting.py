"""Waiting for a run to come to rest: its end, or the point where it needs a person."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tandem.domain.change import Change
from tandem.domain.errors import NotFound
from tandem.domain.ids import LOCAL_TENANT, RunId, TenantId
from tandem.domain.lifecycle import TERMINAL, RunState
from tandem.domain.run import QueueReason, Run
from tandem.domain.view import RunView
from tandem.engine.engine import Engine
from tandem.ports.clock import Clock

LOOK_MS = 500
LOOKS_SPARED_MAX = 10
"""So many looks are spared in a row while the engine says that nobody else wrote."""


def is_ended(run: Run) -> bool:
    """Say whether the run has ended and nothing of it lives any more."""
    return run.status in TERMINAL and run.cleanup is None


def is_at_rest(run: Run) -> bool:
    """Say whether the run has ended, or stands still until a person does something."""
    held = run.status is RunState.PAUSED and not run.parked
    return is_ended(run) or held or is_held(run) or run.status is RunState.AWAITING_APPROVAL


def is_held(run: Run) -> bool:
    """Say whether the run is queued and not claimed until a person resumes its automation."""
    return run.status is RunState.QUEUED and run.queue_reason is QueueReason.AUTOMATION_PAUSED


class _Waiter:
    """One who waits for a run until something holds; `run` is the run for which it did."""

    __slots__ = ("event", "run", "run_id", "until")

    def __init__(self, run_id: RunId, until: Callable[[Run], bool]) -> None:
        self.run_id = run_id
        self.until = until
        self.event = asyncio.Event()
        self.run: Run | None = None


class Waiters:
    """Those who wait for runs of one engine; told after the commit, in the order of the changes.

    One of them is the lookout: it alone looks twice a second whether others wrote to the store, and
    tells the rest. A thousand who wait would otherwise set two thousand timers a second.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._waiting: dict[RunId, dict[_Waiter, None]] = {}
        self._all: dict[_Waiter, None] = {}
        self._lookout: _Waiter | None = None
        engine.listen(self._changed)

    def _changed(self, view: RunView, change: Change) -> None:
        if change.moved:
            for waiter in self._waiting.get(view.run.run_id, ()):
                if waiter.until(view.run):
                    waiter.run = view.run
                    waiter.event.set()

    async def wait(
        self,
        run_id: RunId,
        *,
        until: Callable[[Run], bool] = is_ended,
        tenant: TenantId = LOCAL_TENANT,
    ) -> Run:
        """Return the run once `until` held for it and what listens has caught up with that.

        Changes of this engine are noticed at once, those of others within half a second.

        Raises:
            NotFound: no such run for this tenant.
        """
        waiter = _Waiter(run_id, until)
        self._all[waiter] = None
        self._waiting.setdefault(run_id, {})[waiter] = None
        try:
            await self._until_it_holds(waiter, tenant)
        finally:
            self._leave(waiter)
        await self._engine.caught_up(run_id)
        assert waiter.run is not None
        return waiter.run

    async def _until_it_holds(self, waiter: _Waiter, tenant: TenantId) -> None:
        while waiter.run is None:
            run = self._engine.store.find_run(waiter.run_id, tenant=tenant)
            if run is None:
                raise NotFound(f"there is no run {waiter.run_id}")
            if not waiter.until(run):
                await self._until_worth_a_look(waiter)
            elif self._engine.is_behind(run):
                # A row may be seen between its commit and its announcement.
                await self._rest(waiter, LOOK_MS)
            else:
                waiter.run = run
            waiter.event.clear()

    def _leave(self, waiter: _Waiter) -> None:
        del self._all[waiter]
        waiting = self._waiting[waiter.run_id]
        del waiting[waiter]
        if not waiting:
            del self._waiting[waiter.run_id]

    async def _until_worth_a_look(self, waiter: _Waiter) -> None:
        """Return when this engine told of a change, or another one may have made one.

        After so many looks that were spared one is due whatever the engine says.
        """
        if self._lookout is not None:
            await self._rest(waiter, LOOK_MS * LOOKS_SPARED_MAX)
            return
        self._lookout = waiter
        try:
            await self._look_out(waiter)
        finally:
            self._lookout = None
            for other in reversed(self._all):
                # The newest one will probably wait longest; it looks and then looks out. One that
                # was told has to look anyway.
                if not (other is waiter or other.event.is_set()):
                    other.event.set()
                    break

    async def _look_out(self, waiter: _Waiter) -> None:
        before = self._engine.changes_elsewhere
        for _ in range(LOOKS_SPARED_MAX):
            await self._rest(waiter, LOOK_MS)
            now = self._engine.changes_elsewhere
            if now is None or now != before:
                for other in self._all:
                    other.event.set()
            if waiter.event.is_set():
                return

    async def _rest(self, waiter: _Waiter, span_ms: int) -> None:
        with suppress(TimeoutError):
            async with self._clock.deadline(span_ms):
                await waiter.event.wait()
