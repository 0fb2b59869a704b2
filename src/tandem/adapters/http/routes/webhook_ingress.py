"""The public addresses of webhooks (http-api 3.10). What comes is judged by its signature alone.

The order is that of the contract: rate, size, content type, signature, JSON, disk. Whoever is not
believed hears the same, whatever is wrong.
"""

from collections.abc import Mapping
from typing import Final

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint
from tandem.adapters.http.guard import peer_of
from tandem.domain.errors import EngineError, StoreError
from tandem.domain.json import encode
from tandem.domain.webhook import BODY_BYTES_UNKNOWN
from tandem.domain.webhook_delivery import Arrival
from tandem.domain.webhook_signature import Incoming
from tandem.engine.webhooks import Reception

_CLOSE: Final = {"connection": "close"}
"""What was not read of a request cannot be skipped."""


async def receive(call: Call) -> Response:
    """Take a delivery."""
    service, request = call.service, call.request
    token = call.path("token")
    nonce = str(request.path_params.get("nonce", ""))
    now_ms = service.clock.now_ms()
    wait_s = service.ingress_rates.wait_s(token, peer_of(request.scope), now_ms=now_ms)
    if wait_s:
        return _told(429, "throttled", headers={"retry-after": str(wait_s), **_CLOSE})
    try:
        trigger = service.webhooks.find_by_token(token)
        bytes_max = BODY_BYTES_UNKNOWN if trigger is None else trigger.body_bytes_max
        body = await _read(request, bytes_max)
        if body is None:
            return _told(413, "rejected", headers=_CLOSE)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _told(415, "rejected")
        incoming = Incoming(headers=_headers(request), body=body)
        received = await service.webhooks.receive(trigger, incoming, nonce=nonce)
    except ClientDisconnect:
        return _told(400, "rejected", headers=_CLOSE)
    except StoreError as error:
        call.site.complain(f"a webhook delivery could not be stored: {error}")
        return _told(500, "rejected")
    match received.reception:
        case Reception.ACCEPTED:
            return _told(202, "accepted")
        case Reception.VERIFICATION_PENDING:
            return _told(200, "verification_pending")
        case Reception.NOT_JSON:
            return _told(400, "rejected")
        case Reception.DISABLED:
            return _told(410, "rejected", note=_noting(call, received.to_note))
        case Reception.NOT_BELIEVED:
            return _told(401, "rejected", note=_noting(call, received.to_note))


def _told(
    status: int,
    word: str,
    *,
    headers: Mapping[str, str] | None = None,
    note: BackgroundTask | None = None,
) -> Response:
    document = {"ok": status < 300, "status": word}
    return Response(
        encode(document), status, headers, media_type="application/json", background=note
    )


def _noting(call: Call, arrival: Arrival | None) -> BackgroundTask | None:
    """Store after the answer what led to nothing, so that its time tells nothing either."""
    return None if arrival is None else BackgroundTask(_note, call, arrival)


async def _note(call: Call, arrival: Arrival) -> None:
    try:
        await call.service.webhooks.note(arrival)
    except EngineError as error:
        call.site.complain(f"a refused webhook delivery could not be noted: {error}")


async def _read(request: Request, bytes_max: int) -> bytes | None:
    """Return the body, or None as soon as it is too large; the declared length may be a lie."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > bytes_max:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > bytes_max:
            return None
    return bytes(body)


def _headers(request: Request) -> dict[str, str]:
    """Return the headers; one that came several times is one with all values, as in RFC 9110."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


_ALSO: Final = {
    202: "It is kept, and becomes a run.",
    400: "It is no JSON, or did not come whole.",
    401: "No trigger has this address, or its signature is not that of the secret.",
    410: "The trigger is disabled.",
    413: "It is too large.",
    415: "It is no `application/json`.",
    429: "Too many came.",
    500: "It could not be stored; send it again.",
}

ROUTES = (
    Endpoint(
        method="POST",
        path="/webhooks/automations/{token}",
        handler=receive,
        says="Take a delivery from outside; it is judged by its signature, no token is needed.",
        answers="ok, status",
        also=_ALSO,
        errors=("ENGINE_STARTING",),
    ),
    Endpoint(
        method="POST",
        path="/webhooks/automations/{token}/{nonce}",
        handler=receive,
        says="Take the verification token that a provider hands over while it is set up.",
        answers="ok, status",
        also=_ALSO,
        errors=("ENGINE_STARTING",),
    ),
)
