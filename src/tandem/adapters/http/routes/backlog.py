"""The tasks that nodes of a run have put up, claimed and given back by agents (http-api 3.5)."""

from typing import Any, Final

from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.schemas import ClaimTaskBody, CompleteTaskBody, Reasoned
from tandem.adapters.http.telling import present_run, run_of
from tandem.domain.backlog import LEASE_DEFAULT_MS, blackboard, task_document
from tandem.domain.run_record import CONTEXT_PREFIX
from tandem.engine.backlog import TaskResult


async def list_tasks(call: Call) -> Response:
    """List the tasks of a run as they are now."""
    run = present_run(call)
    backlog = await call.service.engine.backlogs.read(run.run_id, tenant=call.tenant)
    board = blackboard(backlog, automation_id=run.automation_id)
    return answer(
        {
            "run_id": run.run_id,
            "tasks": board["tasks"],
            "blackboard": board,
            "problems": backlog.problems,
        }
    )


async def claim(call: Call) -> Response:
    """Have a task for a span; each call stands for itself (D11)."""
    given = await call.body(ClaimTaskBody)
    found = await call.service.engine.backlogs.claim(
        run_of(call),
        call.path("task_id"),
        agent_id=given.agent_id or "",
        lease_ms=LEASE_DEFAULT_MS if given.lease_ms is None else given.lease_ms,
        reason=given.reason or "",
        tenant=call.tenant,
    )
    return _told(found, agent_id=found.task.lease_owner, reason=given.reason or None)


async def requeue(call: Call) -> Response:
    """Give a task back, whoever has it; as often as is needed."""
    given = await call.body(Reasoned)
    found = await call.service.engine.backlogs.requeue(
        run_of(call), call.path("task_id"), reason=given.reason or "", tenant=call.tenant
    )
    return _told(found, reason=given.reason or None)


async def complete(call: Call) -> Response:
    """End a task that is claimed; tasks that depend on it can be claimed then."""
    given = await call.body(CompleteTaskBody)
    found = await call.service.engine.backlogs.complete(
        run_of(call),
        call.path("task_id"),
        agent_id=given.agent_id or "",
        lease_token=given.lease_token or "",
        reason=given.reason or "",
        tenant=call.tenant,
    )
    return _told(found, reason=given.reason or None)


def _told(found: TaskResult, **beside: Any) -> Response:
    automation_id = found.run.automation_id
    context = f"{CONTEXT_PREFIX}{found.run.run_id}"
    return answer(
        {
            "ok": True,
            "task": task_document(found.task, automation_id=automation_id),
            **beside,
            "blackboard": blackboard(found.backlog, automation_id=automation_id),
            "contextRunID": context,
            "linked_context_run_id": context,
        }
    )


_BASE: Final = "/automations/v2/runs/{run_id}/backlog/tasks"
_CODES: Final = {"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"}
_TASK: Final = (
    "AUTOMATION_V2_BACKLOG_TASK_REQUIRED",
    "AUTOMATION_V2_BACKLOG_TASK_NOT_FOUND",
    "AUTOMATION_V2_BACKLOG_TASK_INVALID_TYPE",
)
_TOLD: Final = "ok, task, reason, blackboard, contextRunID, linked_context_run_id"

ROUTES = (
    Endpoint(
        method="GET",
        path=_BASE,
        handler=list_tasks,
        says="List the tasks that nodes of the run have put up.",
        answers="run_id, tasks[], blackboard, problems[]",
        codes=_CODES,
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/{{task_id}}/claim",
        handler=claim,
        says="Have a task for 5 to 300 s; claims whose span is over are given back first.",
        answers=f"{_TOLD}, agent_id",
        body=ClaimTaskBody,
        codes=_CODES,
        errors=(*_TASK, "AUTOMATION_V2_BACKLOG_TASK_NOT_CLAIMABLE"),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/{{task_id}}/requeue",
        handler=requeue,
        says="Give a task back, whoever has it; as often as is needed.",
        answers=_TOLD,
        body=Reasoned,
        codes=_CODES,
        errors=(*_TASK, "AUTOMATION_V2_BACKLOG_TASK_NOT_REQUEUEABLE"),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/{{task_id}}/complete",
        handler=complete,
        says="End a task that is claimed; tasks that depend on it can be claimed then.",
        answers=_TOLD,
        body=CompleteTaskBody,
        codes=_CODES,
        errors=(*_TASK, "AUTOMATION_V2_BACKLOG_TASK_NOT_COMPLETABLE"),
    ),
)
