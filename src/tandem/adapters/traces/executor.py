"""Tells bodies in which span they run."""

from collections.abc import Callable, Collection

import msgspec

from tandem.domain.ids import AttemptId, EngineId, RunId
from tandem.domain.outcome import Outcome
from tandem.ports.executor import AttemptSpec, Executor, Progress


class TracedExecutor:
    """An executor whose attempts carry their `traceparent`."""

    def __init__(self, inner: Executor, traceparent: Callable[[RunId, AttemptId], str]) -> None:
        self._inner = inner
        self._traceparent = traceparent

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        """See `Executor.run`."""
        found = self._traceparent(attempt.run_id, attempt.attempt_id)
        if found:
            attempt = msgspec.structs.replace(attempt, traceparent=found)
        return await self._inner.run(attempt, progress)

    async def end_leftovers(
        self, *, engine_ids: Collection[EngineId], attempt_ids: Collection[AttemptId]
    ) -> int:
        """See `Executor.end_leftovers`."""
        return await self._inner.end_leftovers(engine_ids=engine_ids, attempt_ids=attempt_ids)
