"""What the attempts of one run spend while they run, and the calls that they may make.

The ledger is the memory of one driver: what is in it and not in the store is lost with the process,
so the driver writes it with its next change, and soon when there is none.
"""

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from tandem.domain.errors import BudgetReached
from tandem.domain.outcome import Failed, FailureClass, Outcome, Stopped
from tandem.domain.usage import NOTHING, UNKNOWN, Spending, Spent, Usage, at_most, priced
from tandem.ports.clock import Clock

WRITE_MS: Final = 1_000
"""So long what was spent may be known to this process alone."""

Key = tuple[int, int]
"""The number of a node, and of its attempt."""


class Ledger:
    """Everything that the attempts of a run spend, by attempt.

    Args:
        clock: times how long something is unwritten.
        reached: says which budget is reached when this much is spent besides what is stored.
        fits: says whether the budget has room for this much besides what is stored.
        usd_per_1k_tokens: the price of tokens for calls that do not know theirs.
        told: called when something was spent that may concern the driver.
        overflowed: called once when an attempt has spent more than can be counted.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        reached: Callable[[Usage], str],
        fits: Callable[[Usage], bool],
        usd_per_1k_tokens: float,
        told: Callable[[], None],
        overflowed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._reached = reached
        self._fits = fits
        self._usd_per_1k_tokens = usd_per_1k_tokens
        self._told = told
        self._overflowed = overflowed
        self._has_overflowed = False
        self._meters: dict[Key, AttemptMeter] = {}
        """Those that have spent something that is not written."""
        self._calls: set[_Call] = set()
        self._unwritten_since_ms: int | None = None
        self._moved = asyncio.Event()

    def meter(self, key: Key, *, node_id: str, tool_calls_max: int | None) -> "AttemptMeter":
        """Return the meter of an attempt that starts."""
        return AttemptMeter(self, key, node_id=node_id, tool_calls_max=tool_calls_max)

    def price(self, spending: Spending) -> Usage:
        """Return a report as usage."""
        return priced(spending, usd_per_1k_tokens=self._usd_per_1k_tokens)

    def bound(self, spending: Spending) -> Usage:
        """Return how large a call can become that is announced like this."""
        return at_most(spending, usd_per_1k_tokens=self._usd_per_1k_tokens)

    # What was spent

    def unwritten(self) -> tuple[Spent, ...]:
        """Return what the store does not know yet."""
        return tuple(meter.unwritten() for meter in self._meters.values())

    def written(self, spent: Iterable[Spent]) -> None:
        """Note that this is in the store."""
        for item in spent:
            meter = self._meters[item.node_no, item.number]
            meter.stored = item.usage
            if meter.used == item.usage:
                del self._meters[item.node_no, item.number]
        self._unwritten_since_ms = self._clock.ticks_ms() if self._meters else None

    @property
    def write_in_ms(self) -> int | None:
        """In how many milliseconds something has to be written; None when there is nothing."""
        since_ms = self._unwritten_since_ms
        if since_ms is None:
            return None
        return max(since_ms + WRITE_MS - self._clock.ticks_ms(), 0)

    def spend(self, meter: "AttemptMeter", usage: Usage) -> None:
        """Count what an attempt has spent."""
        if usage == NOTHING:
            return
        used = meter.used.plus(usage)
        if used.is_more_than_counted and not self._has_overflowed:
            self._has_overflowed = True
            self._overflowed()
        if used == meter.used:
            return
        meter.used = used
        self._meters[meter.key] = meter
        if self._unwritten_since_ms is None:
            self._unwritten_since_ms = self._clock.ticks_ms()
            self._told()
        elif self.reached():
            self._told()

    # What may be spent

    def reached(self) -> str:
        """Say which budget is reached by what is spent; empty when none is."""
        return self._reached(self._sum())

    def _sum(self) -> Usage:
        total = NOTHING
        for meter in self._meters.values():
            total = total.plus(meter.used.minus(meter.stored))
        return total

    async def enter(self, call: "_Call") -> None:
        """Wait until a call may be made.

        Calls that fit into what is left may be under way together, and beside them one that may
        go over: so what is spent in the end is over the budget by that call at most.

        Raises:
            BudgetReached: the budget of the run is used up.
        """
        while True:
            text = self.reached()
            if text:
                raise BudgetReached(text)
            call.meter.refuse_tools(call.expected.tool_calls)
            held = self._sum()
            for other in self._calls:
                held = held.plus(other.expected)
            call.may_go_over = not self._fits(held.plus(call.bound))
            if not call.may_go_over:
                break
            if not self._reached(held) and not any(other.may_go_over for other in self._calls):
                break
            await self._wait(call.meter)
        self._calls.add(call)

    async def _wait(self, meter: "AttemptMeter") -> None:
        """Wait for the calls of others; an attempt that has none under way is not idle then."""
        is_held = all(call.meter is not meter for call in self._calls)
        if is_held:
            meter.held()
        try:
            await self._moved.wait()
        finally:
            if is_held:
                meter.released()

    def leave(self, call: "_Call") -> None:
        """Note that a call is over; those that waited for it look again."""
        self._calls.discard(call)
        self.look_again()

    def close(self, meter: "AttemptMeter") -> None:
        """Note that an attempt is over: calls that it reserved and forgot hold nobody up."""
        left = {call for call in self._calls if call.meter is meter}
        if left:
            self._calls -= left
            self.look_again()

    def look_again(self) -> None:
        """Have those look again who wait for a call: the budget or what is spent has changed."""
        self._moved.set()
        self._moved = asyncio.Event()

    def open_tool_calls(self, meter: "AttemptMeter") -> int:
        """Return how many calls of tools an attempt has under way."""
        return sum(call.expected.tool_calls for call in self._calls if call.meter is meter)


class AttemptMeter:
    """The meter of one attempt; a `Meter`.

    `asks` says whether it asks before it spends: such an attempt ends itself, or comes to its end
    without another call, when the budget is reached.
    """

    def __init__(
        self, ledger: Ledger, key: Key, *, node_id: str, tool_calls_max: int | None
    ) -> None:
        self.key = key
        self.used = NOTHING
        self.stored = NOTHING
        self.asks = True
        self.ending: Outcome | None = None
        """How the attempt has to end, because of what it reported."""
        self.end: Callable[[], None] = _nothing
        """Called once with the first `ending`."""
        self.held: Callable[[], None] = _nothing
        """Called when the attempt waits for calls of others, and `released` when it goes on."""
        self.released: Callable[[], None] = _nothing
        self._ledger = ledger
        self._node_id = node_id
        self.tool_calls_max = tool_calls_max

    def unwritten(self) -> Spent:
        """Return what the store does not know yet."""
        node_no, number = self.key
        return Spent(
            node_no=node_no, number=number, usage=self.used, added=self.used.minus(self.stored)
        )

    async def reserve(self, expected: Spending = UNKNOWN) -> "_Call":
        """See `Meter.reserve`."""
        call = _Call(self._ledger, self, expected)
        await self._ledger.enter(call)
        return call

    def report(self, spending: Spending) -> None:
        """See `Meter.report`."""
        self.asks = False
        self._ledger.spend(self, self._ledger.price(spending))
        limit = self.tool_calls_max
        if limit is not None and self.used.tool_calls > limit and self.ending is None:
            self.ending = _over(self._words(limit))
            self.end()

    def refuse_tools(self, wanted: int) -> None:
        """Refuse a call of a tool that the node may not make any more.

        Raises:
            BudgetReached: the node has made them all.
        """
        limit = self.tool_calls_max
        if limit is None or not wanted:
            return
        if self.used.tool_calls + self._ledger.open_tool_calls(self) + wanted > limit:
            raise BudgetReached(self._words(limit), of_node=True)

    def _words(self, limit: int) -> str:
        used = self.used.tool_calls
        return f"node `{self._node_id}` exceeded max_tool_calls ({used}/{limit})"


class _Call:
    """One call under way; a `Reservation`."""

    def __init__(self, ledger: Ledger, meter: AttemptMeter, announced: Spending) -> None:
        self.meter = meter
        self.expected = ledger.price(announced)
        """What is held back for it while it is under way."""
        self.bound = ledger.bound(announced)
        self.may_go_over = False
        self._ledger = ledger

    def spend(self, spending: Spending) -> None:
        """See `Reservation.spend`."""
        self._ledger.spend(self.meter, self._ledger.price(spending))
        self._ledger.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ledger.leave(self)


def outcome_of(refusal: BudgetReached) -> Outcome:
    """Return how an attempt ends that was refused a call and did not go on without it."""
    if refusal.of_node:
        return _over(str(refusal))
    return Stopped(reason=str(refusal))


def _over(words: str) -> Failed:
    return Failed(failure_class=FailureClass.BUDGET_EXCEEDED, message=words)


def _nothing() -> None:
    """Nobody is to be told."""
