"""One action for many runs."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.schemas import BulkAction
from tandem.adapters.http.telling import told_reason
from tandem.domain.command import Cancel, Command, Pause, Recover, Redeliver, Resume
from tandem.domain.ids import AutomationId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Run
from tandem.engine.bulk import BulkResult, each
from tandem.ports.store import RunFilter

ACTIONS: Final[Mapping[str, Callable[..., Command]]] = {
    "pause": Pause,
    "resume": Resume,
    "cancel": Cancel,
    "recover": Recover,
    "redeliver": Redeliver,
}


async def act(call: Call) -> Response:
    """Do something to every run that the filter finds, newest first, and tell how each went."""
    given = await call.body(BulkAction)
    chosen = RunFilter(
        tenant=call.tenant,
        automation_id=AutomationId(given.filter.automation_id)
        if given.filter.automation_id
        else None,
        statuses=_statuses(given.filter.status),
        before_no=given.cursor,
        limit=given.limit,
    )
    command = ACTIONS[given.action](**told_reason(given.reason))

    async def obey(run: Run) -> None:
        code = call.sight.refusal(run.automation_id, is_definition=False)
        if code:
            raise HttpError(code, "only the owner and admins act on this run")
        await call.service.engine.execute(run.run_id, command, tenant=call.tenant)

    looked: list[int] = []

    def seen(run: Run) -> bool:
        looked.append(run.run_no)
        return call.sight.sees(run.automation_id)

    async def look(_: Run) -> None:
        """Nothing is done to a run that is only counted."""

    found = [
        result
        async for result in each(
            call.service.store,
            chosen,
            look if given.preview else obey,
            created_before_ms=given.filter.created_before_ms,
            wants=seen,
        )
    ]
    # Where as many were looked at as were asked for there may be more.
    return answer(_told(given, found, looked[-1] if len(looked) == given.limit else None))


def _told(given: BulkAction, found: list[BulkResult], cursor: int | None) -> dict[str, Any]:
    if given.preview:
        ids = [result.run_id for result in found]
        return {"ok": True, "preview": True, "count": len(ids), "run_ids": ids, "cursor": cursor}
    done = sum(result.done for result in found)
    return {
        "ok": done == len(found),
        "preview": False,
        "count": len(found),
        "done": done,
        "results": [msgspec.to_builtins(result) for result in found],
        "cursor": cursor,
    }


def _statuses(words: list[str]) -> tuple[RunState, ...]:
    known = {state.value: state for state in RunState}
    for word in words:
        if word.strip().lower() not in known:
            states = ", ".join(known)
            raise HttpError("BODY_INVALID", f"there is no state {word[:40]!r}; there are {states}")
    return tuple(known[word.strip().lower()] for word in words)


ROUTES = (
    Endpoint(
        method="POST",
        path="/automations/v2/runs/bulk",
        handler=act,
        says="Pause, resume, cancel, recover or redeliver every run that a filter finds; with "
        "`preview` only count them.",
        answers="ok, preview, count, done?, results[]?, run_ids[]?, cursor",
        body=BulkAction,
    ),
)
