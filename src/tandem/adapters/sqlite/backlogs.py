"""The store of the tasks of runs, on the tables of one SQLite file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from tandem.adapters.sqlite.backlog import TendBacklog, read_tasks
from tandem.adapters.sqlite.tables import Found, Tables
from tandem.adapters.sqlite.writer import Writer
from tandem.domain.backlog import Backlog, BacklogChange, BacklogCommand, Projection, TaskRecord
from tandem.domain.ids import RunId, TenantId
from tandem.domain.run import Run


class Backlogs(ABC):
    """What `ports.backlog.BacklogStore` promises; the store of the runs is made of it, too."""

    _tables: Tables
    _writer: Writer

    @abstractmethod
    def _find(self, name: str, *values: object) -> Found: ...

    def read_backlog(self, run: Run) -> tuple[Backlog, dict[int, int]]:
        """See `BacklogStore.read_backlog`."""
        tasks = read_tasks(self._find("list_backlog", run.run_no))
        sources = self._find("list_backlog_sources", run.run_no)
        newest = self._find("newest_backlog_event", run.run_no)
        backlog = Backlog(
            tasks=tuple(tasks),
            revision=newest[0]["seq"] if newest else 0,
            problems=tuple(row["problem"] for row in sources if row["problem"]),
        )
        return backlog, {row["node_no"]: row["attempt"] for row in sources}

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
        """See `BacklogStore.tend_backlog`."""
        return await self._writer.submit(
            TendBacklog(run_id, tenant, list(projections), command, list(node_ids), now_ms)
        )

    def list_task_records(self, run: Run, *, after_seq: int, limit: int) -> Sequence[TaskRecord]:
        """See `BacklogStore.list_task_records`."""
        found = self._find("list_backlog_events", run.run_no, after_seq, limit)
        return [msgspec.convert(row, TaskRecord) for row in found]
