"""The same key again does nothing new."""

import pytest

from tandem.domain.errors import InvalidRequest, Refused
from tandem.domain.ids import RunId
from tandem.domain.request_key import KEPT_MS, RequestKey, UsedKey, is_repeated, request_key


def asked(request: object = None, key: str = "k-1") -> RequestKey:
    found = request_key("run_now:job", key, request)
    assert found is not None
    return found


def used(key: RequestKey) -> UsedKey:
    return UsedKey(
        operation=key.operation,
        key=key.key,
        fingerprint=key.fingerprint,
        run_id=RunId("r"),
        created_at_ms=1_000,
    )


def test_without_a_key_nothing_is_remembered() -> None:
    assert request_key("run_now:job", "  ", {}) is None


def test_a_key_is_short_and_printable() -> None:
    for key in ("x" * 256, "a\nb"):
        with pytest.raises(InvalidRequest):
            request_key("run_now:job", key, {})


def test_equal_requests_have_equal_fingerprints() -> None:
    assert asked({"a": 1, "b": 2}) == asked({"b": 2, "a": 1})
    assert asked({"a": 1}) != asked({"a": 2})


def test_the_same_request_again_is_a_repetition_for_a_day() -> None:
    first = asked({"a": 1})
    assert not is_repeated(None, first, now_ms=1_000)
    assert is_repeated(used(first), first, now_ms=1_000 + KEPT_MS - 1)
    assert not is_repeated(used(first), first, now_ms=1_000 + KEPT_MS)


def test_a_key_of_another_request_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        is_repeated(used(asked({"a": 1})), asked({"a": 2}), now_ms=1_000)
    assert refused.value.code == "IDEMPOTENCY_KEY_REUSED"
    assert refused.value.details == {"runID": "r"}
