"""Learning from runs that have ended: bounded passes beside the driving, whoever drove them."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tandem.domain.change import Change
from tandem.domain.errors import EngineError
from tandem.domain.ids import ChangeId
from tandem.domain.learning import LearningPolicy
from tandem.domain.view import RunView
from tandem.ports.clock import Clock
from tandem.ports.store import Store

PASSES_MAX: Final = 20
"""From so many runs one turn learns: a few milliseconds of each second of a busy engine."""
FINISH_MS: Final = 2_000
"""An engine that leaves learns no longer than this; what is left another one learns."""

Told = Callable[[RunView, Change | None], None]


class LearningPasses:
    """Learns from the ends that nobody has learned from. No failure of it reaches a run."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        policy: LearningPolicy,
        new_change_id: Callable[[], ChangeId],
        told: Told,
    ) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy
        self._new_change_id = new_change_id
        self._told = told

    async def learn(self) -> int:
        """Learn from the oldest ends that are due; return from how many.

        Raises:
            StoreUnavailable: the rest is still due.
        """
        count = 0
        for run_no in self._store.list_learning_due(limit=PASSES_MAX):
            learned = await self._store.learn(
                run_no,
                policy=self._policy,
                change_id=self._new_change_id(),
                now_ms=self._clock.now_ms(),
            )
            if learned is None:
                continue  # another engine was first
            count += 1
            with suppress(EngineError):
                # It is learned; who cannot be told reads it from the row.
                view = await self._store.load(learned.run_id, tenant=learned.tenant)
                self._told(view, learned.change)
        return count

    async def finish(self) -> None:
        """Learn from what has just ended, for an engine that leaves; never raises."""
        with suppress(EngineError, TimeoutError):
            async with self._clock.deadline(FINISH_MS):
                await self.learn()
