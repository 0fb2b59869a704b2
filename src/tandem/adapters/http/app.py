"""The application: the guard, and behind it one table of routes."""

import traceback
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Final
from uuid import uuid4

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.errors import HttpError, respond
from tandem.adapters.http.governing import protect
from tandem.adapters.http.guard import Guard
from tandem.adapters.http.measured import Measured
from tandem.adapters.http.openapi import openapi
from tandem.adapters.http.policy import POLICY, Open
from tandem.adapters.http.routes import (
    approvals,
    artifacts,
    automations,
    backlog,
    budgets,
    bulk,
    events,
    gates,
    handoffs,
    health,
    operations,
    rows,
    runs,
    scheduler,
    tasks,
    tokens,
    waits,
    webhook_ingress,
    webhook_triggers,
)
from tandem.adapters.http.site import Site
from tandem.domain.errors import EngineError

MODULES: Final = (
    health,
    operations,
    automations,
    runs,
    rows,
    tasks,
    gates,
    approvals,
    budgets,
    backlog,
    handoffs,
    waits,
    bulk,
    artifacts,
    events,
    webhook_triggers,
    webhook_ingress,
    tokens,
    scheduler,
)
HEADERS: Final = (
    "authorization",
    "content-type",
    "idempotency-key",
    "last-event-id",
    "x-agent-token",
    "x-tandem-agent-ancestor-ids",
    "x-tandem-agent-id",
    "x-tandem-context-assertion",
    "x-tandem-request-source",
    "x-tandem-token",
)
"""What pages of other origins may send."""

CONTEXT: Final = {
    "automation_id": "automationID",
    "run_id": "runID",
    "node_id": "nodeID",
    "task_id": "taskID",
    "trigger_id": "triggerID",
    "delivery_id": "deliveryID",
    "event_id": "eventID",
    "token_id": "tokenID",
}
"""Parts of the path that an error tells, and their names there."""


def endpoints() -> tuple[Endpoint, ...]:
    """Return every route, those with fixed words before those with names in their place."""
    found = [*OWN, *(endpoint for module in MODULES for endpoint in module.ROUTES)]
    return tuple(sorted(found, key=lambda e: [step.startswith("{") for step in e.path.split("/")]))


async def document(_: Call) -> Response:
    """Describe every route."""
    return answer(openapi(endpoints(), version=version("tandem-engine")))


OWN: Final = (
    Endpoint(
        method="GET",
        path="/openapi.json",
        handler=document,
        says="Describe every route.",
        answers="an OpenAPI 3.1 document",
    ),
)


def make_app(site: Site, routes: Iterable[Endpoint] | None = None) -> ASGIApp:
    """Return the application of a site; it may be asked before the engine is open."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints() if routes is None else routes:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    router = Router(
        [Route(path, _Resource(site, found)) for path, found in by_path.items()],
        redirect_slashes=False,
        default=_missing,
    )
    inner: ASGIApp = router
    if site.limits.origins:
        inner = CORSMiddleware(
            router,
            allow_origins=site.limits.origins,
            allow_methods=("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"),
            allow_headers=HEADERS,
        )
    return Measured(Guard(inner, site), site)


class _Resource:
    """One path with its methods."""

    def __init__(self, site: Site, methods: Mapping[str, Endpoint]) -> None:
        self._site = site
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        endpoint = self._methods.get(method)
        scope["reached"].path = next(iter(self._methods.values())).path
        if endpoint is None:
            response = _not_allowed(sorted(self._methods))
        else:
            response = await self._run(endpoint, Request(scope, receive))
        await response(scope, receive, send)

    async def _run(self, endpoint: Endpoint, request: Request) -> Response:
        context = {
            told: str(request.path_params[name]).strip()
            for name, told in CONTEXT.items()
            if name in request.path_params
        }
        try:
            call = self._admit(endpoint, request)
            if call.is_known:
                await protect(call, endpoint)
            return await endpoint.handler(call)
        except EngineError as error:
            return respond(error, context=context, codes=endpoint.codes)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it: the rest of the body never came
        except Exception as error:  # noqa: BLE001 # the boundary that turns mistakes into a number
            return self._incident(endpoint, error)

    def _admit(self, endpoint: Endpoint, request: Request) -> Call:
        """Check who may ask this route; who has no policy lets nobody in."""
        needed = POLICY.get(endpoint.name)
        caller = request.scope["caller"]
        if not isinstance(needed, Open) and (
            needed is None or caller is None or not caller.may(needed)
        ):
            raise HttpError(
                "SCOPE_DENIED",
                f"this needs the scope `{needed}`",
                details={"scope": needed},
            )
        return Call(
            request,
            site=self._site,
            caller=caller,
            is_compat=request.scope["is_compat"],
        )

    def _incident(self, endpoint: Endpoint, error: Exception) -> Response:
        incident = uuid4().hex[:12]
        text = "".join(traceback.format_exception(error))
        self._site.complain(f"incident {incident} in {endpoint.name}:\n{text}")
        return respond(
            HttpError(
                "INTERNAL_ERROR",
                f"this should not have happened; the log of the server has it as {incident}",
                details={"incident": incident},
            )
        )


def _not_allowed(methods: Iterable[str]) -> Response:
    allowed = ", ".join(methods)
    return respond(
        HttpError("METHOD_NOT_ALLOWED", f"this path knows {allowed}", headers={"allow": allowed})
    )


async def _missing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the contract does: 404 without a body (http-api 1.1)."""
    await Response(status_code=404)(scope, receive, send)
