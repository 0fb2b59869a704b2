"""Answers that show a run: its record, and what the contract puts beside it."""

from typing import Any

from starlette.responses import Response

from tandem.adapters.http.call import Call
from tandem.domain.command import Command
from tandem.domain.errors import NotFound
from tandem.domain.ids import RunId
from tandem.domain.json import encode
from tandem.domain.run import Run
from tandem.domain.run_record import CONTEXT_PREFIX


def run_of(call: Call) -> RunId:
    """Return the run that the path names."""
    return RunId(call.path("run_id"))


def present_run(call: Call) -> Run:
    """Return the row of the run that the path names.

    Raises:
        NotFound: no such run for this tenant.
    """
    run_id = run_of(call)
    run = call.service.store.find_run(run_id, tenant=call.tenant)
    if run is None:
        raise NotFound(f"there is no run {run_id}", code="AUTOMATION_V2_RUN_NOT_FOUND")
    return run


def tell_run(call: Call, run_id: RunId, *, as_of: Run | None = None, **beside: Any) -> Response:
    """Return a run as JSON, with the ids of its context.

    Args:
        call: what was asked.
        run_id: the run.
        as_of: its row after what was asked; it may have moved on since.
        beside: what else stands in the answer.

    Raises:
        NotFound: no such run for this tenant.
    """
    record = call.service.queries.run_json(
        run_id, tenant=call.tenant, compat=call.is_compat, as_of=as_of
    )
    context = encode(f"{CONTEXT_PREFIX}{run_id}")
    parts = [b'"%s":%s' % (name.encode(), encode(value)) for name, value in beside.items()]
    content = b'{%s"run":%s,"contextRunID":%s,"linked_context_run_id":%s}' % (
        b"".join(part + b"," for part in parts),
        record,
        context,
        context,
    )
    return Response(content, media_type="application/json")


async def execute(call: Call, command: Command) -> Response:
    """Ask something of the run that the path names, and tell the run as that left it."""
    run_id = run_of(call)
    change = await call.service.engine.execute(run_id, command, tenant=call.tenant)
    return tell_run(call, run_id, as_of=change.run, ok=True)


def told_reason(reason: str | None) -> dict[str, Any]:
    """Return the reason as an argument of a command; without one the command has its own."""
    return {"reason": reason} if reason else {}
