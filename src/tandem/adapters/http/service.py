"""What the routes are given: everything concrete, chosen by whoever composes the server."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from tandem.adapters.http.definition_reader import DefinitionReader
from tandem.adapters.http.rates import IngressRates
from tandem.adapters.http.sse import Streams
from tandem.domain.caller import Caller
from tandem.domain.ids import TenantId
from tandem.engine.automations import Automations
from tandem.engine.engine import Engine
from tandem.engine.queries import Queries
from tandem.engine.tokens import Tokens
from tandem.engine.waiting import Waiters
from tandem.engine.webhooks import Webhooks
from tandem.ports.artifacts import Artifacts
from tandem.ports.clock import Clock
from tandem.ports.ids import Ids
from tandem.ports.store import Store
from tandem.ports.workspace import WorkspaceFiles


class Access(Protocol):
    """Says who makes a request."""

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        """Return who makes a request with these headers.

        Args:
            headers: names in lower case.
            peer: the address that the request comes from; empty when it is not known.

        Raises:
            HttpError: 401 `AUTH_REQUIRED`, 403 `TENANT_CONTEXT_DENIED`, or another refusal.
        """
        ...

    def still_holds(self, caller: Caller) -> bool:
        """Say whether what the caller was let in with would still let it in; a stream asks.

        Raises:
            StoreUnavailable: the store cannot say it now.
        """
        ...


class Observer(Protocol):
    """Hears of requests; it must not block."""

    def answered(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """A request has ended. `route` is its template, empty when none knows the path.

        `seconds` is None for a stream, which ends when somebody has enough of it.
        """
        ...

    def streaming(self, more: int) -> None:
        """So many more streams are open now, or fewer."""
        ...


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the server."""

    body_bytes_max: int = 10 * 1024 * 1024
    hosts: frozenset[str] | None = None
    """Names under which it may be asked, without ports; None for any."""
    origins: tuple[str, ...] = ()
    """Web pages of these origins may ask."""
    metrics_are_public: bool = False
    """Other machines need no token for the metrics."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """An open engine and what stands around it, for the routes."""

    engine: Engine
    store: Store
    artifacts: Artifacts
    files: WorkspaceFiles
    waiters: Waiters
    queries: Queries
    streams: Streams
    clock: Clock
    ids: Ids
    webhooks: Webhooks
    tokens: Tokens
    ingress_rates: IngressRates
    reader: DefinitionReader
    """Reads definitions that come in."""
    workspace_root: str
    """The folder that the server was started in."""

    def automations(self, tenant: TenantId) -> Automations:
        """Return the stored automations of a tenant."""
        return Automations(self.engine, tenant)
