"""What the store keeps of the tasks that runs put up for agents."""

from collections.abc import Sequence
from typing import Protocol

from tandem.domain.backlog import Backlog, BacklogChange, BacklogCommand, Projection, TaskRecord
from tandem.domain.ids import RunId, TenantId
from tandem.domain.run import Run


class BacklogStore(Protocol):
    """Tasks go with their run: they are exported with it and deleted with it."""

    def read_backlog(self, run: Run) -> tuple[Backlog, dict[int, int]]:
        """Return the tasks of a run, and by node from which of its attempts they come."""
        ...

    async def tend_backlog(
        self,
        run_id: RunId,
        *,
        tenant: TenantId,
        projections: Sequence[Projection],
        command: BacklogCommand | None,
        node_ids: Sequence[str],
        now_ms: int,
    ) -> BacklogChange:
        """Put up the tasks of newer attempts, and decide a command on one: one transaction.

        A projection of an attempt that is not newer than what is known changes nothing.

        Raises:
            NotFound: no such run for this tenant, or no such task.
            InvalidRequest: no task is named.
            Refused: the state of the task does not allow it.
            StoreUnavailable: nothing was written.
        """
        ...

    def list_task_records(self, run: Run, *, after_seq: int, limit: int) -> Sequence[TaskRecord]:
        """Return what happened to the tasks of a run, in order."""
        ...
