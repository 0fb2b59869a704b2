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


class Waiters:
    """Those who wait for runs of one engine; told after the commit, in the order of the changes."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._waiting: dict[RunId, dict[asyncio.Event, Callable[[Run], bool]]] = {}
        engine.listen(self._changed)

    def _changed(self, view: RunView, change: Change) -> None:
        if change.moved:
            for event, until in self._waiting.get(view.run.run_id, {}).items():
                if until(view.run):
                    event.set()

    async def wait(
        self,
        run_id: RunId,
        *,
        until: Callable[[Run], bool] = is_ended,
        tenant: TenantId = LOCAL_TENANT,
    ) -> Run:
        """Return the run once `until` holds for it and what listens has caught up with that.

        Changes of this engine are noticed at once, those of others within half a second.

        Raises:
            NotFound: no such run for this tenant.
        """
        event = asyncio.Event()
        self._waiting.setdefault(run_id, {})[event] = until
        try:
            while True:
                run = self._engine.store.find_run(run_id, tenant=tenant)
                if run is None:
                    raise NotFound(f"there is no run {run_id}")
                holds = until(run)
                # A row may be seen between its commit and its announcement.
                if holds and not self._engine.is_behind(run):
                    await self._engine.caught_up(run_id)
                    return run
                await self._until_worth_a_look(event, looks=1 if holds else LOOKS_SPARED_MAX)
                event.clear()
        finally:
            waiting = self._waiting[run_id]
            del waiting[event]
            if not waiting:
                del self._waiting[run_id]

    async def _until_worth_a_look(self, event: asyncio.Event, *, looks: int) -> None:
        """Return when this engine told of a change, or another one may have made one.

        A thousand who wait would otherwise read a thousand rows twice a second. After so many
        looks that were spared one is due whatever the engine says.
        """
        before = self._engine.changes_elsewhere
        for _ in range(looks):
            with suppress(TimeoutError):
                async with self._clock.deadline(LOOK_MS):
                    await event.wait()
                    return
            now = self._engine.changes_elsewhere
            if now is None or now != before:
                return
