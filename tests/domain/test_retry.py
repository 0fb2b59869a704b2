"""What follows a failed attempt."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.domain.outcome import FailureClass
from tandem.domain.retry import DELAY_MAX_MS, GiveUp, RetryAt, RetryDecision, decide_retry
from tandem.domain.retry_policy import RetryPolicy

F = FailureClass
NOW_MS = 1_000_000


def decide(
    policy: dict[str, Any] | None = None,
    *,
    attempts_max: int = 10,
    attempts_used: int = 1,
    failure_class: FailureClass = F.EXECUTION_ERROR,
    first_started_at_ms: int = NOW_MS,
    retry_after_ms: int | None = None,
    jitter_key: str = "key",
) -> RetryDecision:
    return decide_retry(
        None if policy is None else RetryPolicy.model_validate(policy),
        attempts_max=attempts_max,
        attempts_used=attempts_used,
        failure_class=failure_class,
        failed_at_ms=NOW_MS,
        first_started_at_ms=first_started_at_ms,
        retry_after_ms=retry_after_ms,
        jitter_key=jitter_key,
    )


def delay_of(decision: RetryDecision) -> int:
    assert isinstance(decision, RetryAt)
    return decision.at_ms - NOW_MS


def backoff(**fields: Any) -> dict[str, Any]:
    return {"backoff": fields}


def test_without_a_policy_the_next_attempt_comes_at_once() -> None:
    assert decide() == RetryAt(NOW_MS)


def test_attempts_end_when_all_are_used() -> None:
    assert isinstance(decide(attempts_max=3, attempts_used=2), RetryAt)
    assert decide(attempts_max=3, attempts_used=3) == GiveUp("3 of 3 attempts used")


def test_too_large_output_is_never_tried_again() -> None:
    decision = decide({"retryable_failure_classes": ["*"]}, failure_class=F.OUTPUT_TOO_LARGE)

    assert decision == GiveUp("trying again does not help: output_too_large")


def test_interruption_is_tried_again_whatever_the_policy_names() -> None:
    policy = {"retryable_failure_classes": ["timed_out"]}

    assert decide(policy, failure_class=F.INTERRUPTED) == RetryAt(NOW_MS)


@pytest.mark.parametrize(
    ("names", "is_retried"),
    [
        (None, True),
        ([], True),
        (["*"], True),
        (["execution_error"], True),
        ([" Execution-Error "], True),
        (["Execution Error"], True),
        (["timed_out"], False),
    ],
)
def test_policy_names_the_classes_that_it_retries(names: Any, is_retried: bool) -> None:
    decision = decide({"retryable_failure_classes": names})

    if is_retried:
        assert decision == RetryAt(NOW_MS)
    else:
        assert decision == GiveUp("the retry policy does not retry execution_error")


@pytest.mark.parametrize(("used", "delay_ms"), [(1, 2_000), (2, 5_000), (3, 8_000), (9, 8_000)])
def test_provider_trouble_waits_by_itself(used: int, delay_ms: int) -> None:
    decision = decide(failure_class=F.PROVIDER_TRANSIENT, attempts_used=used)

    assert delay_of(decision) == delay_ms


@pytest.mark.parametrize(
    ("fields", "delays_ms"),
    [
        ({"strategy": "none", "initial_delay_ms": 500}, [0, 0, 0]),
        ({"strategy": "fixed", "initial_delay_ms": 0}, [0, 0, 0]),
        ({"strategy": "fixed", "initial_delay_ms": 500}, [500, 500, 500]),
        ({"strategy": "exponential", "initial_delay_ms": 500}, [500, 1_000, 2_000]),
        (
            {"strategy": "exponential", "initial_delay_ms": 500, "multiplier": 3.0},
            [500, 1_500, 4_500],
        ),
        (
            {"strategy": "exponential", "initial_delay_ms": 500, "max_delay_ms": 900},
            [500, 900, 900],
        ),
        (
            {"strategy": "exponential", "initial_delay_ms": 500, "multiplier": 0.1},
            [500, 500, 500],
        ),
    ],
)
def test_delays_follow_the_strategy(fields: dict[str, Any], delays_ms: list[int]) -> None:
    found = [delay_of(decide(backoff(**fields), attempts_used=used)) for used in (1, 2, 3)]

    assert found == delays_ms


def test_delay_never_passes_a_day() -> None:
    fields = {"strategy": "exponential", "initial_delay_ms": 1_000, "multiplier": 100.0}

    decision = decide(backoff(**fields), attempts_max=1_000, attempts_used=900)

    assert delay_of(decision) == DELAY_MAX_MS


def test_what_the_other_side_asks_for_is_never_shortened() -> None:
    fixed = backoff(strategy="fixed", initial_delay_ms=500)

    assert delay_of(decide(fixed, retry_after_ms=3_000)) == 3_000
    assert delay_of(decide(fixed, retry_after_ms=100)) == 500


@given(key=st.text(), span_ms=st.integers(0, 100_000))
def test_jitter_is_bounded_and_the_same_for_the_same_key(key: str, span_ms: int) -> None:
    policy = backoff(strategy="fixed", initial_delay_ms=500, jitter_ms=span_ms)

    delay_ms = delay_of(decide(policy, jitter_key=key))

    assert 500 <= delay_ms <= 500 + span_ms
    assert delay_of(decide(policy, jitter_key=key)) == delay_ms


def test_jitter_differs_between_attempts() -> None:
    policy = backoff(strategy="fixed", initial_delay_ms=500, jitter_ms=1_000)

    assert len({delay_of(decide(policy, jitter_key=f"run/a/{n}")) for n in range(20)}) > 10


def test_no_attempt_starts_after_the_time_is_up() -> None:
    policy = {"max_elapsed_ms": 10_000} | backoff(strategy="fixed", initial_delay_ms=4_000)

    assert delay_of(decide(policy, first_started_at_ms=NOW_MS - 6_000)) == 4_000
    assert decide(policy, first_started_at_ms=NOW_MS - 6_001) == GiveUp(
        "the next attempt would start after max_elapsed_ms (10000)"
    )
