"""What a run has used, what is left, and letting it use more."""

from typing import Final

import msgspec
from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.schemas import AllowRun
from tandem.adapters.http.telling import execute, run_of
from tandem.domain.budget import standings, used_by
from tandem.domain.command import Allow
from tandem.domain.overrun import budget_for


async def usage(call: Call) -> Response:
    """Tell what the run has used, and of each budget what is left."""
    service, run_id = call.service, run_of(call)
    view = await service.store.load(run_id, tenant=call.tenant)
    used = used_by(view.run, now_ms=service.clock.now_ms())
    budget = [msgspec.to_builtins(one) for one in standings(used, budget_for(view))]
    told = {
        "prompt_tokens": used.usage.prompt_tokens,
        "completion_tokens": used.usage.completion_tokens,
        "total_tokens": used.usage.total_tokens,
        "estimated_cost_usd": used.usage.cost_usd,
        "tool_calls": used.usage.tool_calls,
        "runtime_ms": used.runtime_ms,
    }
    return answer({"run_id": run_id, **told, "budget": budget})


async def allow(call: Call) -> Response:
    """Give the run other limits; one that stopped at its budget goes on."""
    given = await call.body(AllowRun)
    return await execute(
        call,
        Allow(
            reason=given.reason or "",
            max_total_runtime_ms=given.max_total_runtime_ms,
            max_total_tokens=given.max_total_tokens,
            max_total_cost_usd=given.max_total_cost_usd,
            max_total_tool_calls=given.max_total_tool_calls,
            resume=given.resume,
            decided_by=call.caller.name,
        ),
    )


_CODES: Final = {"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"}

ROUTES = (
    Endpoint(
        method="GET",
        path="/automations/v2/runs/{run_id}/usage",
        handler=usage,
        says="Tell what the run has used, and of each budget what is left.",
        answers="run_id, total_tokens, estimated_cost_usd, tool_calls, runtime_ms, budget[], …",
        codes=_CODES,
    ),
    Endpoint(
        method="POST",
        path="/automations/v2/runs/{run_id}/allow",
        handler=allow,
        says="Give the run other limits; one that stopped at its budget goes on.",
        answers="ok, run, contextRunID, linked_context_run_id",
        body=AllowRun,
        codes=_CODES,
        errors=("LIMIT_REQUIRED", "LIMIT_INVALID", "REASON_REQUIRED", "RUN_BUDGET_EXCEEDED"),
    ),
)
