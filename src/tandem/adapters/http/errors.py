"""Every error that a response may carry, and the one shape that all of them have.

    {"error": text, "code": CODE, "retryable": bool, "hint": text, …context}

The codes of the contract keep their names; those of ours are in capitals, too. The table below is
the source of docs/reference/errors.md.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from tandem.domain.errors import (
    EngineError,
    InvalidAutomation,
    InvalidRequest,
    NotFound,
    Refused,
    StoreError,
)
from tandem.domain.json import encode

BAD, UNKNOWN, FORBIDDEN, MISSING, CONFLICT, WRONG, OURS = 400, 401, 403, 404, 409, 422, 500


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a code means: its status, when it is answered, what to do about it."""

    status: int
    says: str
    do: str
    is_retryable: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    # Before a route is reached
    "AUTH_REQUIRED": Kind(
        status=UNKNOWN,
        says="No token came with the request, or one that is not known.",
        do="Send `Authorization: Bearer TOKEN`.",
    ),
    "TENANT_CONTEXT_DENIED": Kind(
        status=FORBIDDEN,
        says="The tenant assertion is missing, wrong, expired or was used before.",
        do="Get a new assertion; never send a tenant in a plain header.",
    ),
    "SCOPE_DENIED": Kind(
        status=FORBIDDEN,
        says="The token does not reach as far as this route.",
        do="Use a token with the scope that is named.",
    ),
    "HOST_DENIED": Kind(
        status=FORBIDDEN,
        says="The request names a host that this server does not answer to.",
        do="Use the address that the server printed, or list the name in TANDEM_ALLOWED_HOSTS.",
    ),
    "ORIGIN_DENIED": Kind(
        status=FORBIDDEN,
        says="A web page of another origin asks for a change.",
        do="List the origin in TANDEM_CORS_ORIGINS.",
    ),
    "LOOPBACK_ONLY": Kind(
        status=FORBIDDEN,
        says="The route answers only to this machine.",
        do="Ask from the machine that the server runs on.",
    ),
    "ENGINE_STARTING": Kind(
        status=503,
        says="The engine opens its store.",
        do="Try again in a moment.",
        is_retryable=True,
    ),
    "NOT_FOUND": Kind(
        status=MISSING, says="There is no such thing for this tenant.", do="Check the id."
    ),
    "ROUTE_NOT_FOUND": Kind(
        status=MISSING, says="There is no such path.", do="See `GET /openapi.json`."
    ),
    "METHOD_NOT_ALLOWED": Kind(
        status=405, says="The path does not know this method.", do="See the `Allow` header."
    ),
    # The body and the query
    "BODY_TOO_LARGE": Kind(
        status=413, says="The body is larger than the bound.", do="Send less, or name a file."
    ),
    "CONTENT_TYPE_UNSUPPORTED": Kind(
        status=415,
        says="The body is not declared as JSON.",
        do="Send `Content-Type: application/json` and a JSON object, at least `{}`.",
    ),
    "BODY_NOT_JSON": Kind(status=BAD, says="The body is not JSON.", do="Mend the syntax."),
    "BODY_INVALID": Kind(
        status=WRONG,
        says="The body is JSON of the wrong shape; `problems` lists each place.",
        do="Mend every place that is listed.",
    ),
    "QUERY_INVALID": Kind(
        status=BAD, says="A parameter of the query has a wrong value.", do="Mend the parameter."
    ),
    "UNKNOWN_KEYS": Kind(
        status=BAD,
        says="With `?strict=1`: the body has keys that nothing knows.",
        do="Mend or remove them.",
    ),
    "INVALID_REQUEST": Kind(
        status=BAD, says="The request is wrong whatever the state is.", do="Mend the request."
    ),
    "INVALID_AUTOMATION": Kind(
        status=BAD,
        says="The definition or the inputs are wrong; `problems` lists each place.",
        do="Mend every place that is listed.",
    ),
    # The state
    "REFUSED": Kind(
        status=CONFLICT,
        says="The state does not allow it.",
        do="Look at the state and decide anew.",
    ),
    # Ours
    "STORE_UNAVAILABLE": Kind(
        status=503,
        says="The store did not answer; nothing was written.",
        do="Try again; look at the log of the server when it stays so.",
        is_retryable=True,
    ),
    "STORE_ERROR": Kind(
        status=OURS,
        says="The store holds something that cannot be read.",
        do="Look at the log of the server; `tandem doctor` checks the store.",
    ),
    "INTERNAL_ERROR": Kind(
        status=OURS,
        says="A mistake of ours; the log of the server has it under `incident`.",
        do="Report it with the incident.",
        is_retryable=True,
    ),
}


class HttpError(EngineError):
    """An answer that is no success, with facts for programs in `details`."""

    code = "INTERNAL_ERROR"

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.details: Mapping[str, Any] = details or {}
        self.headers: Mapping[str, str] = headers or {}


def respond(error: EngineError, context: Mapping[str, Any] | None = None) -> Response:
    """Return the response that tells of an error; `context` are the ids that the path names."""
    kind, code = kind_of(error)
    document: dict[str, Any] = {
        "error": _text(error),
        "code": code,
        "retryable": kind.is_retryable,
        "hint": kind.do,
        **(context or {}),
        **getattr(error, "details", {}),
    }
    if isinstance(error, InvalidAutomation):
        document["problems"] = [
            {"code": p.code, "path": p.path, "message": p.message, "hint": p.hint}
            for p in error.problems
        ]
    headers = dict(getattr(error, "headers", {}))
    return Response(encode(document), kind.status, headers, media_type="application/json")


def kind_of(error: EngineError) -> tuple[Kind, str]:
    """Return what an error means on the wire, and its code there."""
    code = error.code if error.code.isupper() else error.code.upper()
    if code in KINDS:
        return KINDS[code], code
    match error:
        case InvalidAutomation():
            return KINDS["INVALID_AUTOMATION"], "INVALID_AUTOMATION"
        case InvalidRequest():
            return KINDS["INVALID_REQUEST"], "INVALID_REQUEST"
        case NotFound():
            return KINDS["NOT_FOUND"], "NOT_FOUND"
        case Refused():
            return KINDS["REFUSED"], "REFUSED"
        case StoreError():
            return KINDS["STORE_ERROR"], "STORE_ERROR"
    return KINDS["INTERNAL_ERROR"], "INTERNAL_ERROR"


def _text(error: EngineError) -> str:
    """Return the message; that of a store may name files, which are nobody's business."""
    if isinstance(error, StoreError):
        return "the store could not do what was asked"
    return str(error)
