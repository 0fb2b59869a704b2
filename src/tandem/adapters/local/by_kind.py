"""Two executors behind one door: one for the sessions of agents, one for everything else."""

from collections.abc import Collection

from tandem.domain.action import AgentAction
from tandem.domain.ids import AttemptId, EngineId
from tandem.domain.outcome import Outcome
from tandem.ports.executor import AttemptSpec, Executor, Progress


class ByKind:
    """Runs each attempt where its kind belongs; an `Executor`."""

    def __init__(self, bodies: Executor, agents: Executor) -> None:
        self._bodies = bodies
        self._agents = agents

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        """See `Executor.run`."""
        is_agent = isinstance(attempt.action, AgentAction)
        executor = self._agents if is_agent else self._bodies
        return await executor.run(attempt, progress)

    async def end_leftovers(
        self, *, engine_ids: Collection[EngineId], attempt_ids: Collection[AttemptId]
    ) -> int:
        """See `Executor.end_leftovers`."""
        ended = await self._agents.end_leftovers(engine_ids=engine_ids, attempt_ids=attempt_ids)
        return ended + await self._bodies.end_leftovers(
            engine_ids=engine_ids, attempt_ids=attempt_ids
        )
