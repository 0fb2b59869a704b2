"""Deciding the gates of a run (http-api 3.6)."""

from typing import Any, Final

from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint
from tandem.adapters.http.schemas import GateDecision
from tandem.adapters.http.telling import present_run, tell_run
from tandem.domain.command import DecideGate
from tandem.domain.errors import NothingToDo
from tandem.domain.ids import GateId, NodeId
from tandem.domain.json import encode
from tandem.domain.permission import require_decider
from tandem.domain.request_key import ALREADY_DONE


async def decide(call: Call) -> Response:
    """Decide one asking of a gate; exactly one decision of several counts."""
    given = await call.body(GateDecision)
    run = present_run(call)
    require_decider(call.caller)
    gate_id = given.approval_request_id or given.request_id
    command = DecideGate(
        decision=given.decision,
        gate_id=GateId(gate_id) if gate_id else None,
        node_id=NodeId(given.node_id) if given.node_id else None,
        transition_id=given.transition_id or None,
        reason=given.reason or "",
        decided_by=call.caller.name,
        output=_output(given.output),
    )
    key = call.key(f"gate:{run.run_id}", given.model_dump(mode="json"))
    try:
        change = await call.service.engine.execute(run.run_id, command, tenant=call.tenant, key=key)
    except NothingToDo as done:
        if done.code != ALREADY_DONE:
            raise
        # The same request came before: it is told of the run as it is now.
        return tell_run(call, run.run_id, as_of=present_run(call), ok=True)
    return tell_run(call, run.run_id, as_of=change.run, ok=True)


def _output(value: Any) -> bytes | None:
    return None if value is None else encode(value)


_RUN: Final = "run, contextRunID, linked_context_run_id"

ROUTES = (
    Endpoint(
        method="POST",
        path="/automations/v2/runs/{run_id}/gate",
        handler=decide,
        says="Decide a gate: the one that is named, else the oldest that is open.",
        answers=f"ok, {_RUN}",
        body=GateDecision,
        codes={"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"},
        errors=(
            "AUTOMATION_V2_GATE_REQUIRES_HUMAN",
            "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL",
            "AUTOMATION_V2_GATE_INVALID_DECISION",
            "AUTOMATION_V2_GATE_NODE_NOT_FOUND",
            "AUTOMATION_V2_GATE_EXPIRED",
            "AUTOMATION_V2_GATE_SELF_APPROVAL_FORBIDDEN",
            "AUTOMATION_V2_GATE_REVIEWER_AUTHORITY_REQUIRED",
            "AUTOMATION_V2_GATE_TRANSITION_GUARD_DENIED",
            "IDEMPOTENCY_KEY_REUSED",
        ),
    ),
)
