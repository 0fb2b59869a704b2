"""What runs wait for, and saying that it has come."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.responses import Response

from tandem.adapters.http.bodies import whole
from tandem.adapters.http.call import Call, Endpoint, Parameter, answer
from tandem.adapters.http.schemas import ResolveWaitBody, SignalBody
from tandem.adapters.http.telling import run_of, tell_run
from tandem.domain.command import ResolveWait
from tandem.domain.ids import NodeId, WaitId
from tandem.domain.json import encode
from tandem.domain.signal import Signal, SignalKind
from tandem.domain.waits import run_of_wait
from tandem.engine.paging import seen_of
from tandem.ports.store import OpenWait

LISTED_MAX: Final = 500


async def list_waits(call: Call) -> Response:
    """List the waits of runs that go on, oldest first."""
    limit = whole(call.query, "limit", default=100, lowest=1, highest=LISTED_MAX)

    def page(after: OpenWait | None, size: int) -> Sequence[OpenWait]:
        return call.service.store.list_waits(tenant=call.tenant, limit=size, after=after)

    found = seen_of(page, lambda wait: call.sight.sees(wait.automation_id), limit=limit)
    return answer({"waits": found, "count": len(found)})


async def resolve(call: Call) -> Response:
    """Say that what the wait of a node waits for has come."""
    given = await call.body(ResolveWaitBody)
    run_id = run_of(call)
    key = given.idempotency_key or f"http-{call.service.ids.new()}"
    command = ResolveWait(
        idempotency_key=key,
        node_id=NodeId(call.path("node_id")),
        payload=encode(given.payload),
        source=given.source or call.caller.name,
    )
    wait = await call.service.engine.resolve_wait(run_id, command, tenant=call.tenant)
    told: Any = None if wait is None else msgspec.to_builtins(wait)
    return tell_run(call, run_id, ok=wait is not None, wait=told)


async def signal(call: Call) -> Response:
    """Say that a condition outside is met: every wait for it is woken, also those to come."""
    given = await call.body(SignalBody)
    found = await call.service.engine.signal(
        Signal(
            kind=SignalKind.EXTERNAL_CONDITION,
            subject=given.condition_key,
            idempotency_key=given.idempotency_key,
            payload=encode(given.payload),
            source=given.source or call.caller.name,
        ),
        tenant=call.tenant,
    )
    return answer(
        {
            "ok": True,
            "is_new": found.is_new,
            "woken": [
                {"wait_id": wait, "runID": change.run.run_id}
                for wait, change in found.woken
                if call.sight.sees(change.run.automation_id)
            ],
            "refused": [
                {"wait_id": wait, "reason": why}
                for wait, why in found.refused
                if _sees_wait(call, wait)
            ],
        }
    )


def _sees_wait(call: Call, wait_id: WaitId) -> bool:
    if call.sight.is_whole:
        return True
    run = call.service.store.find_run(run_of_wait(wait_id), tenant=call.tenant)
    return run is not None and call.sight.sees(run.automation_id)


_RUN: Final = "run, contextRunID, linked_context_run_id"

ROUTES = (
    Endpoint(
        method="GET",
        path="/automations/v2/waits",
        handler=list_waits,
        says="List what runs wait for: a moment, a delivery, a condition.",
        answers="waits[], count",
        query=(Parameter(name="limit", says="So many at most; 100 without.", kind="integer"),),
        errors=("QUERY_INVALID",),
    ),
    Endpoint(
        method="POST",
        path="/automations/v2/runs/{run_id}/waits/{node_id}/resolve",
        handler=resolve,
        says="Say that what the wait of a node waits for has come; the same key again changes "
        "nothing.",
        answers=f"ok, wait, {_RUN}",
        body=ResolveWaitBody,
        codes={"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"},
        errors=(
            "WAIT_NOT_OPEN",
            "WAIT_PAYLOAD_INVALID",
            "IDEMPOTENCY_KEY_INVALID",
            "PAYLOAD_TOO_LARGE",
        ),
    ),
    Endpoint(
        method="POST",
        path="/automations/v2/signals",
        handler=signal,
        says="Say that a condition outside is met; the same key again changes nothing.",
        answers="ok, is_new, woken[], refused[]",
        body=SignalBody,
        errors=("SIGNAL_INVALID", "IDEMPOTENCY_KEY_INVALID", "PAYLOAD_TOO_LARGE"),
    ),
)
