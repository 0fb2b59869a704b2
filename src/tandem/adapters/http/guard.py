"""What stands before every route: who asks, whether the engine is open, from where, how much."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tandem.adapters.http.errors import HttpError, respond
from tandem.adapters.http.site import Site
from tandem.domain.caller import ActorKind, Caller
from tandem.domain.caller import Scope as CallerScope
from tandem.domain.errors import EngineError
from tandem.domain.ids import LOCAL_TENANT

COMPAT: Final = "/compat/0.7"
"""The base path for clients that know the states and the connections of 0.7 only (D1, D10)."""
PROXIED: Final = "/api/engine"
"""The prefix under which proxies forward what needs no token of ours."""
HEALTH: Final = "/global/health"
PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Asked by programs that know neither a token nor the name of this server."""
METRICS: Final = "/metrics"
PUBLIC: Final = ("/webhooks/automations/",)
"""Paths whose POST is judged by a signature of its own."""

SCRAPER: Final = Caller(
    tenant=LOCAL_TENANT,
    kind=ActorKind.SYSTEM,
    scopes=frozenset({CallerScope.VIEWER}),
    source="scraper",
)
"""Whoever asks for the metrics without a token."""

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURITY: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


class Guard:
    """Lets a request through to the routes, in this order: token, start, host, origin, size.

    What passes finds who asks in `scope["caller"]`, None where no token is needed, and in
    `scope["is_compat"]` whether it came by the compatible base path, which is cut off.
    """

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            return
        scope = dict(scope)
        path = str(scope["path"])
        scope["is_compat"] = path == COMPAT or path.startswith(f"{COMPAT}/")
        if scope["is_compat"]:
            path = path.removeprefix(COMPAT) or "/"
        elif any(path.startswith(f"{PROXIED}{public}") for public in PUBLIC):
            path = path.removeprefix(PROXIED)
        scope["path"] = path
        send = _Secured(send, closes=scope["is_compat"])
        try:
            await self._check(scope, Headers(scope=scope))
            limit = self._site.limits.body_bytes_max
            await self._app(scope, _bounded(receive, scope, limit), send)
        except EngineError as error:
            await respond(error)(scope, receive, send)

    async def _check(self, scope: Scope, headers: Headers) -> None:
        method, path = str(scope["method"]), str(scope["path"])
        is_public = method == "POST" and path.startswith(PUBLIC)
        scope["caller"] = None
        if path in PROBES and method in ("GET", "HEAD"):
            return
        if path == HEALTH and method in ("GET", "HEAD"):
            self._check_host(headers)
            return
        if method != "OPTIONS" and not is_public:
            scope["caller"] = (
                SCRAPER
                if path == METRICS and self._may_scrape(headers, peer_of(scope))
                else await self._site.access.caller_of(headers, peer_of(scope))
            )
        if not self._site.is_ready:
            raise HttpError("ENGINE_STARTING", "the engine is starting")
        if not is_public:
            self._check_host(headers)
            if method not in _SAFE:
                self._check_origin(headers)

    def _may_scrape(self, headers: Headers, peer: str) -> bool:
        """Say whether metrics are told without a token: to this machine, not to who is behind it.

        A proxy on this machine is no scraper: it speaks for somebody else, and says so. Nor is a
        page that gave its own name this address.
        """
        if self._site.limits.metrics_are_public:
            return True
        is_near = is_loopback(peer) and is_loopback(host_of(headers.get("host", "")))
        return is_near and not any(name in headers for name in _FORWARDED)

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that a page of somebody else may have bound to this address."""
        hosts = self._site.limits.hosts
        if hosts is None:
            return
        host = host_of(headers.get("host", ""))
        if host not in hosts:
            raise HttpError("HOST_DENIED", f"this server does not answer to the host {host[:80]!r}")

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin", "")
        if not origin or origin in self._site.limits.origins:
            return
        scheme, _, authority = origin.partition("://")
        if scheme in ("http", "https") and authority == headers.get("host"):
            return
        raise HttpError("ORIGIN_DENIED", f"pages of {origin[:80]!r} may not ask for changes here")


class _Secured:
    """Adds to every response what browsers are to respect."""

    def __init__(self, send: Send, *, closes: bool) -> None:
        self._send = send
        self._closes = closes

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _SECURITY.items():
                headers.setdefault(name, value)
            if self._closes:
                headers["connection"] = "close"
        await self._send(message)


def _bounded(receive: Receive, scope: Scope, limit: int) -> Receive:
    """Count what comes in; the declared length is only what somebody says."""
    declared = Headers(scope=scope).get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    left = limit

    async def receive_some() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large(limit)
        return message

    return receive_some


def _too_large(limit: int) -> HttpError:
    return HttpError(
        "BODY_TOO_LARGE",
        f"the body is larger than {limit} bytes",
        # What was not read cannot be skipped: the next request of this connection begins nowhere.
        headers={"connection": "close"},
    )


def peer_of(scope: Scope) -> str:
    """Return the address that a request comes from, empty when it is not known."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def host_of(authority: str) -> str:
    """Return the host of `host:port`, in lower case and without brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()


def is_loopback(address: str) -> bool:
    """Say whether an address is one of this machine alone; `localhost` is."""
    if address == "localhost":
        return True
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
