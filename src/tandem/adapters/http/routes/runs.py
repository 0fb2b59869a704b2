"""Runs: lists, one run, what people do with them (http-api 3.3)."""

from contextlib import suppress
from typing import Final

import msgspec
from starlette.responses import Response

from tandem.adapters.http.bodies import moment, optional, whole
from tandem.adapters.http.call import Call, Endpoint, Parameter, answer
from tandem.adapters.http.governing import require_no_agent
from tandem.adapters.http.schemas import ForkRun, PauseRun, Reasoned, RepairRun
from tandem.adapters.http.telling import execute, present_run, run_of, tell_run, told_reason
from tandem.domain.command import Cancel, Pause, Recover, Redeliver, Repair, Resume
from tandem.domain.errors import NothingToDo
from tandem.domain.ids import AutomationId, NodeId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Run
from tandem.domain.run_record import compat_view, summary_record
from tandem.engine.queries import RunList
from tandem.engine.verification import verify
from tandem.ports.store import RunSearch

PAUSE_WAIT_MS: Final = 10_000
"""So long a pause is waited for that stops attempts; clients wait 20 s."""
EVENTS_MAX: Final = 1_000
PAGES_MAX: Final = 20
"""So often a list is read on because what was read is not for the caller."""


async def list_runs(call: Call) -> Response:
    """List the runs of all automations, newest first."""
    automation_id = optional(call.query, "automation_id", AutomationId)
    return answer(_page(call, automation_id, highest=200))


async def list_runs_of_automation(call: Call) -> Response:
    """List the runs of an automation that is there, newest first."""
    automation_id = AutomationId(call.path("automation_id"))
    call.service.automations(call.tenant).get(automation_id)
    return answer({"automationID": automation_id, **_page(call, automation_id, highest=500)})


def _page(call: Call, automation_id: AutomationId | None, *, highest: int) -> dict[str, object]:
    query = call.query
    search = RunSearch(
        tenant=call.tenant,
        automation_id=automation_id,
        statuses=optional(query, "status", _statuses) or (),
        trigger_type=query.get("trigger_type", ""),
        text=query.get("q", ""),
        created_from_ms=moment(query, "created_from_ms"),
        created_until_ms=moment(query, "created_until_ms"),
        limit=whole(query, "limit", default=50, lowest=1, highest=highest),
    )
    found = _seen(call, search, query.get("cursor") or None)
    return {"runs": found.runs, "count": len(found.runs), "cursor": found.cursor}


class _Of(msgspec.Struct):
    """What a summary says of whose run it is."""

    automation_id: AutomationId


_of: Final = msgspec.json.Decoder(_Of)


def _seen(call: Call, search: RunSearch, cursor: str | None) -> RunList:
    """Return a page of what the caller sees; where much is hidden it may be short."""
    found: list[msgspec.Raw] = []
    for _ in range(PAGES_MAX):
        left = search.limit - len(found)
        page = call.service.queries.run_summaries(
            msgspec.structs.replace(search, limit=left), cursor=cursor, compat=call.is_compat
        )
        found += (
            page.runs
            if call.sight.is_whole
            else [run for run in page.runs if call.sight.sees(_of.decode(run).automation_id)]
        )
        cursor = page.cursor
        if cursor is None or len(found) == search.limit or call.sight.is_whole:
            break
    return RunList(found, cursor)


def _statuses(text: str) -> tuple[RunState, ...]:
    return tuple(RunState(word.strip()) for word in text.split(",") if word.strip())


async def get_run(call: Call) -> Response:
    """Tell everything of a run, or with `view=summary` what a list shows of it."""
    if call.query.get("view", "").strip().lower() != "summary":
        return tell_run(call, run_of(call))
    record = summary_record(present_run(call))
    return answer({"run": compat_view(record) if call.is_compat else record})


async def pause(call: Call) -> Response:
    """Hold a run; when its attempts are stopped, the answer waits for that."""
    given = await call.body(PauseRun)
    run_id = run_of(call)
    command = Pause(now=given.now, **told_reason(given.reason))
    change = await call.service.engine.execute(run_id, command, tenant=call.tenant)
    if change.run.status is not RunState.PAUSING or not given.now:
        return tell_run(call, run_id, as_of=change.run, ok=True)
    # What does not stop in time is told as `pausing`.
    with suppress(TimeoutError):
        async with call.service.clock.deadline(PAUSE_WAIT_MS):
            await call.service.waiters.wait(run_id, until=_is_not_pausing, tenant=call.tenant)
    return tell_run(call, run_id, ok=True)


def _is_not_pausing(run: Run) -> bool:
    return run.status is not RunState.PAUSING


async def resume(call: Call) -> Response:
    """Let a paused run go on."""
    given = await call.body(Reasoned)
    return await execute(call, Resume(**told_reason(given.reason)))


