"""What an automation may say and hardly means. Doubts are warnings: nothing is refused for them."""

from collections.abc import Iterator
from typing import Final

from tandem.domain.automation import Automation
from tandem.domain.errors import Problem
from tandem.domain.node import Effects, Node, NodeKind
from tandem.domain.retry_policy import Backoff, RetryPolicy, TerminalMode

_DELAYS: Final = ("initial_delay_ms", "max_delay_ms", "multiplier", "jitter_ms")


def find_doubts(automation: Automation) -> Iterator[Problem]:
    """Yield what of a right automation has no effect. Paths are those of `check_automation`."""
    for index, node in enumerate(automation.nodes):
        if node.max_tool_calls is not None and node.kind is NodeKind.HTTP:
            yield Problem(
                code="max_tool_calls_without_effect",
                message="an http request calls no tools",
                path=f"nodes[{index}].max_tool_calls",
                hint="remove it",
                node_id=node.node_id,
            )
        if node.retry_policy is None:
            continue
        yield from _without_effect(node, node.retry_policy, f"nodes[{index}].retry_policy")
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


def _without_effect(node: Node, policy: RetryPolicy, path: str) -> Iterator[Problem]:
    """Yield what of a retry policy changes nothing here (W-24)."""
    behavior = policy.terminal_behavior
    is_letter = behavior is not None and behavior.mode is TerminalMode.DEAD_LETTER
    if is_letter and node.effective_effects is not Effects.EXTERNAL:
        yield Problem(
            code="dead_letter_without_effect",
            message="only a failed node with `effects: external` is a dead letter, which "
            "`tandem runs redeliver` sends out again",
            path=f"{path}.terminal_behavior.mode",
            hint="write `effects: external` if that is so, else `mode: fail_run` or "
            "`mode: pause_for_review`",
            node_id=node.node_id,
        )
    if behavior is not None and behavior.dead_letter is not None:
        yield Problem(
            code="dead_letter_without_effect",
            message="nothing is done with `dead_letter`; the failed node itself is the letter",
            path=f"{path}.terminal_behavior.dead_letter",
            hint="remove it",
            node_id=node.node_id,
        )
    if policy.manual_override is not None:
        yield Problem(
            code="manual_override_without_effect",
            message="a person may always give a node new attempts, and why is kept",
            path=f"{path}.manual_override",
            hint="remove it; `tandem runs retry RUN NODE --reason …` does it",
            node_id=node.node_id,
        )


def _without_strategy(backoff: Backoff) -> str:
    """Name the delays that were given although no strategy was (definitions 7: `none` then)."""
    given = backoff.model_fields_set
    if "strategy" in given:
        return ""
    return ", ".join(f"`{name}`" for name in _DELAYS if name in given and getattr(backoff, name))
