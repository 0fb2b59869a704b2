"""The tasks of runs on the tables: projecting and commands are judged by the domain, at once."""

from typing import Any

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sqlite.tables import Found, Tables, fetch, run_statement
from tandem.domain.backlog import (
    BacklogChange,
    BacklogCommand,
    BacklogTask,
    Projection,
    TaskText,
    decide_task,
    project,
)
from tandem.domain.ids import RunId, TenantId


class TendBacklog(msgspec.Struct, frozen=True, tag=True):
    """Put up the tasks of newer attempts and decide a command; the result is what changed."""

    run_id: RunId
    tenant: TenantId
    projections: list[Projection]
    command: BacklogCommand | None
    node_ids: list[str]
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> BacklogChange:
        """See `Write`."""
        run_no = tables.run(connection, self.run_id, self.tenant).run_no
        tasks = read_tasks(fetch(connection, tables.sql["list_backlog"], (run_no,)))
        sources = fetch(connection, tables.sql["list_backlog_sources"], (run_no,))
        attempts = {row["node_no"]: row["attempt"] for row in sources}
        newer = [p for p in self.projections if p.attempt > attempts.get(p.node_no, 0)]
        changes = []
        for projection in newer:
            change = project(tasks, projection, now_ms=self.now_ms)
            changes.append(change)
            tasks = _after(tasks, change)
        decided = BacklogChange()
        if self.command is not None:
            decided = decide_task(tasks, self.command, node_ids=self.node_ids, now_ms=self.now_ms)
        for projection in newer:
            row = (run_no, projection.node_no, projection.attempt, projection.problem)
            run_statement(connection, tables.sql["put_backlog_source"], row)
        for change in (*changes, decided):
            _write(tables, connection, run_no, change)
        return decided

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: BacklogChange | None
    ) -> bool:
        """See `Write`."""
        if result is None or result.task is None:
            return False
        run_no = tables.run(connection, self.run_id, self.tenant).run_no
        return result.task in read_tasks(fetch(connection, tables.sql["list_backlog"], (run_no,)))

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> BacklogChange:
        """See `Write`."""
        return unpack(raw, BacklogChange)


def read_tasks(found: Found) -> list[BacklogTask]:
    """Read tasks."""
    return [_task_of(row) for row in found]


def _task_of(row: dict[str, Any]) -> BacklogTask:
    text = msgspec.json.decode(row["task"], type=TaskText)
    return msgspec.convert({**row, "task": text}, BacklogTask)


def _after(tasks: list[BacklogTask], change: BacklogChange) -> list[BacklogTask]:
    by_id = {task.task_id: task for task in (*tasks, *change.tasks)}
    return [task for task_id, task in by_id.items() if task_id not in change.removed]


def _write(tables: Tables, connection: apsw.Connection, run_no: int, change: BacklogChange) -> None:
    for task_id in change.removed:
        run_statement(connection, tables.sql["remove_backlog_task"], (run_no, task_id))
    for task in change.tasks:
        values = msgspec.to_builtins(task)
        text = msgspec.json.encode(task.task).decode()
        row = {**values, "run_no": run_no, "task": text}
        fetch(connection, tables.sql["put_backlog_task"], row)
    for record in change.records:
        values = msgspec.to_builtins(record)
        row = {**values, "run_no": run_no, "of_run": run_no}
        fetch(connection, tables.sql["add_backlog_event"], row)