async def cancel(call: Call) -> Response:
    """End a run for good; one that has ended stays as it is."""
    given = await call.body(Reasoned)
    try:
        return await execute(call, Cancel(**told_reason(given.reason)))
    except NothingToDo:
        return tell_run(call, run_of(call), ok=True, alreadyTerminal=True)


async def recover(call: Call) -> Response:
    """Let a failed, blocked or paused run try again."""
    given = await call.body(Reasoned)
    return await execute(call, Recover(**told_reason(given.reason)))


async def redeliver(call: Call) -> Response:
    """Send out again what a node with outside effects could not deliver."""
    given = await call.body(Reasoned)
    return await execute(call, Redeliver(**told_reason(given.reason)))


async def repair(call: Call) -> Response:
    """Change a node of this run's own version and let it and what follows run again."""
    given = await call.body(RepairRun)
    if given.save:
        await require_no_agent(call)
    run_id = run_of(call)
    command = Repair(
        node_id=NodeId(given.node_id),
        prompt=given.prompt,
        template_id=given.template_id,
        model_policy=given.model_policy,
        inputs=given.inputs,
        action=given.action,
        save=given.save,
        decided_by=call.caller.name,
        **told_reason(given.reason),
    )
    change = await call.service.engine.execute(run_id, command, tenant=call.tenant)
    record = call.service.queries.run_record(run_id, tenant=call.tenant)
    version = record.get("automation_snapshot")
    return tell_run(call, run_id, as_of=change.run, ok=True, automation=version)


async def fork(call: Call) -> Response:
    """Start a run that takes over what this one has done and goes its own way from a node on."""
    given = await call.body(ForkRun)
    call.spend_run_creation()
    run = await call.service.engine.fork(
        run_of(call),
        NodeId(given.node_id),
        inputs=given.inputs,
        asks_again=given.ask_again,
        started_by=call.caller.name,
        reason=given.reason or "",
        tenant=call.tenant,
        key=call.key(f"fork:{run_of(call)}", given.model_dump(mode="json")),
    )
    return tell_run(call, run.run_id, as_of=run, ok=True)


async def why(call: Call) -> Response:
    """Tell what a run waits for, since when, who has it, and what would free it."""
    run_id = run_of(call)
    reason = call.service.engine.why(run_id, tenant=call.tenant)
    return answer({"run_id": run_id, "why": reason})


async def history(call: Call) -> Response:
    """Tell lifecycle events in their order, also those that a record leaves out."""
    run_id, query = run_of(call), call.query
    after_seq = whole(query, "after_seq", default=0, lowest=0, highest=2**53)
    limit = whole(query, "limit", default=250, lowest=1, highest=EVENTS_MAX)
    present_run(call)
    events = call.service.queries.run_history(
        run_id, tenant=call.tenant, after_seq=after_seq, limit=limit
    )
    return answer({"run_id": run_id, "events": events, "count": len(events)})


async def check(call: Call) -> Response:
    """Check the chain of receipts of a run, its outputs and its artifacts."""
    service = call.service
    found = await verify(
        run_of(call),
        tenant=call.tenant,
        store=service.store,
        artifacts=service.artifacts,
        files=service.files,
    )
    return answer({"ok": not found.faults, "verification": found})


async def delete(call: Call) -> Response:
    """Delete a run that has ended, and the artifacts that only it had."""
    run_id = run_of(call)
    removed = await call.service.engine.delete(run_id, tenant=call.tenant)
    return answer({"ok": True, "deleted": True, "runID": run_id, "artifacts_removed": removed})


_BASE: Final = "/automations/v2/runs/{run_id}"
_RUN: Final = "run, contextRunID, linked_context_run_id"
_CODES: Final = {"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"}
_LIST: Final = (
    Parameter(name="limit", says="So many at most; 50 without.", kind="integer"),
    Parameter(name="cursor", says="Continues the page that told it."),
    Parameter(name="status", says="Only runs in these states, with commas in between."),
    Parameter(name="trigger_type", says="Only runs that this started."),
    Parameter(name="q", says="Only runs with this in their ids, name or detail."),
    Parameter(name="created_from_ms", says="Only runs created at or after it.", kind="integer"),
    Parameter(name="created_until_ms", says="Only runs created before it.", kind="integer"),
)

