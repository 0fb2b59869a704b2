"""One request that reached its route: who asks, of which server, for what."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tandem.adapters.http.bodies import Body, read_object, shape
from tandem.adapters.http.service import Service
from tandem.adapters.http.sight import NOWHERE, Sight
from tandem.adapters.http.site import Site
from tandem.domain.caller import Caller
from tandem.domain.ids import TenantId
from tandem.domain.json import encode
from tandem.domain.request_key import RequestKey, request_key

M = TypeVar("M", bound=Body)


class Call:
    """What a route works with."""

    __slots__ = ("_caller", "_is_hidden", "_sight", "is_compat", "request", "site")

    def __init__(
        self,
        request: Request,
        *,
        site: Site,
        caller: Caller | None,
        is_compat: bool = False,
    ) -> None:
        self.request = request
        self.site = site
        self._caller = caller
        self._is_hidden = False
        self._sight: Sight | None = None
        self.is_compat = is_compat
        """Whether the caller asked for the view that the published client of 0.7 can read."""

    @property
    def service(self) -> Service:
        """The open engine and what stands around it.

        Raises:
            HttpError: it is not open yet.
        """
        return self.site.service

    @property
    def caller(self) -> Caller:
        """Who asks; only routes that need a token may look."""
        assert self._caller is not None, "a route without a token asked who asks"
        return self._caller

    @property
    def tenant(self) -> TenantId:
        """Whose things the request is about."""
        return NOWHERE if self._is_hidden else self.caller.tenant

    @property
    def sight(self) -> Sight:
        """What the caller sees and may change."""
        if self._sight is None:
            self._sight = Sight(self.caller, self.service.queries)
        return self._sight

    @property
    def is_known(self) -> bool:
        """Whether somebody asks; routes without a token are asked by nobody."""
        return self._caller is not None

    def hide(self) -> None:
        """Let nothing be there for this request."""
        self._is_hidden = True

    @property
    def is_hidden(self) -> bool:
        """Whether what the path names is there, and the caller may not know."""
        return self._is_hidden

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query; of several with one name the last."""
        return self.request.query_params

    def path(self, name: str, default: str | None = None) -> str:
        """Return a part of the path, trimmed; `default` where the path has no such part."""
        return str(self.request.path_params.get(name, default)).strip()

    def key(self, operation: str, request: object) -> RequestKey | None:
        """Return the key of the request, None when it has none.

        Args:
            operation: what is asked of what; the same key for another one is another key.
            request: all that the request says.

        Raises:
            InvalidRequest: it is too long or not printable.
        """
        said = {"by": self.caller.name, "request": request}
        return request_key(operation, self.request.headers.get("idempotency-key", ""), said)

    def spend_run_creation(self) -> None:
        """Count a run that the caller is about to create.

        Raises:
            RateLimited: the tenant has created as many as it may for now.
        """
        now_ms = self.service.clock.now_ms()
        self.site.allowances.spend_run_creation(self.caller, now_ms=now_ms)

    async def body(self, model: type[M]) -> M:
        """Return the body in its shape.

        Raises:
            HttpError: 415, 400 or 422.
        """
        return shape(await read_object(self.request), model)


Handler = Callable[[Call], Awaitable[Response]]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of the query, for the documents."""

    name: str
    says: str
    kind: str = "string"
    """`string`, `integer` or `boolean`."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One route: what is asked how, who answers, and what the documents say of it.

    Who may ask it stands in `policy`.
    """

    method: str
    path: str
    handler: Handler
    says: str
    """One sentence."""
    answers: str
    """The keys of the answer, as the contract writes them."""
    body: type[Body] | None = None
    query: tuple[Parameter, ...] = ()
    errors: tuple[str, ...] = ()
    """Codes that are its own, beside those of `codes` and those that every route may answer."""
    also: Mapping[int, str] = msgspec.field(default_factory=dict)
    """Other statuses with an answer of this shape, and what they mean."""
    statuses: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Codes that may come with another status than theirs."""
    media_type: str = "application/json"
    codes: Mapping[str, str] = msgspec.field(default_factory=dict)
    """What general codes of the domain are called at this route."""

    @property
    def name(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"


def answer(document: Any, *, status: int = 200) -> Response:
    """Return a document as JSON."""
    return Response(encode(document), status, media_type="application/json")
