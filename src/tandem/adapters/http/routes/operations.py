"""For whoever looks after the server: does it live, does it take work, what does it count."""

from typing import Final

from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.errors import HttpError
from tandem.engine.readiness import look

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


async def healthz(_: Call) -> Response:
    """Answer as long as the loop does; nothing else is looked at."""
    return answer({"healthy": True})


async def readyz(call: Call) -> Response:
    """Look at everything that new work needs; 503 tells a balancer to send it elsewhere."""
    site = call.site
    if not site.is_ready:
        return answer({"ready": False, "checks": {"engine": False}}, status=503)
    found = look(site.service.engine)
    is_ready = found.is_ready and not site.leaving.is_set()
    checks = {"engine": found.engine, "lease": found.lease, "store": found.store}
    return answer({"ready": is_ready, "checks": checks}, status=200 if is_ready else 503)


async def metrics(call: Call) -> Response:
    """Show everything that is counted; the contract has it off unless it is asked for (4.3)."""
    if call.site.metrics is None:
        raise HttpError("METRICS_DISABLED", "the metrics are off")
    return Response(call.site.metrics(), media_type=PROMETHEUS)


ROUTES = (
    Endpoint(
        method="GET",
        path="/healthz",
        handler=healthz,
        says="Tell whether the process lives.",
        answers="healthy",
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        handler=readyz,
        says="Tell whether the engine takes work: entered, holding its lease, store readable, "
        "not stopping; else 503.",
        answers="ready, checks",
        also={503: "It does not; `checks` says why."},
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        handler=metrics,
        says="Show what is counted and measured, for Prometheus.",
        answers="text in the format of Prometheus",
        errors=("METRICS_DISABLED",),
        media_type="text/plain",
    ),
)
