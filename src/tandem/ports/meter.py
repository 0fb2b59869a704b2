"""The port through which a body says what it spends, and asks before it does."""

from types import TracebackType
from typing import Protocol

from tandem.domain.usage import UNKNOWN, Spending


class Reservation(Protocol):
    """One call that may be made now. Leaving `with` without `spend` says that nothing was spent."""

    def spend(self, spending: Spending) -> None:
        """Say what the call has cost; the reservation is over. Once only."""
        ...

    def __enter__(self) -> "Reservation": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Meter(Protocol):
    """The meter of one attempt."""

    async def reserve(self, expected: Spending = UNKNOWN) -> Reservation:
        """Ask for one call, which begins when this returns.

        It waits while calls of the run that are under way could use up its budget, and refuses
        when that is used up: a run is over its budget by one call at most. `expected` says how
        large the call can become: tools, and tokens and cost as far as they are known beforehand.
        Where there is a budget of tokens or of cost, a call that does not give them may go over
        it, and only one such call is under way at a time; calls that are known to fit go on beside
        it. An attempt that waits is not idle. What spends nothing says so (`FREE`). A call that is
        part of another one is not reserved.

        Raises:
            BudgetReached: the run may spend no more, or the node may call no more tools. Whoever
                lets it pass ends the attempt as that requires.
        """
        ...

    def report(self, spending: Spending) -> None:
        """Say what was spent without having asked; it counts like any other call.

        A run that is stopped at its budget ends an attempt that spends so.
        """
        ...
