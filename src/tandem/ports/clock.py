"""The port for time. Nothing inside the engine reads a clock in any other way."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, and waiting."""

    def now_ms(self) -> int:
        """Return the milliseconds since the Unix epoch."""
        ...

    async def sleep(self, span_ms: float) -> None:
        """Return after `span_ms` milliseconds of this clock."""
        ...

    def deadline(self, span_ms: float | None) -> AbstractAsyncContextManager[object]:
        """Return a context that raises TimeoutError inside when `span_ms` has passed; None never.

        The object that it gives can be moved with `reschedule_in(span_ms)`.
        """
        ...
