"""What the calls of bodies cost, in whole numbers, so that a sum is always that of its parts."""

import math
from typing import Final

import msgspec

NANO_PER_USD: Final = 1_000_000_000
COUNT_MAX: Final = 10**12
COST_USD_MAX: Final = 10**6
"""More than this in one report is a mistake."""
LIMIT_MAX: Final = 2**53 - 1
LIMIT_USD_MAX: Final = 10**9
"""No budget is larger; in billionths of a dollar it still has less than 64 bits."""
USED_MAX: Final = 2**63 - 1
"""More is not counted: a sum that comes here stays here, above every budget, and is told of."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was spent. Money is kept in billionths of a dollar."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost_nano_usd: int = 0
    tool_calls: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """Return both together, each number up to `USED_MAX`."""
        return Usage(
            prompt_tokens=_sum(self.prompt_tokens, other.prompt_tokens),
            completion_tokens=_sum(self.completion_tokens, other.completion_tokens),
            total_tokens=_sum(self.total_tokens, other.total_tokens),
            cost_nano_usd=_sum(self.cost_nano_usd, other.cost_nano_usd),
            tool_calls=_sum(self.tool_calls, other.tool_calls),
        )

    def minus(self, other: "Usage") -> "Usage":
        """Return what this has more than the other."""
        return Usage(
            prompt_tokens=self.prompt_tokens - other.prompt_tokens,
            completion_tokens=self.completion_tokens - other.completion_tokens,
            total_tokens=self.total_tokens - other.total_tokens,
            cost_nano_usd=self.cost_nano_usd - other.cost_nano_usd,
            tool_calls=self.tool_calls - other.tool_calls,
        )

    @property
    def cost_usd(self) -> float:
        """The money in dollars."""
        return self.cost_nano_usd / NANO_PER_USD

    @property
    def is_more_than_counted(self) -> bool:
        """Whether a number is as large as it can get, so that more may have been spent."""
        return USED_MAX in msgspec.structs.astuple(self)


def _sum(one: int, other: int) -> int:
    return min(one + other, USED_MAX)


NOTHING: Final = Usage()


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt has spent in all, and how much of that the store does not know yet."""

    node_no: int
    number: int
    usage: Usage
    added: Usage


class Spending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a call reports. Without a total it is the sum; without a cost it is priced by tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int | None = None
    cost_usd: float | None = None
    tool_calls: int = 0


UNKNOWN: Final = Spending()
"""A call of which nothing is known beforehand."""
FREE: Final = Spending(total_tokens=0, cost_usd=0.0)
"""A call that spends nothing."""


def priced(spending: Spending, *, usd_per_1k_tokens: float) -> Usage:
    """Return a report as usage."""
    tokens = spending.total_tokens
    if tokens is None:
        tokens = spending.prompt_tokens + spending.completion_tokens
    cost_usd = spending.cost_usd
    if cost_usd is None:
        cost_usd = tokens / 1_000 * usd_per_1k_tokens
    return Usage(
        prompt_tokens=spending.prompt_tokens,
        completion_tokens=spending.completion_tokens,
        total_tokens=tokens,
        cost_nano_usd=min(to_nano_usd(cost_usd), USED_MAX),
        tool_calls=spending.tool_calls,
    )


def at_most(spending: Spending, *, usd_per_1k_tokens: float) -> Usage:
    """Return how large a call can become by what is said of it beforehand.

    Tokens and cost that are not given may become anything, and so may a call of which only the
    prompt is known; tools are known.
    """
    usage = priced(spending, usd_per_1k_tokens=usd_per_1k_tokens)
    knows_tokens = spending.total_tokens is not None or spending.completion_tokens > 0
    knows_cost = spending.cost_usd is not None or (knows_tokens and usd_per_1k_tokens > 0)
    return msgspec.structs.replace(
        usage,
        total_tokens=usage.total_tokens if knows_tokens else USED_MAX,
        cost_nano_usd=usage.cost_nano_usd if knows_cost else USED_MAX,
    )


def to_nano_usd(cost_usd: float) -> int:
    """Return dollars as billionths of a dollar."""
    return round(cost_usd * NANO_PER_USD)


def read_spending(line: bytes) -> Spending:
    """Read one line of JSON that reports usage.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        found = msgspec.json.decode(line, type=Spending)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from None
    counts = (
        found.prompt_tokens,
        found.completion_tokens,
        found.total_tokens or 0,
        found.tool_calls,
    )
    if not all(0 <= count <= COUNT_MAX for count in counts):
        raise ValueError(f"a count must be from 0 to {COUNT_MAX}")
    cost = found.cost_usd or 0.0
    if not math.isfinite(cost) or not 0 <= cost <= COST_USD_MAX:
        raise ValueError(f"`cost_usd` must be from 0 to {COST_USD_MAX}")
    return found
