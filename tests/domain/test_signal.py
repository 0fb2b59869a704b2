"""Signals: their bounds, and the keys by which they meet their waits."""

from typing import Any

import pytest

from tandem.domain.automation import CorrelationField
from tandem.domain.ids import LOCAL_TENANT, TenantId
from tandem.domain.signal import (
    InvalidSignal,
    Signal,
    SignalKind,
    check_signal,
    condition_key,
    keys_of,
    webhook_key,
)

F = CorrelationField


def signal(**fields: Any) -> Signal:
    given = {"kind": SignalKind.EXTERNAL_CONDITION, "subject": "ready", "idempotency_key": "k"}
    return Signal(**given | fields)


def test_condition_is_found_by_its_key() -> None:
    assert keys_of(signal(), LOCAL_TENANT) == (condition_key(LOCAL_TENANT, "ready"),)


def test_delivery_is_found_by_each_field_that_it_has() -> None:
    delivery = signal(kind=SignalKind.WEBHOOK, provider_event_id="e", body_digest="d")

    assert set(keys_of(delivery, LOCAL_TENANT)) == {
        webhook_key(LOCAL_TENANT, "ready", F.PROVIDER_EVENT_ID, "e"),
        webhook_key(LOCAL_TENANT, "ready", F.IDEMPOTENCY_KEY, "k"),
        webhook_key(LOCAL_TENANT, "ready", F.BODY_DIGEST, "d"),
    }


def test_no_two_things_share_a_key() -> None:
    keys = {
        condition_key(LOCAL_TENANT, "a"),
        condition_key(TenantId("other"), "a"),
        condition_key(LOCAL_TENANT, 'a","b'),
        webhook_key(LOCAL_TENANT, "a", F.BODY_DIGEST, "b"),
        webhook_key(LOCAL_TENANT, "a", F.IDEMPOTENCY_KEY, "b"),
        webhook_key(LOCAL_TENANT, "ab", F.IDEMPOTENCY_KEY, ""),
    }
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"idempotency_key": ""}, "idempotency_key_invalid"),
        ({"idempotency_key": "k" * 513}, "idempotency_key_invalid"),
        ({"subject": " "}, "signal_invalid"),
        ({"payload": b"x" * 16_385}, "payload_too_large"),
        ({"payload": b"x" * 262_145, "kind": SignalKind.WEBHOOK}, "payload_too_large"),
    ],
)
def test_signal_out_of_bounds_is_refused(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidSignal) as refused:
        check_signal(signal(**fields))
    assert refused.value.code == code


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"idempotency_key": "k" * 512},
        {"payload": b"x" * 16_384},
        {"payload": b"x" * 262_144, "kind": SignalKind.WEBHOOK},
    ],
)
def test_signal_within_bounds_is_accepted(fields: dict[str, Any]) -> None:
    assert check_signal(signal(**fields)) is None
