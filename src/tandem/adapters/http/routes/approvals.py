"""What people have to decide, and what was let pass (http-api 3.7, 4.2)."""

from starlette.responses import Response

from tandem.adapters.http.bodies import optional, whole
from tandem.adapters.http.call import Call, Endpoint, Parameter, answer
from tandem.domain.ids import AutomationId
from tandem.domain.tenant import context_of


async def pending(call: Call) -> Response:
    """List the approvals that wait for a person, newest first; of the caller's tenant alone."""
    query, context = call.query, context_of(call.tenant)
    limit = whole(query, "limit", default=100, lowest=1, highest=500)
    is_other = query.get("org_id", context.org_id) != context.org_id or (
        query.get("workspace_id", context.workspace_id) != context.workspace_id
    )
    found = (
        []
        if is_other
        else call.service.queries.approvals(
            tenant=call.tenant,
            source=query.get("source", "automation_v2"),
            limit=limit,
            sees=call.sight.sees,
        )
    )
    return answer({"approvals": found, "count": len(found)})


async def graduation(call: Call) -> Response:
    """Count what execution profiles let pass, and what people thought of it."""
    query = call.query
    found = call.service.queries.graduation_summary(
        tenant=call.tenant,
        now_ms=call.service.clock.now_ms(),
        window_hours=whole(query, "window_hours", default=168, lowest=1, highest=720),
        automation_id=optional(query, "automation_id", AutomationId),
        limit=whole(query, "limit", default=200, lowest=1, highest=500),
        sees=call.sight.sees,
    )
    return answer({"ok": True, **found})


ROUTES = (
    Endpoint(
        method="GET",
        path="/approvals/pending",
        handler=pending,
        says="List the approvals that wait for a person, newest first.",
        answers="approvals[], count",
        query=(
            Parameter(name="source", says="Only of this source; ours is `automation_v2`."),
            Parameter(name="limit", says="So many at most; 100 without.", kind="integer"),
            Parameter(name="org_id", says="Another organization than the caller's has none."),
            Parameter(name="workspace_id", says="Another workspace than the caller's has none."),
        ),
        errors=("QUERY_INVALID",),
    ),
    Endpoint(
        method="GET",
        path="/automations/v2/graduation/summary",
        handler=graduation,
        says="Count what execution profiles let pass, and what people thought of it.",
        answers="ok, window_hours, since_ms, scanned_runs, automation_id, summary",
        query=(
            Parameter(name="window_hours", says="1 to 720; 168 without.", kind="integer"),
            Parameter(name="automation_id", says="Only runs of this automation."),
            Parameter(name="limit", says="So many runs at most; 200 without.", kind="integer"),
        ),
        errors=("QUERY_INVALID",),
    ),
)
