"""The rows of a run, for the command line and pages, and what would be undone by an action.

The record of the contract tells what clients know; these tell all of it, under the names of ours.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, Parameter, answer
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.telling import present_run, run_of
from tandem.domain.command import (
    Cancel,
    Command,
    ContinueNode,
    DecideGate,
    Pause,
    Recover,
    Redeliver,
    Repair,
    Resume,
    RetryNode,
    Skip,
)
from tandem.domain.ids import NodeId
from tandem.engine.run_rows import output_of, read_rows

PREVIEWS: Final[Mapping[str, Callable[[NodeId], Command]]] = {
    "pause": lambda _: Pause(),
    "resume": lambda _: Resume(),
    "cancel": lambda _: Cancel(),
    "recover": lambda _: Recover(),
    "redeliver": lambda _: Redeliver(),
    "repair": lambda node_id: Repair(node_id=node_id),
    "retry": lambda node_id: RetryNode(node_id=node_id),
    "requeue": lambda node_id: RetryNode(node_id=node_id, requeue=True),
    "continue": lambda node_id: ContinueNode(node_id=node_id),
    "skip": lambda node_id: Skip(node_id=node_id, reason="preview"),
    "rework": lambda node_id: DecideGate(decision="rework", node_id=node_id or None),
}


async def rows(call: Call) -> Response:
    """Tell the rows of a run, and why it stands still."""
    service, run_id = call.service, run_of(call)
    view = await service.store.load(run_id, tenant=call.tenant)
    found = read_rows(
        service.store,
        service.artifacts,
        view,
        reason=service.engine.why(run_id, tenant=call.tenant),
        tenant=call.tenant,
        now_ms=service.clock.now_ms(),
    )
    return answer({"rows": found})


async def output(call: Call) -> Response:
    """Send the output of a completed node as JSON."""
    view = await call.service.store.load(run_of(call), tenant=call.tenant)
    node_id = NodeId(call.path("node_id"))
    content = output_of(view, node_id, call.service.artifacts, tenant=call.tenant)
    return Response(content, media_type="application/json")


async def preview(call: Call) -> Response:
    """Tell what an action would undo, and what may happen twice; nothing is written."""
    run_id = present_run(call).run_id
    action = call.query.get("action", "")
    make = PREVIEWS.get(action)
    if make is None:
        known = ", ".join(PREVIEWS)
        raise HttpError("QUERY_INVALID", f"`action` cannot be {action[:40]!r}; there are {known}")
    command = make(NodeId(call.query.get("node_id", "")))
    found = await call.service.engine.preview(run_id, command, tenant=call.tenant)
    return answer({"ok": True, "preview": msgspec.to_builtins(found)})


_BASE: Final = "/automations/v2/runs/{run_id}"
_CODES: Final = {"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"}

ROUTES = (
    Endpoint(
        method="GET",
        path=f"{_BASE}/rows",
        handler=rows,
        says="Tell the rows of a run: its nodes, attempts, gates, waits and artifacts, what the "
        "last nodes left, and why it stands still.",
        answers="rows{run, definition, nodes[], attempts[], gates[], waits[], artifacts[], "
        "forks[], outputs, reason, now_ms}",
        codes=_CODES,
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/tasks/{{node_id}}/output",
        handler=output,
        says="Send the output of a completed node, whole, as JSON.",
        answers="the output",
        codes=_CODES,
        errors=("AUTOMATION_V2_TASK_NODE_NOT_FOUND", "NO_OUTPUT"),
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/preview",
        handler=preview,
        says="Tell what an action would undo, and what may happen twice; nothing is written.",
        answers="ok, preview",
        query=(
            Parameter(name="action", says=f"One of {', '.join(PREVIEWS)}."),
            Parameter(name="node_id", says="The node, for those that are about one."),
        ),
        codes=_CODES,
        errors=(
            "QUERY_INVALID",
            "AUTOMATION_V2_TASK_NODE_REQUIRED",
            "AUTOMATION_V2_TASK_NODE_NOT_FOUND",
        ),
    ),
)
