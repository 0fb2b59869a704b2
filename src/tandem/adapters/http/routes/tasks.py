"""Nodes of a run: what a reset would undo, trying again, skipping, judging (http-api 3.4)."""

from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.schemas import Disposed, Reasoned, SetNodeOutput
from tandem.adapters.http.telling import run_of, tell_run, told_reason
from tandem.domain.command import Command, ContinueNode, Dispose, RetryNode, Skip
from tandem.domain.disposition import normal_disposition
from tandem.domain.errors import NothingToDo
from tandem.domain.ids import NodeId
from tandem.domain.run_record import CONTEXT_PREFIX


def _node(call: Call) -> NodeId:
    return NodeId(call.path("node_id"))


async def reset_preview(call: Call) -> Response:
    """Tell what a retry of the node would undo; nothing is written."""
    service, run_id = call.service, run_of(call)
    found = service.queries.reset_preview(
        run_id, _node(call), tenant=call.tenant, now_ms=service.clock.now_ms()
    )
    context = f"{CONTEXT_PREFIX}{run_id}"
    ids = {"contextRunID": context, "linked_context_run_id": context}
    return answer({"ok": True, "preview": found, **ids})


async def retry(call: Call) -> Response:
    """Let the node and everything after it run again."""
    given = await call.body(Reasoned)
    return await _reset(call, RetryNode(node_id=_node(call), reason=given.reason or ""))


async def requeue(call: Call) -> Response:
    """Do what `retry` does, under its other name."""
    given = await call.body(Reasoned)
    command = RetryNode(node_id=_node(call), requeue=True, reason=given.reason or "")
    return await _reset(call, command)


async def continue_blocked(call: Call) -> Response:
    """Let a node that blocked itself try again, told what its last output missed."""
    given = await call.body(Reasoned)
    return await _reset(
        call,
        ContinueNode(node_id=_node(call), **told_reason(given.reason)),
        reset_nodes=[_node(call)],
    )


async def _reset(
    call: Call, command: Command, *, reset_nodes: Sequence[str] | None = None
) -> Response:
    engine, run_id = call.service.engine, run_of(call)
    # What is undone is known before: afterwards the nodes look as if they had never run.
    undone = await engine.preview(run_id, command, tenant=call.tenant)
    change = await engine.execute(run_id, command, tenant=call.tenant)
    return tell_run(
        call,
        run_id,
        as_of=change.run,
        ok=True,
        node_id=_node(call),
        reset_nodes=undone.reset_nodes if reset_nodes is None else reset_nodes,
        cleared_outputs=undone.cleared_outputs,
    )


async def skip(call: Call) -> Response:
    """Count the node as completed without running it."""
    given = await call.body(Reasoned)
    command = Skip(node_id=_node(call), reason=given.reason or "", decided_by=call.caller.name)
    return await _by_hand(call, command)


async def set_output(call: Call) -> Response:
    """Complete the node with an output by hand."""
    given = await call.body(SetNodeOutput)
    command = call.service.engine.output_by_hand(
        _node(call),
        given.output,
        reason=given.reason or "",
        decided_by=call.caller.name,
        tenant=call.tenant,
    )
    return await _by_hand(call, command)


async def _by_hand(call: Call, command: Command) -> Response:
    run_id = run_of(call)
    try:
        change = await call.service.engine.execute(run_id, command, tenant=call.tenant)
    except NothingToDo:
        return tell_run(call, run_id, ok=True, node_id=_node(call))
    return tell_run(call, run_id, as_of=change.run, ok=True, node_id=_node(call))


async def disposition(call: Call) -> Response:
    """Keep what a person thinks of the output; in any state of the run."""
    given = await call.body(Disposed)
    run_id, node_id = run_of(call), _node(call)
    command = Dispose(
        node_id=node_id,
        disposition=given.disposition,
        reason=given.reason or "",
        decided_by=call.caller.name,
    )
    changed = True
    try:
        await call.service.engine.execute(run_id, command, tenant=call.tenant)
    except NothingToDo:
        changed = False
    return tell_run(
        call,
        run_id,
        ok=True,
        changed=changed,
        node_id=node_id,
        disposition=normal_disposition(given.disposition),
        reason=given.reason or None,
    )


_BASE: Final = "/automations/v2/runs/{run_id}/tasks/{node_id}"
_CODES: Final = {"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"}
_RUN: Final = "run, contextRunID, linked_context_run_id"
_NODE: Final = ("AUTOMATION_V2_TASK_NODE_REQUIRED", "AUTOMATION_V2_TASK_NODE_NOT_FOUND")
_MUTABLE: Final = ("AUTOMATION_V2_RUN_TASK_NOT_MUTABLE", "RUN_CLEANUP_PENDING")


def _post(suffix: str, handler: Any, says: str, answers: str, **more: Any) -> Endpoint:
    return Endpoint(
        method="POST",
        path=f"{_BASE}/{suffix}",
        handler=handler,
        says=says,
        answers=f"ok, {answers}, {_RUN}",
        codes=_CODES,
        **more,
    )


ROUTES = (
    Endpoint(
        method="GET",
        path=f"{_BASE}/reset_preview",
        handler=reset_preview,
        says="Tell what a retry of the node would undo, and what may happen twice.",
        answers="ok, preview, contextRunID, linked_context_run_id",
        codes=_CODES,
        errors=_NODE,
    ),
    _post(
        "retry",
        retry,
        "Let the node and everything after it run again.",
        "node_id, reset_nodes[], cleared_outputs[]",
        body=Reasoned,
        errors=(*_NODE, *_MUTABLE),
    ),
    _post(
        "requeue",
        requeue,
        "Do what `retry` does, under its other name.",
        "node_id, reset_nodes[], cleared_outputs[]",
        body=Reasoned,
        errors=(*_NODE, *_MUTABLE),
    ),
    _post(
        "continue",
        continue_blocked,
        "Let a node that blocked itself try again, told what its last output missed.",
        "node_id, reset_nodes[], cleared_outputs[]",
        body=Reasoned,
        errors=(
            *_NODE,
            "AUTOMATION_V2_RUN_TASK_NOT_CONTINUEABLE",
            "AUTOMATION_V2_TASK_NOT_BLOCKED",
            "RUN_CLEANUP_PENDING",
        ),
    ),
    _post(
        "skip",
        skip,
        "Count the node as completed without running it; a reason is required.",
        "node_id",
        body=Reasoned,
        errors=(*_NODE, *_MUTABLE, "REASON_REQUIRED"),
    ),
    _post(
        "output",
        set_output,
        "Complete the node with this output; what was made from an earlier one runs again.",
        "node_id",
        body=SetNodeOutput,
        errors=(*_NODE, *_MUTABLE, "REASON_REQUIRED", "OUTPUT_TOO_LARGE"),
    ),
    Endpoint(
        method="PATCH",
        path=f"{_BASE}/disposition",
        handler=disposition,
        says="Keep what a person thinks of the output; in any state of the run.",
        answers=f"ok, changed, node_id, disposition, reason, {_RUN}",
        body=Disposed,
        codes=_CODES,
        errors=(
            *_NODE,
            "AUTOMATION_V2_TASK_DISPOSITION_INVALID",
            "AUTOMATION_V2_TASK_NODE_OUTPUT_NOT_FOUND",
        ),
    ),
)
