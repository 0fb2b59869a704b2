"""What the scheduler has done and has to do."""

from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.guard import is_loopback


async def metrics(call: Call) -> Response:
    """Count runs and tell how long they waited; for this machine only."""
    client = call.request.client
    if client is None or not is_loopback(client.host):
        raise HttpError("LOOPBACK_ONLY", "the metrics are told to this machine only")
    return answer(call.service.engine.scheduler_metrics())


ROUTES = (
    Endpoint(
        method="GET",
        path="/scheduler/metrics",
        handler=metrics,
        says="Count active and waiting runs and tell how long runs waited; loopback only.",
        answers="active_runs, queued_runs_by_reason, admitted_total, completed_total, "
        "avg_wait_ms, p95_wait_ms",
        errors=("LOOPBACK_ONLY",),
    ),
)
