"""Budgets: when one is reached, in which words, and what is left."""

import pytest

from tandem.domain.budget import (
    UNLIMITED,
    Budget,
    BudgetKind,
    Used,
    allowed,
    budget_of,
    fits,
    kind_of,
    reached,
    runtime_ms,
    standings,
    used_by,
)
from tandem.domain.execution import ExecutionPolicy
from tandem.domain.run import Allowance, RuntimeClock
from tandem.domain.usage import Usage
from tandem.testing.builders import fresh_view, python_node

ALL = Budget(runtime_ms=100, tokens=10, cost_nano_usd=500_000_000, tool_calls=3)


@pytest.mark.parametrize(
    ("used", "text"),
    [
        (Used(runtime_ms=100), "run exceeded max_total_runtime_ms (100/100)"),
        (Used(usage=Usage(total_tokens=12)), "run exceeded max_total_tokens (12/10)"),
        (
            Used(usage=Usage(cost_nano_usd=500_000_000)),
            "run exceeded max_total_cost_usd (0.5000/0.5000)",
        ),
        (Used(usage=Usage(tool_calls=3)), "run exceeded max_total_tool_calls (3/3)"),
    ],
)
def test_what_is_used_up_exactly_is_reached(used: Used, text: str) -> None:
    assert reached(used, ALL) == text
    assert reached(used, UNLIMITED) == ""


def test_what_is_left_is_not_reached() -> None:
    usage = Usage(total_tokens=9, cost_nano_usd=499_999_999, tool_calls=2)
    assert reached(Used(runtime_ms=99, usage=usage), ALL) == ""


@pytest.mark.parametrize(
    ("usage", "has_room"),
    [
        (Usage(total_tokens=10, cost_nano_usd=500_000_000, tool_calls=3), True),
        (Usage(total_tokens=11), False),
        (Usage(cost_nano_usd=500_000_001), False),
        (Usage(tool_calls=4), False),
    ],
)
def test_what_uses_a_budget_up_exactly_fits(usage: Usage, has_room: bool) -> None:
    assert fits(usage, ALL) is has_room
    assert fits(usage, UNLIMITED)


def test_each_text_names_its_budget() -> None:
    used = Used(usage=Usage(tool_calls=3))
    assert kind_of(reached(used, ALL)) is BudgetKind.TOOL_CALLS
    assert kind_of("paused by operator") is None


def test_budget_comes_from_the_definition() -> None:
    policy = ExecutionPolicy(max_total_runtime_ms=5, max_total_cost_usd=0.1)
    assert budget_of(policy) == Budget(runtime_ms=5, cost_nano_usd=100_000_000)
    assert budget_of(None).is_unlimited


def test_allowance_replaces_what_it_names() -> None:
    assert allowed(ALL, None) is ALL
    more = allowed(ALL, Allowance(max_total_tokens=0, max_total_cost_usd=2.0))
    assert (more.tokens, more.cost_nano_usd) == (0, 2_000_000_000)
    assert (more.runtime_ms, more.tool_calls) == (100, 3)
    assert allowed(ALL, Allowance(max_total_tool_calls=9)).cost_nano_usd == ALL.cost_nano_usd


def test_active_runtime_is_the_time_in_which_the_run_is_driven() -> None:
    run = fresh_view(python_node("a")).run
    run.active_ms = 40
    assert runtime_ms(run, now_ms=1_000) == 40
    run.active_since_ms = 900
    assert runtime_ms(run, now_ms=1_000) == 140
    assert runtime_ms(run, now_ms=800) == 40, "a clock that was set back takes nothing away"
    assert runtime_ms(run, now_ms=1_000, active_ms=55) == 55


def test_wall_runtime_is_all_time_since_the_first_claim() -> None:
    run = fresh_view(python_node("a")).run
    run.runtime_clock = RuntimeClock.WALL
    assert runtime_ms(run, now_ms=1_000, active_ms=55) == 0
    run.started_at_ms = 300
    assert runtime_ms(run, now_ms=1_000, active_ms=55) == 700


def test_what_is_left_is_told_for_every_limit() -> None:
    run = fresh_view(python_node("a")).run
    run.total_tokens, run.cost_nano_usd = 12, 100_000_000
    used = used_by(run, now_ms=0, more=Usage(tool_calls=1))

    left = {one.budget.value: one.left for one in standings(used, ALL)}

    assert left == {
        "max_total_runtime_ms": 100,
        "max_total_tokens": 0,
        "max_total_cost_usd": 0.4,
        "max_total_tool_calls": 2,
    }
    assert standings(used, UNLIMITED) == ()
