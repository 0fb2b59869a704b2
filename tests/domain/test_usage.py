"""What calls cost: exact sums, prices, and the lines in which bodies tell it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.domain.usage import (
    COUNT_MAX,
    FREE,
    LIMIT_MAX,
    LIMIT_USD_MAX,
    NANO_PER_USD,
    NOTHING,
    UNKNOWN,
    USED_MAX,
    Spending,
    Usage,
    at_most,
    priced,
    read_spending,
)


def test_total_is_the_sum_and_the_cost_follows_from_it_when_neither_is_told() -> None:
    spending = Spending(prompt_tokens=300, completion_tokens=200, tool_calls=1)

    usage = priced(spending, usd_per_1k_tokens=0.01)

    assert usage.total_tokens == 500
    assert usage.cost_usd == 0.005
    assert usage.tool_calls == 1


def test_what_is_told_is_not_worked_out() -> None:
    spending = Spending(prompt_tokens=300, total_tokens=900, cost_usd=0.25)

    usage = priced(spending, usd_per_1k_tokens=99)

    assert (usage.total_tokens, usage.cost_usd) == (900, 0.25)


@given(st.lists(st.floats(0, 1_000), max_size=30))
def test_sum_of_costs_does_not_depend_on_their_order(costs: list[float]) -> None:
    usages = [priced(Spending(cost_usd=cost), usd_per_1k_tokens=0) for cost in costs]

    forwards = backwards = NOTHING
    for usage in usages:
        forwards = forwards.plus(usage)
    for usage in reversed(usages):
        backwards = backwards.plus(usage)

    assert forwards == backwards


def test_difference_undoes_a_sum() -> None:
    one = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3, cost_nano_usd=4, tool_calls=5)
    other = Usage(total_tokens=7)
    assert one.plus(other).minus(other) == one


def test_line_of_a_body_is_read() -> None:
    assert read_spending(b'{"prompt_tokens": 3, "cost_usd": 0.5}') == Spending(
        prompt_tokens=3, cost_usd=0.5
    )


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"[]",
        b'{"tokens": 3}',
        b'{"prompt_tokens": 1.5}',
        b'{"prompt_tokens": -1}',
        b'{"tool_calls": 1000000000001}',
        b'{"cost_usd": -0.1}',
        b'{"cost_usd": 1e300}',
    ],
)
def test_line_that_is_no_usage_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_spending(line)


def test_sum_stays_within_64_bits_and_above_every_budget() -> None:
    nearly = Usage(total_tokens=USED_MAX - 1)

    full = nearly.plus(Usage(total_tokens=5))

    assert not nearly.is_more_than_counted
    assert full.is_more_than_counted
    assert full.total_tokens == USED_MAX == full.plus(full).total_tokens
    assert max(LIMIT_MAX, LIMIT_USD_MAX * NANO_PER_USD) < USED_MAX < 2**63


def test_price_of_one_report_stays_within_64_bits() -> None:
    dearest = priced(Spending(total_tokens=2 * COUNT_MAX), usd_per_1k_tokens=1_000)
    assert dearest.cost_nano_usd == USED_MAX


@pytest.mark.parametrize(
    ("announced", "price", "tokens", "cost"),
    [
        (UNKNOWN, 0.0, USED_MAX, USED_MAX),
        (UNKNOWN, 1.0, USED_MAX, USED_MAX),
        (Spending(tool_calls=1), 0.0, USED_MAX, USED_MAX),
        (FREE, 1.0, 0, 0),
        (Spending(total_tokens=10), 0.0, 10, USED_MAX),
        (Spending(prompt_tokens=10), 1.0, USED_MAX, USED_MAX),
        (Spending(prompt_tokens=4, completion_tokens=6), 0.5, 10, 5_000_000),
        (Spending(cost_usd=0.25), 0.5, USED_MAX, 250_000_000),
    ],
)
def test_what_is_not_known_of_a_call_may_become_anything(
    announced: Spending, price: float, tokens: int, cost: int
) -> None:
    bound = at_most(announced, usd_per_1k_tokens=price)
    assert (bound.total_tokens, bound.cost_nano_usd) == (tokens, cost)
    assert bound.tool_calls == announced.tool_calls
