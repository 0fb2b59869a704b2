"""What attempts may spend: calls are asked for, wait for each other, and are counted once."""

import asyncio
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.adapters.local.clock import SystemClock
from tandem.domain.budget import Budget, Used, fits, reached
from tandem.domain.errors import BudgetReached
from tandem.domain.outcome import Failed, FailureClass, Stopped
from tandem.domain.usage import (
    COST_USD_MAX,
    COUNT_MAX,
    FREE,
    LIMIT_MAX,
    NOTHING,
    UNKNOWN,
    USED_MAX,
    Spending,
    Usage,
)
from tandem.engine.meter import AttemptMeter, Ledger, outcome_of

TOOL = Spending(tool_calls=1)


class Ticks(SystemClock):
    """A clock that stands still until it is moved."""

    now = 0

    def ticks_ms(self) -> int:
        return self.now


class Desk:
    """A ledger and what its driver hears."""

    def __init__(self, **budget: int) -> None:
        self.stored = NOTHING
        self.pokes = 0
        self.overflows = 0
        self.clock = Ticks()
        self.budget = Budget(**budget)
        self.ledger = Ledger(
            clock=self.clock,
            reached=lambda more: reached(Used(usage=self.stored.plus(more)), self.budget),
            fits=lambda more: fits(self.stored.plus(more), self.budget),
            usd_per_1k_tokens=0.5,
            told=self._told,
            overflowed=self._overflowed,
        )

    def _told(self) -> None:
        self.pokes += 1

    def _overflowed(self) -> None:
        self.overflows += 1

    def meter(self, number: int = 1, *, tool_calls_max: int | None = None) -> AttemptMeter:
        return self.ledger.meter((0, number), node_id="a", tool_calls_max=tool_calls_max)

    def write(self) -> None:
        """Write what is unwritten, as the driver does."""
        spent = self.ledger.unwritten()
        for item in spent:
            self.stored = self.stored.plus(item.added)
        self.ledger.written(spent)


async def test_no_call_begins_at_a_spent_budget() -> None:
    desk = Desk(tool_calls=2)
    meter = desk.meter()
    for _ in range(2):
        with await meter.reserve(TOOL) as call:
            call.spend(TOOL)

    with pytest.raises(BudgetReached, match=r"max_total_tool_calls \(2/2\)") as refusal:
        await meter.reserve(TOOL)

    assert outcome_of(refusal.value) == Stopped(reason="run exceeded max_total_tool_calls (2/2)")


async def test_parallel_calls_never_go_over_together() -> None:
    desk = Desk(tool_calls=3)
    most = made = 0

    async def body(number: int) -> None:
        nonlocal most, made
        meter = desk.meter(number)
        for _ in range(3):
            with await meter.reserve(TOOL) as call:
                made += 1
                await asyncio.sleep(0)
                call.spend(TOOL)

    answers = await asyncio.gather(*map(body, range(1, 5)), return_exceptions=True)

    assert made == 3
    assert all(isinstance(answer, BudgetReached) for answer in answers)


async def test_call_that_was_not_made_gives_its_place_back() -> None:
    desk = Desk(tool_calls=1)
    first = await desk.meter(1).reserve(TOOL)
    second = asyncio.ensure_future(desk.meter(2).reserve(TOOL))
    await asyncio.sleep(0)
    assert not second.done(), "it waits: the first may use up what is left"

    with first:
        pass

    (await second).spend(TOOL)
    assert desk.ledger.unwritten()[0].number == 2


async def test_calls_of_unknown_size_begin_one_after_the_other() -> None:
    desk = Desk(tokens=100)
    first = await desk.meter(1).reserve()
    second = asyncio.ensure_future(desk.meter(2).reserve())
    await asyncio.sleep(0)
    assert not second.done(), "both together could go over by two calls"

    first.spend(Spending(prompt_tokens=70))
    call = await second
    third = asyncio.ensure_future(desk.meter(3).reserve())
    call.spend(Spending(prompt_tokens=60))

    with pytest.raises(BudgetReached, match=r"\(130/100\)"):
        await third


async def test_call_that_an_attempt_forgot_holds_up_nobody_when_it_is_over() -> None:
    desk = Desk(tokens=100)
    careless = desk.meter(1)
    await careless.reserve()
    waits = asyncio.ensure_future(desk.meter(2).reserve())
    await asyncio.sleep(0)
    assert not waits.done()

    desk.ledger.close(careless)

    await waits


async def test_attempt_is_held_only_by_the_calls_of_others() -> None:
    desk, told = Desk(tokens=100), []
    one, other = desk.meter(1), desk.meter(2)
    for meter in (one, other):
        meter.held = partial(told.append, (meter.key[1], "held"))
        meter.released = partial(told.append, (meter.key[1], "released"))
    first = await one.reserve()
    waiting = [asyncio.ensure_future(meter.reserve()) for meter in (one, other)]
    await asyncio.sleep(0)
    assert told == [(2, "held")]

    first.spend(Spending(total_tokens=1))
    (await waiting[0]).spend(Spending(total_tokens=1))
    await waiting[1]

    assert told[-1] == (2, "released")


@pytest.mark.parametrize("budget", [{"tool_calls": 9}, {}])
async def test_calls_of_unknown_size_go_together_where_their_size_is_not_limited(
    budget: dict[str, int],
) -> None:
    desk = Desk(**budget)
    for number in range(1, 6):
        await desk.meter(number).reserve()


