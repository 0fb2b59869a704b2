"""The backlog of runs: tasks of nodes that plan, claimed by agents (run-lifecycle 2.4, T65).

The tasks of a run are put up when somebody asks for them: they are a function of the outputs that
are recorded, so nothing can be lost between the end of a node and its tasks.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from tandem.domain.backlog import (
    LEASE_DEFAULT_MS,
    Backlog,
    BacklogCommand,
    BacklogTask,
    ClaimTask,
    CompleteTask,
    Projection,
    RequeueTask,
    TaskRecord,
    projects_tasks,
    read_tasks,
)
from tandem.domain.errors import NotFound
from tandem.domain.ids import LOCAL_TENANT, RunId, TenantId
from tandem.domain.json import decode
from tandem.domain.lifecycle import NodeState
from tandem.domain.run import NodeRun, Run
from tandem.domain.view import RunView
from tandem.ports.artifacts import Artifacts
from tandem.ports.clock import Clock
from tandem.ports.store import Store

RECORDS_MAX: Final = 1_000


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """A task after a command, and the backlog that it is in."""

    run: Run
    task: BacklogTask
    backlog: Backlog


class Backlogs:
    """The backlogs of the runs of a store."""

    def __init__(
        self,
        *,
        store: Store,
        artifacts: Artifacts,
        clock: Clock,
        new_token: Callable[[], str],
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._clock = clock
        self._new_token = new_token

    async def read(self, run_id: RunId, *, tenant: TenantId = LOCAL_TENANT) -> Backlog:
        """Return the tasks of a run as they are now.

        Raises:
            NotFound: no such run for this tenant.
            StoreUnavailable: they could not be put up.
        """
        view = await self._store.load(run_id, tenant=tenant)
        await self._tend(view, None)
        return self._store.read_backlog(view.run)[0]

    async def claim(
        self,
        run_id: RunId,
        task_id: str,
        *,
        agent_id: str = "",
        lease_ms: int = LEASE_DEFAULT_MS,
        reason: str = "",
        command_id: str = "",
        tenant: TenantId = LOCAL_TENANT,
    ) -> TaskResult:
        """Have a task for a span of 5 to 300 s; claims whose span is over are given back first.

        Without an agent the task's owner, its assigned agent or `backlog-worker` has it. The same
        `command_id` again changes nothing and returns the task.

        Raises:
            InvalidRequest: no task is named.
            NotFound: no such run for this tenant, or no such task.
            Refused: it cannot be claimed now.
            StoreUnavailable: nothing was written.
        """
        command = ClaimTask(
            task_id=task_id,
            agent_id=agent_id,
            lease_ms=lease_ms,
            lease_token=self._new_token(),
            reason=reason,
            command_id=command_id,
        )
        return await self._execute(run_id, command, tenant)

    async def requeue(
        self,
        run_id: RunId,
        task_id: str,
        *,
        reason: str = "",
        command_id: str = "",
        tenant: TenantId = LOCAL_TENANT,
    ) -> TaskResult:
        """Give a task back, whoever has it; as often as is needed.

        Raises:
            InvalidRequest: no task is named.
            NotFound: no such run for this tenant, or no such task.
            Refused: it is done.
            StoreUnavailable: nothing was written.
        """
        command = RequeueTask(task_id=task_id, reason=reason, command_id=command_id)
        return await self._execute(run_id, command, tenant)

    async def complete(
        self,
        run_id: RunId,
        task_id: str,
        *,
        agent_id: str = "",
        lease_token: str = "",
        reason: str = "",
        command_id: str = "",
        tenant: TenantId = LOCAL_TENANT,
    ) -> TaskResult:
        """End a task that is claimed; tasks that depend on it can be claimed then.

        Raises:
            InvalidRequest: no task is named.
            NotFound: no such run for this tenant, or no such task.
            Refused: it is not claimed, or by somebody else.
            StoreUnavailable: nothing was written.
        """
        command = CompleteTask(
            task_id=task_id,
            agent_id=agent_id,
            lease_token=lease_token,
            reason=reason,
            command_id=command_id,
        )
        return await self._execute(run_id, command, tenant)

    def records(
        self, run_id: RunId, *, after_seq: int = 0, tenant: TenantId = LOCAL_TENANT
    ) -> list[TaskRecord]:
        """Return what happened to the tasks of a run, in order; at most 1,000 records.

        Raises:
            NotFound: no such run for this tenant.
        """
        run = self._store.find_run(run_id, tenant=tenant)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        return list(self._store.list_task_records(run, after_seq=after_seq, limit=RECORDS_MAX))

    async def _execute(
        self, run_id: RunId, command: BacklogCommand, tenant: TenantId
    ) -> TaskResult:
        view = await self._store.load(run_id, tenant=tenant)
        task = await self._tend(view, command)
        assert task is not None
        return TaskResult(run=view.run, task=task, backlog=self._store.read_backlog(view.run)[0])

    async def _tend(self, view: RunView, command: BacklogCommand | None) -> BacklogTask | None:
        _, attempts = self._store.read_backlog(view.run)
        projections = [
            self._projection(view, node)
            for number, node in sorted(view.nodes.items())
            if node.state is NodeState.COMPLETED
            and node.attempts > attempts.get(number, 0)
            and projects_tasks(view.plan.nodes[number].node)
        ]
        if not projections and command is None:
            return None
        change = await self._store.tend_backlog(
            view.run.run_id,
            tenant=view.run.tenant,
            projections=projections,
            command=command,
            node_ids=[node.node_id for node in view.plan.nodes],
            now_ms=self._clock.now_ms(),
        )
        return change.task

    def _projection(self, view: RunView, node: NodeRun) -> Projection:
        node_id = view.plan.nodes[node.node_no].node_id
        made = Projection(node_no=node.node_no, attempt=node.attempts)
        content = node.output
        try:
            if content is None and node.output_ref is not None:
                content = self._artifacts.get(view.run.tenant, node.output_ref)
            tasks = read_tasks(node_id, None if content is None else decode(content))
        except (NotFound, ValueError) as error:
            return msgspec.structs.replace(made, problem=f"node `{node_id}`: {error}")
        return msgspec.structs.replace(made, tasks=tasks)