ROUTES = (
    Endpoint(
        method="GET",
        path="/automations/v2/runs",
        handler=list_runs,
        says="List runs, newest first; at most 200 at once.",
        answers="runs[], count, cursor",
        query=(*_LIST, Parameter(name="automation_id", says="Only runs of this automation.")),
        errors=("QUERY_INVALID", "INVALID_CURSOR"),
    ),
    Endpoint(
        method="GET",
        path="/automations/v2/{automation_id}/runs",
        handler=list_runs_of_automation,
        says="List the runs of an automation, newest first; at most 500 at once.",
        answers="automationID, runs[], count, cursor",
        query=_LIST,
        codes={"not_found": "AUTOMATION_V2_NOT_FOUND"},
        errors=("QUERY_INVALID", "INVALID_CURSOR"),
    ),
    Endpoint(
        method="GET",
        path=_BASE,
        handler=get_run,
        says="Tell everything of a run; also after its automation was deleted.",
        answers=f"{_RUN}; or run:RunSummary",
        query=(Parameter(name="view", says="`summary` tells of the run what a list shows."),),
        codes=_CODES,
    ),
    Endpoint(
        method="DELETE",
        path=_BASE,
        handler=delete,
        says="Delete a run that has ended, and the artifacts that only it had.",
        answers="ok, deleted, runID, artifacts_removed",
        codes=_CODES,
        errors=("RUN_NOT_ENDED", "RUN_CLEANUP_PENDING"),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/pause",
        handler=pause,
        says="Hold a run; attempts that run are stopped, with `now: false` they come to their end.",
        answers=f"ok, {_RUN}",
        body=PauseRun,
        codes=_CODES,
        errors=("AUTOMATION_V2_RUN_NOT_PAUSABLE",),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/resume",
        handler=resume,
        says="Let a paused run go on.",
        answers=f"ok, {_RUN}",
        body=Reasoned,
        codes=_CODES,
        errors=("AUTOMATION_V2_RUN_NOT_PAUSED", "RUN_CLEANUP_PENDING"),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/cancel",
        handler=cancel,
        says="End a run for good; one that has ended stays as it is.",
        answers=f"ok, alreadyTerminal?, {_RUN}",
        body=Reasoned,
        codes=_CODES,
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/recover",
        handler=recover,
        says="Let a failed, blocked or paused run try again; what is completed stays so.",
        answers=f"ok, {_RUN}",
        body=Reasoned,
        codes=_CODES,
        errors=(
            "AUTOMATION_V2_RUN_NOT_RECOVERABLE",
            "AUTOMATION_V2_RUN_FAILURE_CONTEXT_MISSING",
            "AUTOMATION_V2_RUN_BLOCKED_CONTEXT_MISSING",
            "RUN_CLEANUP_PENDING",
        ),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/repair",
        handler=repair,
        says="Change a node of this run's own version; it and what follows run again.",
        answers=f"ok, automation, {_RUN}",
        body=RepairRun,
        codes={**_CODES, "invalid_automation": "INVALID_AUTOMATION"},
        errors=(
            "AUTOMATION_V2_RUN_NOT_REPAIRABLE",
            "AUTOMATION_V2_REPAIR_NODE_REQUIRED",
            "AUTOMATION_V2_REPAIR_NODE_NOT_FOUND",
            "AUTOMATION_V2_REPAIR_AGENT_NOT_FOUND",
            "AUTOMATION_V2_REPAIR_METADATA_INVALID",
            "AUTOMATION_V2_REPAIR_PERSIST_FAILED",
            "REPAIR_WITHOUT_EFFECT",
            "REPAIR_INVALID",
            "RUN_CLEANUP_PENDING",
            "PREMIUM_FEATURE_REQUIRED",
        ),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/redeliver",
        handler=redeliver,
        says="Send out again what a node with outside effects could not deliver.",
        answers=f"ok, {_RUN}",
        body=Reasoned,
        codes=_CODES,
        errors=(
            "DEAD_LETTER_NOT_FOUND",
            "DEAD_LETTER_NOT_RETRYABLE",
            "RETRY_EXHAUSTED",
            "RUN_CLEANUP_PENDING",
        ),
    ),
    Endpoint(
        method="POST",
        path=f"{_BASE}/fork",
        handler=fork,
        says="Start a run that takes over what this one has done and goes its own way at a node.",
        answers=f"ok, {_RUN} (the new one)",
        body=ForkRun,
        codes={**_CODES, "invalid_automation": "AUTOMATION_V2_RUN_CREATE_FAILED"},
        errors=(
            "AUTOMATION_V2_TASK_NODE_REQUIRED",
            "AUTOMATION_V2_TASK_NODE_NOT_FOUND",
            "RATE_LIMITED",
        ),
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/why",
        handler=why,
        says="Tell what a run waits for, since when, who has it, and what would free it.",
        answers="run_id, why{kind, sentence, …}",
        codes=_CODES,
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/history",
        handler=history,
        says="Tell lifecycle events in their order, those after a number.",
        answers="run_id, events[], count",
        query=(
            Parameter(name="after_seq", says="Events after this number.", kind="integer"),
            Parameter(name="limit", says="So many at most; 250 without.", kind="integer"),
        ),
        codes=_CODES,
        errors=("QUERY_INVALID",),
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/verify",
        handler=check,
        says="Check the chain of receipts of a run, its outputs and its artifacts.",
        answers="ok, verification",
        codes=_CODES,
    ),
)
