"""What a run may spend, what it has spent, and whether that is enough (run-lifecycle 4.9)."""

from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.execution import ExecutionPolicy
from tandem.domain.run import Allowance, Run, RuntimeClock
from tandem.domain.usage import NANO_PER_USD, NOTHING, Usage, to_nano_usd


class BudgetKind(StrEnum):
    """The budgets of a run, by the names that the document gives them."""

    RUNTIME = "max_total_runtime_ms"
    TOKENS = "max_total_tokens"
    COST = "max_total_cost_usd"
    TOOL_CALLS = "max_total_tool_calls"


K = BudgetKind
OPTIONS: Final = {
    K.RUNTIME: "--runtime",
    K.TOKENS: "--tokens",
    K.COST: "--cost-usd",
    K.TOOL_CALLS: "--tool-calls",
}
"""What raises each of them on the command line."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one run; None is no limit. Money is in billionths of a dollar."""

    runtime_ms: int | None = None
    tokens: int | None = None
    cost_nano_usd: int | None = None
    tool_calls: int | None = None

    @property
    def is_unlimited(self) -> bool:
        """Whether there is nothing to check."""
        return self == UNLIMITED


UNLIMITED: Final = Budget()


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has used of its budgets until now."""

    runtime_ms: int = 0
    usage: Usage = NOTHING


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One budget of a run: what is used, the limit, and what is left. Money is in dollars."""

    budget: BudgetKind
    used: float
    limit: float
    left: float


def budget_of(policy: ExecutionPolicy | None) -> Budget:
    """Return the budget that a definition gives to each of its runs."""
    if policy is None:
        return UNLIMITED
    cost = policy.max_total_cost_usd
    return Budget(
        runtime_ms=policy.max_total_runtime_ms,
        tokens=policy.max_total_tokens,
        cost_nano_usd=None if cost is None else to_nano_usd(cost),
        tool_calls=policy.max_total_tool_calls,
    )


def allowed(budget: Budget, allowance: Allowance | None) -> Budget:
    """Return the budget of a run to which an operator gave other limits."""
    if allowance is None:
        return budget
    cost = allowance.max_total_cost_usd
    return Budget(
        runtime_ms=_or(allowance.max_total_runtime_ms, budget.runtime_ms),
        tokens=_or(allowance.max_total_tokens, budget.tokens),
        cost_nano_usd=budget.cost_nano_usd if cost is None else to_nano_usd(cost),
        tool_calls=_or(allowance.max_total_tool_calls, budget.tool_calls),
    )


def _or(value: int | None, other: int | None) -> int | None:
    return other if value is None else value


def used_by(run: Run, *, now_ms: int, active_ms: int | None = None, more: Usage = NOTHING) -> Used:
    """Return what a run has used.

    Args:
        run: the row of the run.
        now_ms: the wall time.
        active_ms: how long it has been driven, for whoever measures that by a better clock.
        more: what it has spent besides what its row says.
    """
    return Used(
        runtime_ms=runtime_ms(run, now_ms=now_ms, active_ms=active_ms), usage=run.usage.plus(more)
    )


def runtime_ms(run: Run, *, now_ms: int, active_ms: int | None = None) -> int:
    """Return the runtime of a run, by the clock that was chosen for it."""
    if run.runtime_clock is RuntimeClock.WALL:
        return 0 if run.started_at_ms is None else max(now_ms - run.started_at_ms, 0)
    return active_ms_of(run, until_ms=now_ms) if active_ms is None else active_ms


def active_ms_of(run: Run, *, until_ms: int) -> int:
    """Return how long engines have driven a run: not its time in the queue, paused or waiting."""
    since_ms = run.active_since_ms
    return run.active_ms + (0 if since_ms is None else max(until_ms - since_ms, 0))


def reached(used: Used, budget: Budget) -> str:
    """Say which budget is reached, in the words of run-lifecycle 4.9; empty when none is.

    What is used up exactly is reached.
    """
    usage = used.usage
    if _is_reached(used.runtime_ms, budget.runtime_ms):
        return f"run exceeded {K.RUNTIME} ({used.runtime_ms}/{budget.runtime_ms})"
    if _is_reached(usage.total_tokens, budget.tokens):
        return f"run exceeded {K.TOKENS} ({usage.total_tokens}/{budget.tokens})"
    cost = budget.cost_nano_usd
    if cost is not None and usage.cost_nano_usd >= cost:
        return f"run exceeded {K.COST} ({usage.cost_usd:.4f}/{cost / NANO_PER_USD:.4f})"
    if _is_reached(usage.tool_calls, budget.tool_calls):
        return f"run exceeded {K.TOOL_CALLS} ({usage.tool_calls}/{budget.tool_calls})"
    return ""


def _is_reached(used: int, limit: int | None) -> bool:
    return limit is not None and used >= limit


def fits(usage: Usage, budget: Budget) -> bool:
    """Say whether a budget has room for all of this; what uses it up exactly fits."""
    pairs = (
        (usage.total_tokens, budget.tokens),
        (usage.cost_nano_usd, budget.cost_nano_usd),
        (usage.tool_calls, budget.tool_calls),
    )
    return all(limit is None or used <= limit for used, limit in pairs)


def kind_of(text: str) -> BudgetKind | None:
    """Return which budget a text of `reached` is about; None for any other text."""
    return next((kind for kind in BudgetKind if text.startswith(f"run exceeded {kind} (")), None)


def standings(used: Used, budget: Budget) -> tuple[Standing, ...]:
    """Return every budget that there is, with what is left of it."""
    usage, cost = used.usage, budget.cost_nano_usd
    pairs: tuple[tuple[BudgetKind, float, float | None], ...] = (
        (K.RUNTIME, used.runtime_ms, budget.runtime_ms),
        (K.TOKENS, usage.total_tokens, budget.tokens),
        (K.COST, usage.cost_usd, None if cost is None else cost / NANO_PER_USD),
        (K.TOOL_CALLS, usage.tool_calls, budget.tool_calls),
    )
    return tuple(
        Standing(budget=kind, used=spent, limit=limit, left=round(max(limit - spent, 0), 9))
        for kind, spent, limit in pairs
        if limit is not None
    )
