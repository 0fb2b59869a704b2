"""What follows a failed attempt (definitions 7, run-lifecycle 4.4)."""

from hashlib import blake2b

import msgspec

from tandem.domain.outcome import FailureClass
from tandem.domain.retry_policy import RetryPolicy

DELAY_MAX_MS = 86_400_000
_PROVIDER_DELAYS_MS = (2_000, 5_000, 8_000)
_NEVER = frozenset({FailureClass.OUTPUT_TOO_LARGE, FailureClass.BUDGET_EXCEEDED})
_ALWAYS = frozenset({FailureClass.INTERRUPTED})


class RetryAt(msgspec.Struct, frozen=True):
    """Try again at this moment; a moment that has passed means at once."""

    at_ms: int


class GiveUp(msgspec.Struct, frozen=True):
    """Do not try again; `reason` says why for a person."""

    reason: str


RetryDecision = RetryAt | GiveUp


def decide_retry(
    policy: RetryPolicy | None,
    *,
    attempts_max: int,
    attempts_used: int,
    failure_class: FailureClass,
    failed_at_ms: int,
    first_started_at_ms: int,
    retry_after_ms: int | None = None,
    jitter_key: str = "",
) -> RetryDecision:
    """Decide what follows a failed attempt.

    Args:
        policy: the node's policy; None is the default one.
        attempts_max: how many attempts the node has in total.
        attempts_used: how many it has used, the failed one included.
        failure_class: what kind of failure it was.
        failed_at_ms: when it failed.
        first_started_at_ms: when the first attempt started; `max_elapsed_ms` counts from here.
        retry_after_ms: the span that the other side asked for; never shortened.
        jitter_key: what the jitter is derived from: the same key always gives the same jitter.
    """
    if failure_class in _NEVER:
        return GiveUp(f"trying again does not help: {failure_class}")
    if failure_class not in _ALWAYS and not _is_retryable(policy, failure_class):
        return GiveUp(f"the retry policy does not retry {failure_class}")
    if attempts_used >= attempts_max:
        return GiveUp(f"{attempts_used} of {attempts_max} attempts used")
    delay_ms = max(_delay_ms(policy, attempts_used, failure_class, jitter_key), retry_after_ms or 0)
    at_ms = failed_at_ms + min(delay_ms, DELAY_MAX_MS)
    elapsed_max = policy.max_elapsed_ms if policy is not None else None
    if elapsed_max is not None and at_ms - first_started_at_ms > elapsed_max:
        return GiveUp(f"the next attempt would start after max_elapsed_ms ({elapsed_max})")
    return RetryAt(at_ms)


def _is_retryable(policy: RetryPolicy | None, failure_class: FailureClass) -> bool:
    names = policy.retryable_failure_classes if policy is not None else None
    if not names:
        return True
    return "*" in names or failure_class.value in names


def _delay_ms(
    policy: RetryPolicy | None, attempt: int, failure_class: FailureClass, jitter_key: str
) -> int:
    backoff = policy.backoff if policy is not None else None
    if backoff is None or backoff.strategy == "none" or backoff.initial_delay_ms == 0:
        if failure_class is FailureClass.PROVIDER_TRANSIENT:
            return _PROVIDER_DELAYS_MS[min(attempt, len(_PROVIDER_DELAYS_MS)) - 1]
        return 0
    delay = float(backoff.initial_delay_ms)
    if backoff.strategy == "exponential":
        # The exponent is bounded: beyond it every delay is over the cap, and floats overflow.
        delay *= max(backoff.multiplier, 1.0) ** min(attempt - 1, 64)
    cap = backoff.max_delay_ms or DELAY_MAX_MS
    return int(min(delay, cap)) + _jitter_ms(backoff.jitter_ms or 0, jitter_key)


def _jitter_ms(span_ms: int, key: str) -> int:
    if span_ms <= 0:
        return 0
    return int.from_bytes(blake2b(key.encode(), digest_size=6).digest()) % (span_ms + 1)
