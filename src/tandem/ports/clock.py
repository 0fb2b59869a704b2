"""The port for time. Nothing inside the engine reads a clock in any other way."""

from types import TracebackType
from typing import Protocol


class Deadline(Protocol):
    """A limit on what happens inside `async with`; it raises TimeoutError there."""

    @property
    def has_expired(self) -> bool:
        """Whether it was this limit that ended the block."""
        ...

    def reschedule_in(self, span_ms: float | None) -> None:
        """Start the span again from now; None lifts the limit."""
        ...

    async def __aenter__(self) -> "Deadline": ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None: ...


class Clock(Protocol):
    """Wall time for records, and waiting."""

    def now_ms(self) -> int:
        """Return the milliseconds since the Unix epoch."""
        ...

    def ticks_ms(self) -> int:
        """Return the milliseconds of a clock that nobody can set; it counts sleep of the host."""
        ...

    async def sleep(self, span_ms: float) -> None:
        """Return after `span_ms` milliseconds of this clock."""
        ...

    def deadline(self, span_ms: float | None) -> Deadline:
        """Return a limit of `span_ms` from the moment it is entered; None never ends."""
        ...
