"""What one server lets its callers have: runs in a minute, streams at once.

The counts are those of this process; two servers of a store allow twice as much.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tandem.domain.caller import Caller
from tandem.domain.rate import Places, Rate


class Allowances:
    """Counts for the routes; 0 means no limit."""

    def __init__(self, *, run_creations_per_min: int = 0, streams_per_client: int = 0) -> None:
        self._creations = Rate("runs are created", per_min=run_creations_per_min)
        self._streams = Places("streams are open", at_once=streams_per_client)

    def spend_run_creation(self, caller: Caller, *, now_ms: int) -> None:
        """Count a run that is about to be created.

        Raises:
            RateLimited: the tenant has created as many as it may in this minute.
        """
        self._creations.spend(caller.tenant, now_ms=now_ms)

    @contextmanager
    def stream(self, caller: Caller, peer: str) -> Iterator[None]:
        """Keep a place for a stream as long as it lasts.

        A client is whoever holds the token, at its address.

        Raises:
            RateLimited: the client has as many streams as it may.
        """
        client = f"{caller.tenant} {caller.token_id} {peer}"
        self._streams.take(client)
        try:
            yield
        finally:
            self._streams.leave(client)
