"""Tasks that a node puts up for agents, and what may be asked of them (run-lifecycle 2.4); pure.

A task is claimed for a span and comes back when nobody renews or ends it in time. Every command is
judged by the task as it is now, so it can be repeated: the id of a command only makes a repeat of
the very same call a no-op (W-32).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, assert_never

import msgspec

from tandem.domain.errors import InvalidRequest, NotFound, Refused
from tandem.domain.free_json import list_at, object_at, text_of
from tandem.domain.json import JsonObject, JsonValue, decode, digest
from tandem.domain.node import Node

LEASE_DEFAULT_MS: Final = 30_000
LEASE_MIN_MS: Final = 5_000
LEASE_MAX_MS: Final = 300_000
TASKS_MAX: Final = 1_000
"""So many tasks one node may put up."""
TASK_TYPE: Final = "automation_backlog_item"
DEFAULT_AGENT: Final = "backlog-worker"
_PREFIX: Final = "AUTOMATION_V2_BACKLOG_TASK"
REQUIRED: Final = f"{_PREFIX}_REQUIRED"
NOT_FOUND: Final = f"{_PREFIX}_NOT_FOUND"
INVALID_TYPE: Final = f"{_PREFIX}_INVALID_TYPE"
NOT_CLAIMABLE: Final = f"{_PREFIX}_NOT_CLAIMABLE"
NOT_REQUEUEABLE: Final = f"{_PREFIX}_NOT_REQUEUEABLE"
NOT_COMPLETABLE: Final = f"{_PREFIX}_NOT_COMPLETABLE"
_FENCE: Final = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\n(.*?)```", re.DOTALL)
_SLUG: Final = re.compile(r"[^a-z0-9]+")
_SLUG_CHARS_MAX: Final = 60
_NO_TASK: Final = "a task must be an object with a `title` or a `task_id`"


class TaskStatus(StrEnum):
    """Where a task is. `pending` waits for other tasks."""

    PENDING = "pending"
    RUNNABLE = "runnable"
    IN_PROGRESS = "in_progress"
    BLOCKED = "blocked"
    DONE = "done"
    FAILED = "failed"


class BacklogEvent(StrEnum):
    """What can happen to a task (T65)."""

    PROJECTED = "context.task.projected"
    CLAIMED = "context.task.claimed"
    REQUEUED = "context.task.requeued"
    STALE_REQUEUED = "context.task.stale_requeued"
    COMPLETED = "context.task.completed"
    WITHDRAWN = "context.task.withdrawn"


S, E = TaskStatus, BacklogEvent
_OPEN: Final = frozenset({S.PENDING, S.RUNNABLE})


class TaskText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the output of the node says of a task."""

    name: str
    title: str
    node_id: str
    description: str = ""
    task_kind: str = ""
    repo_root: str = ""
    write_scope: tuple[str, ...] = ()
    acceptance_criteria: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    verification_state: str = ""
    verification_command: str = ""
    task_owner: str = ""
    assigned_agent: str = ""
    priority: int = 0
    is_done: bool = False


class BacklogTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a run. `depends_on` are ids of tasks of the same node."""

    task_id: str
    node_no: int
    position: int
    status: TaskStatus
    task_rev: int = 1
    attempt: int = 0
    lease_owner: str = ""
    lease_token: str = ""
    lease_expires_at_ms: int | None = None
    next_retry_at_ms: int | None = None
    last_error: str = ""
    last_command_id: str = ""
    created_at_ms: int
    updated_at_ms: int
    task: TaskText

    @property
    def depends_on(self) -> tuple[str, ...]:
        """The ids of the tasks that have to be done first."""
        return tuple(task_id_of(self.task.node_id, name) for name in self.task.dependencies)


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks that one attempt of a node has put up, or what was wrong with its output."""

    node_no: int
    attempt: int
    tasks: tuple[TaskText, ...] = ()
    problem: str = ""


