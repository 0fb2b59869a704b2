"""What an automation may say and hardly means. Doubts are warnings: nothing is refused for them."""

from collections.abc import Iterator
from typing import Final

from tandem.domain.automation import Automation
from tandem.domain.errors import Problem
from tandem.domain.retry_policy import Backoff

_DELAYS: Final = ("initial_delay_ms", "max_delay_ms", "multiplier", "jitter_ms")


def find_doubts(automation: Automation) -> Iterator[Problem]:
    """Yield what of a right automation has no effect. Paths are those of `check_automation`."""
    for index, node in enumerate(automation.nodes):
        if node.retry_policy is None:
            continue
        idle = _without_strategy(node.retry_policy.backoff)
        if idle:
            yield Problem(
                code="backoff_without_strategy",
                message=f"no delay follows from {idle} without a `strategy`",
                path=f"nodes[{index}].retry_policy.backoff",
                hint="write `strategy: fixed` or `strategy: exponential` beside it, or "
                "`strategy: none` if no delay is meant",
                node_id=node.node_id,
            )


def _without_strategy(backoff: Backoff) -> str:
    """Name the delays that were given although no strategy was (definitions 7: `none` then)."""
    given = backoff.model_fields_set
    if "strategy" in given:
        return ""
    return ", ".join(f"`{name}`" for name in _DELAYS if name in given and getattr(backoff, name))
