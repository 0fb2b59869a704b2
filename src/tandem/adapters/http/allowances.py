"""What one server lets its callers have: runs in a minute. Streams count their own places.

The counts are those of this process; two servers of a store allow twice as much.
"""

from tandem.domain.caller import Caller
from tandem.domain.rate import Rate


class Allowances:
    """Counts for the routes; 0 means no limit."""

    def __init__(self, *, run_creations_per_min: int = 0) -> None:
        self._creations = Rate("runs are created", per_min=run_creations_per_min)

    def spend_run_creation(self, caller: Caller, *, now_ms: int) -> None:
        """Count a run that is about to be created.

        Raises:
            RateLimited: the tenant has created as many as it may in this minute.
        """
        self._creations.spend(caller.tenant, now_ms=now_ms)