class ClaimTask(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Have a task for a span; without an agent its owner, its assigned agent or the default has it.

    `lease_token` is what the claim is known by. `command_id` makes a repeat of the same call a
    no-op; without one each call stands for itself.
    """

    task_id: str
    agent_id: str = ""
    lease_ms: int = LEASE_DEFAULT_MS
    lease_token: str
    reason: str = ""
    command_id: str = ""


class RequeueTask(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Give a task back, whoever has it."""

    task_id: str
    reason: str = ""
    command_id: str = ""


class CompleteTask(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End a task that is claimed. A token must be that of the claim; without one the agent must."""

    task_id: str
    agent_id: str = ""
    lease_token: str = ""
    reason: str = ""
    command_id: str = ""


BacklogCommand = ClaimTask | RequeueTask | CompleteTask


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The durable record of what happened to a task, numbered within its run."""

    seq: int = 0
    event: BacklogEvent
    task_id: str
    task_rev: int
    agent_id: str = ""
    reason: str = ""
    recorded_at_ms: int


class BacklogChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written: tasks as they are then, ids of those that are gone, the records.

    `task` is the one that a command was about.
    """

    tasks: tuple[BacklogTask, ...] = ()
    removed: tuple[str, ...] = ()
    records: tuple[TaskRecord, ...] = ()
    task: BacklogTask | None = None


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """All tasks of a run. `revision` grows with everything that happens to one of them."""

    tasks: tuple[BacklogTask, ...] = ()
    revision: int = 0
    problems: tuple[str, ...] = ()


# Projecting


def projects_tasks(node: Node) -> bool:
    """Say whether the output of a node puts up tasks."""
    builder = object_at(node.metadata, "builder")
    is_plan = text_of(builder.get("task_kind")) == "repo_plan"
    return builder.get("project_backlog_tasks") is True or is_plan


def read_tasks(node_id: str, output: JsonValue) -> tuple[TaskText, ...]:
    """Read the tasks in the output of a node.

    They are a list under `backlog_tasks`, or a bare list: as JSON, as JSON text, or in fenced
    blocks of a text.

    Raises:
        ValueError: there are none, too many, or one is no task.
    """
    found = _listed(output)
    if found is None:
        raise ValueError("the output has no list of tasks, neither bare nor under `backlog_tasks`")
    if len(found) > TASKS_MAX:
        raise ValueError(f"{len(found)} tasks are more than the {TASKS_MAX} allowed")
    tasks: dict[str, TaskText] = {}
    for value in found:
        task = _task(node_id, value)
        if tasks.setdefault(task_id_of(node_id, task.name), task) is not task:
            raise ValueError(f"two tasks are called `{task.name}`")
    return tuple(tasks.values())


def task_id_of(node_id: str, name: str) -> str:
    """Return the id of a task: of its node and a slug of its name."""
    slug = _SLUG.sub("-", name.lower()).strip("-")[:_SLUG_CHARS_MAX]
    if not slug:
        slug = digest(name.encode()).removeprefix("sha256:")[:12]
    return f"backlog-{node_id}-{slug}"


def project(known: Sequence[BacklogTask], projection: Projection, *, now_ms: int) -> BacklogChange:
    """Return what a new attempt of a node means for its tasks.

    A task that is there already keeps where it is and gets the new text. One that is not put up any
    more goes, unless somebody has begun it.
    """
    before = {task.task_id: task for task in known if task.node_no == projection.node_no}
    tasks: list[BacklogTask] = []
    records: list[TaskRecord] = []
    for position, text in enumerate(projection.tasks):
        task_id = task_id_of(text.node_id, text.name)
        there = before.pop(task_id, None)
        if there is None:
            status = S.DONE if text.is_done else S.PENDING if text.dependencies else S.RUNNABLE
            made = BacklogTask(
                task_id=task_id,
                node_no=projection.node_no,
                position=position,
                status=status,
                created_at_ms=now_ms,
                updated_at_ms=now_ms,
                task=text,
            )
            tasks.append(made)
            records.append(_record(E.PROJECTED, made, now_ms))
        elif (there.task, there.position) != (text, position):
            tasks.append(_moved(there, now_ms, task=text, position=position))
    gone = [task for task in before.values() if task.status in _OPEN and not projection.problem]
    records += [_record(E.WITHDRAWN, task, now_ms) for task in gone]
    return BacklogChange(
        tasks=tuple(tasks), removed=tuple(task.task_id for task in gone), records=tuple(records)
    )


def _listed(value: JsonValue) -> Sequence[JsonValue] | None:
    if isinstance(value, str):
        for text in (value, *_FENCE.findall(value)):
            try:
                found = _listed_value(decode(text))
            except msgspec.DecodeError:
                continue
            if found is not None:
                return found
        return None
    found = _listed_value(value)
    if found is None and isinstance(value, Mapping):
        inner = value.get("content", value.get("text"))
        return _listed(inner) if isinstance(inner, str) else _listed_value(inner)
    return found


def _listed_value(value: JsonValue) -> Sequence[JsonValue] | None:
    if isinstance(value, Mapping):
        value = value.get("backlog_tasks")
    return value if isinstance(value, Sequence) and not isinstance(value, str) else None


def _task(node_id: str, value: JsonValue) -> TaskText:
    if not isinstance(value, Mapping):
        raise ValueError(_NO_TASK)
    title = text_of(value.get("title"))
    name = text_of(value.get("task_id")) or text_of(value.get("id")) or title
    if not name:
        raise ValueError(_NO_TASK)
    priority = value.get("priority")
    dependencies = _texts(value, "task_dependencies") or _texts(value, "depends_on")
    return TaskText(
        name=name,
        title=title or name,
        node_id=node_id,
        description=text_of(value.get("description")),
        task_kind=text_of(value.get("task_kind")),
        repo_root=text_of(value.get("repo_root")),
        write_scope=_texts(value, "write_scope"),
        acceptance_criteria=_texts(value, "acceptance_criteria"),
        dependencies=dependencies,
        verification_state=text_of(value.get("verification_state")),
        verification_command=text_of(value.get("verification_command")),
        task_owner=text_of(value.get("task_owner")),
        assigned_agent=text_of(value.get("assigned_agent")),
        priority=priority if isinstance(priority, int) else 0,
        is_done=text_of(value.get("status")) == S.DONE,
    )


def _texts(value: JsonObject, name: str) -> tuple[str, ...]:
    found = value.get(name)
    if isinstance(found, str):
        return (found.strip(),) if found.strip() else ()
    return tuple(filter(None, (text_of(each) for each in list_at(value, name))))


# Commands


def decide_task(
    tasks: Sequence[BacklogTask],
    command: BacklogCommand,
    *,
    node_ids: Sequence[str] = (),
    now_ms: int,
) -> BacklogChange:
    """Decide a command on a task; stale claims of all tasks are given back first.

    Args:
        tasks: all of the run.
        command: what is asked.
        node_ids: of the run; a node is no task.
        now_ms: the moment.

    Raises:
        InvalidRequest: no task is named.
        NotFound: the run has no such task.
        Refused: it is a node, or its state does not allow it; `details` has its status.
    """
    stale = {task.task_id: _freed(task, now_ms) for task in tasks if is_stale(task, now_ms)}
    now = {task.task_id: stale.get(task.task_id, task) for task in tasks}
    task = _find(now, command.task_id.strip(), node_ids)
    if command.command_id and command.command_id == task.last_command_id:
        return BacklogChange(task=task)
    match command:
        case ClaimTask():
            after, record = _claim(task, now, command, now_ms)
        case RequeueTask():
            after, record = _requeue(task, command, now_ms)
        case CompleteTask():
            after, record = _complete(task, command, now_ms)
        case _:
            assert_never(command)
    after = msgspec.structs.replace(after, last_command_id=command.command_id)
    others = tuple(freed for freed in stale.values() if freed.task_id != after.task_id)
    swept = [
        _record(E.STALE_REQUEUED, freed, now_ms, agent_id=before.lease_owner)
        for before in tasks
        if (freed := stale.get(before.task_id)) is not None
    ]
    return BacklogChange(tasks=(*others, after), records=(*swept, record), task=after)


def is_stale(task: BacklogTask, now_ms: int) -> bool:
    """Say whether the span of a claim is over."""
    expires_at_ms = task.lease_expires_at_ms
    return task.status is S.IN_PROGRESS and expires_at_ms is not None and expires_at_ms <= now_ms


def _find(tasks: Mapping[str, BacklogTask], task_id: str, node_ids: Sequence[str]) -> BacklogTask:
    if not task_id:
        raise InvalidRequest("name the task", code=REQUIRED)
    if task_id in tasks:
        return tasks[task_id]
    if task_id in node_ids:
        raise Refused(
            f"`{task_id}` is a node of the run, and no task of its backlog", code=INVALID_TYPE
        )
    raise NotFound(
        f"the run has no task `{task_id}`; `tandem backlog list RUN` shows what it has",
        code=NOT_FOUND,
    )


def _claim(
    task: BacklogTask, tasks: Mapping[str, BacklogTask], command: ClaimTask, now_ms: int
) -> tuple[BacklogTask, TaskRecord]:
    if obstacle := next(_obstacles(task, tasks, now_ms), ""):
        raise Refused(
            f"cannot claim task `{task.task_id}`: {obstacle}",
            code=NOT_CLAIMABLE,
            details={"status": task.status.value},
        )
    agent_id = (
        command.agent_id.strip()
        or task.task.task_owner
        or task.task.assigned_agent
        or DEFAULT_AGENT
    )
    after = _moved(
        task,
        now_ms,
        status=S.IN_PROGRESS,
        attempt=task.attempt + 1,
        lease_owner=agent_id,
        lease_token=command.lease_token,
        lease_expires_at_ms=now_ms + min(max(command.lease_ms, LEASE_MIN_MS), LEASE_MAX_MS),
    )
    return after, _record(E.CLAIMED, after, now_ms, agent_id=agent_id, reason=command.reason)


def _obstacles(task: BacklogTask, tasks: Mapping[str, BacklogTask], now_ms: int) -> Iterator[str]:
    if task.status is S.IN_PROGRESS:
        yield f"`{task.lease_owner}` has it"
    elif task.status not in _OPEN:
        yield f"it is {task.status.value}"
    for task_id in task.depends_on:
        other = tasks.get(task_id)
        if other is None:
            yield f"it depends on `{task_id}`, which is no task of the run"
        elif other.status is not S.DONE:
            yield f"it depends on `{task_id}`, which is {other.status.value}"
    if task.next_retry_at_ms is not None and task.next_retry_at_ms > now_ms:
        yield f"it is to be tried again in {task.next_retry_at_ms - now_ms} ms"


def _requeue(
    task: BacklogTask, command: RequeueTask, now_ms: int
) -> tuple[BacklogTask, TaskRecord]:
    if task.status is S.DONE:
        raise Refused(
            f"cannot requeue task `{task.task_id}`: it is done",
            code=NOT_REQUEUEABLE,
            details={"status": task.status.value},
        )
    after = _freed(task, now_ms)
    agent_id = task.lease_owner
    return after, _record(E.REQUEUED, after, now_ms, agent_id=agent_id, reason=command.reason)


def _complete(
    task: BacklogTask, command: CompleteTask, now_ms: int
) -> tuple[BacklogTask, TaskRecord]:
    obstacle = ""
    if task.status is not S.IN_PROGRESS:
        obstacle = f"it is {task.status.value}; claim it first"
    elif command.lease_token:
        obstacle = "" if command.lease_token == task.lease_token else "it was claimed again since"
    elif command.agent_id.strip() not in ("", task.lease_owner):
        obstacle = f"`{task.lease_owner}` has it"
    if obstacle:
        raise Refused(
            f"cannot complete task `{task.task_id}`: {obstacle}",
            code=NOT_COMPLETABLE,
            details={"status": task.status.value},
        )
    after = _moved(
        task, now_ms, status=S.DONE, lease_owner="", lease_token="", lease_expires_at_ms=None
    )
    return after, _record(
        E.COMPLETED, after, now_ms, agent_id=task.lease_owner, reason=command.reason
    )


def _freed(task: BacklogTask, now_ms: int) -> BacklogTask:
    return _moved(
        task, now_ms, status=S.RUNNABLE, lease_owner="", lease_token="", lease_expires_at_ms=None
    )


def _moved(moved: BacklogTask, now_ms: int, /, **changes: Any) -> BacklogTask:
    return msgspec.structs.replace(
        moved, task_rev=moved.task_rev + 1, updated_at_ms=now_ms, **changes
    )


def _record(
    event: BacklogEvent,
    task: BacklogTask,
    now_ms: int,
    *,
    agent_id: str = "",
    reason: str = "",
) -> TaskRecord:
    return TaskRecord(
        event=event,
        task_id=task.task_id,
        task_rev=task.task_rev,
        agent_id=agent_id,
        reason=reason,
        recorded_at_ms=now_ms,
    )


# Showing


def task_document(task: BacklogTask, *, automation_id: str) -> dict[str, Any]:
    """Return a task as the published contract shows it (http-api 3.5)."""
    text = task.task
    return {
        "id": task.task_id,
        "task_type": TASK_TYPE,
        "payload": {
            "title": text.title,
            "description": text.description,
            "task_id": text.name,
            "backlog_task_id": task.task_id,
            "task_kind": text.task_kind,
            "repo_root": text.repo_root,
            "write_scope": list(text.write_scope),
            "acceptance_criteria": list(text.acceptance_criteria),
            "task_dependencies": list(text.dependencies),
            "verification_state": text.verification_state,
            "task_owner": text.task_owner,
            "verification_command": text.verification_command,
            "source_node_id": text.node_id,
            "projects_backlog_tasks": False,
        },
        "status": task.status.value,
        "workflow_id": automation_id,
        "workflow_node_id": text.node_id,
        "parent_task_id": f"node-{text.node_id}",
        "depends_on_task_ids": list(task.depends_on),
        "decision_ids": [],
        "artifact_ids": [],
        "assigned_agent": text.assigned_agent or None,
        "priority": text.priority,
        "attempt": task.attempt,
        "max_attempts": 0,
        "last_error": task.last_error or None,
        "next_retry_at_ms": task.next_retry_at_ms,
        "lease_owner": task.lease_owner or None,
        "lease_token": task.lease_token or None,
        "lease_expires_at_ms": task.lease_expires_at_ms,
        "task_rev": task.task_rev,
        "created_ts": task.created_at_ms,
        "updated_ts": task.updated_at_ms,
    }


def blackboard(backlog: Backlog, *, automation_id: str) -> dict[str, Any]:
    """Return all tasks of a run as the published contract shows them (http-api 3.5)."""
    return {
        "facts": [],
        "decisions": [],
        "open_questions": [],
        "artifacts": [],
        "tasks": [task_document(task, automation_id=automation_id) for task in backlog.tasks],
        "summaries": {},
        "revision": backlog.revision,
    }