async def test_calls_that_fit_go_on_beside_one_of_unknown_size() -> None:
    desk = Desk(tokens=100, tool_calls=5)
    endless = await desk.meter(1).reserve(TOOL)
    known = [await desk.meter(number).reserve(Spending(total_tokens=40)) for number in (2, 3)]
    last = asyncio.ensure_future(desk.meter(4).reserve(Spending(total_tokens=40)))
    await asyncio.sleep(0)
    assert not last.done(), "it does not fit any more, and one call may go over already"
    await desk.meter(5).reserve(FREE)

    for call in known:
        call.spend(Spending(total_tokens=40))
    endless.spend(Spending(total_tokens=15, tool_calls=1))

    (await last).spend(Spending(total_tokens=40))
    desk.write()
    assert desk.stored.total_tokens == 135


@given(
    sizes=st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_run_is_over_its_budget_by_one_call_at_most(
    sizes: list[tuple[bool, int]], order: Random
) -> None:
    desk = Desk(tokens=100)

    async def body(number: int, is_known: bool, size: int) -> None:
        spending = Spending(total_tokens=size)
        with await desk.meter(number).reserve(spending if is_known else UNKNOWN) as call:
            for _ in range(order.randrange(4)):
                await asyncio.sleep(0)
            call.spend(spending)

    async def story() -> None:
        bodies = [body(number, *size) for number, size in enumerate(sizes, 1)]
        answers = await asyncio.wait_for(asyncio.gather(*bodies, return_exceptions=True), 10)
        assert all(answer is None or isinstance(answer, BudgetReached) for answer in answers)
        desk.write()

    asyncio.run(story())
    # Calls of known size may fill it to the brim beside the one that may go over.
    assert desk.stored.total_tokens <= 100 + max(size for _, size in sizes)
    assert desk.stored.total_tokens >= min(100, sum(size for _, size in sizes))


async def test_raised_budget_is_seen_by_those_who_wait() -> None:
    desk = Desk(tool_calls=1)
    first = await desk.meter(1).reserve(TOOL)
    second = asyncio.ensure_future(desk.meter(2).reserve(TOOL))
    await asyncio.sleep(0)

    desk.budget = Budget(tool_calls=5)
    desk.ledger.look_again()

    await second
    first.spend(TOOL)


async def test_node_has_a_limit_of_its_own() -> None:
    desk = Desk()
    meter = desk.meter(tool_calls_max=2)
    with await meter.reserve(TOOL) as call:
        call.spend(TOOL)
    open_call = await meter.reserve(TOOL)

    with pytest.raises(BudgetReached) as refusal:
        await meter.reserve(TOOL)
    await meter.reserve()  # what calls no tool is not limited

    assert refusal.value.of_node
    outcome = outcome_of(refusal.value)
    assert isinstance(outcome, Failed)
    assert outcome.failure_class is FailureClass.BUDGET_EXCEEDED
    assert outcome.message == "node `a` exceeded max_tool_calls (1/2)"
    open_call.spend(TOOL)


async def test_what_is_reported_too_late_ends_the_attempt() -> None:
    desk, ended = Desk(), 0

    def end() -> None:
        nonlocal ended
        ended += 1

    meter = desk.meter(tool_calls_max=1)
    meter.end = end
    meter.report(TOOL)
    assert meter.ending is None
    assert not meter.asks

    meter.report(TOOL)
    meter.report(TOOL)

    assert ended == 1
    assert isinstance(meter.ending, Failed)


async def test_usage_is_priced_and_counted_once() -> None:
    desk = Desk()
    meter = desk.meter()
    meter.report(Spending(prompt_tokens=1_000, completion_tokens=1_000))
    desk.write()
    meter.report(Spending(cost_usd=0.25))
    desk.write()

    assert desk.stored.total_tokens == 2_000
    assert desk.stored.cost_usd == 1.25
    assert desk.ledger.unwritten() == ()
    assert meter.used == meter.stored == desk.stored


async def test_what_is_spent_while_the_store_writes_is_written_next() -> None:
    desk = Desk()
    meter = desk.meter()
    meter.report(TOOL)
    taken = desk.ledger.unwritten()
    meter.report(TOOL)

    desk.ledger.written(taken)

    (left,) = desk.ledger.unwritten()
    assert (left.usage.tool_calls, left.added.tool_calls) == (2, 1)


async def test_driver_hears_of_the_first_unwritten_usage_and_of_a_reached_budget() -> None:
    desk = Desk(tokens=10)
    meter = desk.meter()
    assert desk.ledger.write_in_ms is None
    meter.report(Spending())
    assert desk.pokes == 0, "nothing was spent"

    meter.report(Spending(prompt_tokens=1))
    meter.report(Spending(prompt_tokens=1))
    assert desk.pokes == 1
    assert desk.ledger.write_in_ms == 1_000
    desk.clock.now = 700
    assert desk.ledger.write_in_ms == 300
    meter.report(Spending(prompt_tokens=8))
    assert desk.pokes == 2

    desk.write()
    assert desk.ledger.write_in_ms is None


async def test_usage_that_cannot_be_counted_stays_at_the_most_and_is_told_of_once() -> None:
    desk = Desk(tokens=LIMIT_MAX)
    meter, other = desk.meter(1), desk.meter(2)
    largest = Spending(total_tokens=COUNT_MAX, cost_usd=float(COST_USD_MAX))
    meter.used = Usage(total_tokens=USED_MAX - 1, cost_nano_usd=USED_MAX - 1)
    meter.report(largest)
    meter.report(largest)
    other.report(largest)
    desk.write()

    assert desk.overflows == 1
    assert desk.stored.total_tokens == desk.stored.cost_nano_usd == USED_MAX
    assert "max_total_tokens" in desk.ledger.reached()
    meter.report(largest)
    assert desk.ledger.unwritten() == (), "nothing is written of what cannot be counted"
