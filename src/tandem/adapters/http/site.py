"""The server from its start to its end: who may ask, and the engine once it is open."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from tandem.adapters.http.allowances import Allowances
from tandem.adapters.http.errors import BY_SHAPE, HttpError
from tandem.adapters.http.refusals import Refusals
from tandem.adapters.http.service import Access, HttpLimits, Observer, Service
from tandem.domain.redaction import Redactor


class Site:
    """One server. It answers from the start; the routes work between `open` and `leave`.

    Args:
        access: says who asks.
        limits: the bounds of the server.
        allowances: what its callers may have; without, as much as they like.
        complain: hears of mistakes of ours that were answered with a number only.
        observers: hear how each request ended.
        redactor: takes secrets out of the errors that are answered.
        metrics: returns what `GET /metrics` shows; None turns it off.
    """

    def __init__(
        self,
        *,
        access: Access,
        limits: HttpLimits,
        complain: Callable[[str], None],
        observers: Sequence[Observer] = (),
        metrics: Callable[[], bytes] | None = None,
        allowances: Allowances | None = None,
        redactor: Redactor = BY_SHAPE,
    ) -> None:
        self.access = access
        self.limits = limits
        self.complain = complain
        self.observers = observers
        self.metrics = metrics
        self.allowances = allowances or Allowances()
        self.redactor = redactor
        self.refusals = Refusals()
        self._service: Service | None = None
        self.leaving = asyncio.Event()
        """Set when the server is about to end: whoever streams says goodbye."""

    @property
    def is_ready(self) -> bool:
        """Whether the engine is open."""
        return self._service is not None

    @property
    def service(self) -> Service:
        """The open engine.

        Raises:
            HttpError: it is not open yet.
        """
        if self._service is None:
            raise HttpError("ENGINE_STARTING", "the engine is starting")
        return self._service

    def open(
        self,
        service: Service,
        *,
        access: Access | None = None,
        hosts: frozenset[str] | None = None,
    ) -> None:
        """Let requests through.

        Args:
            service: the open engine.
            access: takes the place of the one that knew no store.
            hosts: the names to answer to from now on; before, nothing was told to anybody.
        """
        self._service = service
        self.access = access or self.access
        if hosts is not None:
            self.limits = msgspec.structs.replace(self.limits, hosts=hosts)

    def leave(self) -> None:
        """End the streams; requests are still answered."""
        self.leaving.set()
        if self._service is not None:
            self._service.streams.feed.close()
