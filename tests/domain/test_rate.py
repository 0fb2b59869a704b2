"""How often something may be done."""

import pytest

from tandem.domain import rate
from tandem.domain.errors import RateLimited
from tandem.domain.rate import Places, Rate


def test_a_key_has_its_number_in_each_minute() -> None:
    runs = Rate("runs", per_min=2)
    runs.spend("a", now_ms=0)
    runs.spend("a", now_ms=59_000)
    with pytest.raises(RateLimited, match="at most 2 runs in a minute") as refused:
        runs.spend("a", now_ms=59_500)
    assert refused.value.retry_after_s == 1
    runs.spend("b", now_ms=59_500)
    runs.spend("a", now_ms=60_000)


def test_whoever_comes_too_often_hears_when_to_come_again() -> None:
    runs = Rate("runs", per_min=1)
    runs.spend("a", now_ms=0)
    with pytest.raises(RateLimited) as refused:
        runs.spend("a", now_ms=500)
    assert refused.value.retry_after_s == 60


def test_none_a_minute_means_no_limit() -> None:
    runs = Rate("runs", per_min=0)
    for _ in range(1_000):
        runs.spend("a", now_ms=0)


def test_no_more_keys_are_counted_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "KEYS_MAX", 2)
    runs = Rate("runs", per_min=1)
    runs.spend("a", now_ms=0)
    runs.spend("b", now_ms=1)
    runs.spend("c", now_ms=2)
    with pytest.raises(RateLimited):
        runs.spend("b", now_ms=3)
    runs.spend("a", now_ms=3)  # the oldest was forgotten
    runs.spend("d", now_ms=100_000)
    runs.spend("c", now_ms=100_000)
    with pytest.raises(RateLimited):
        runs.spend("d", now_ms=100_001)


def test_places_are_taken_and_given_back() -> None:
    streams = Places("streams", at_once=2)
    streams.take("a")
    streams.take("a")
    streams.take("b")
    with pytest.raises(RateLimited, match="at most 2 streams at once"):
        streams.take("a")
    streams.leave("a")
    streams.take("a")
    streams.leave("b")
    streams.leave("a")


def test_places_without_a_number_are_never_full() -> None:
    streams = Places("streams", at_once=0)
    for _ in range(100):
        streams.take("a")
