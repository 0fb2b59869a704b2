"""Signals: what comes from outside for the waits of runs, and the keys by which they meet.

A signal is kept when it is accepted, before it is matched, and a wait looks for kept ones when it
is registered; so it does not matter which of the two comes first (run-lifecycle 6.1, 6.5).
"""

from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.automation import CorrelationField, WebhookWait
from tandem.domain.errors import EngineError
from tandem.domain.ids import TenantId
from tandem.domain.json import JsonValue, canonical, digest, encode

IDEMPOTENCY_KEY_BYTES_MAX: Final = 512
PAYLOAD_BYTES_MAX: Final = 16_384
"""The largest payload of an external condition; the largest metadata that a node output keeps."""
DELIVERY_BYTES_MAX: Final = 262_144
"""The largest payload of a webhook delivery that is kept."""


class SignalKind(StrEnum):
    """Which waits a signal is for."""

    WEBHOOK = "webhook"
    EXTERNAL_CONDITION = "external_condition"


class InvalidSignal(EngineError):
    """A signal cannot be accepted as it is; nothing was written."""

    code = "signal_invalid"


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened outside, accepted by the engine.

    `subject` is the condition's key or the id of the webhook's trigger. The same subject and
    `idempotency_key` name the same signal for ever. `payload` is JSON text.
    """

    kind: SignalKind
    subject: str
    idempotency_key: str
    payload: bytes = b"null"
    source: str = ""
    """Who or what sent it, for a person."""
    provider: str = ""
    provider_event_kind: str = ""
    provider_event_id: str = ""
    body_digest: str = ""


def check_signal(signal: Signal) -> None:
    """Check the bounds of a signal (run-lifecycle 6.5).

    Raises:
        InvalidSignal: the key or the payload is out of bounds.
    """
    check_idempotency_key(signal.idempotency_key)
    if not signal.subject.strip():
        raise InvalidSignal("a signal needs the key of its condition or the id of its trigger")
    external = signal.kind is SignalKind.EXTERNAL_CONDITION
    check_payload(signal.payload, PAYLOAD_BYTES_MAX if external else DELIVERY_BYTES_MAX)


def check_idempotency_key(key: str) -> None:
    """Check the length of an idempotency key.

    Raises:
        InvalidSignal: it is empty or longer than 512 bytes.
    """
    if not 1 <= len(key.encode()) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise InvalidSignal(
            f"an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, "
            f"this one has {len(key.encode())}",
            code="idempotency_key_invalid",
        )


def check_payload(payload: bytes, bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
    """Check the size of a payload.

    Raises:
        InvalidSignal: it is too large.
    """
    if len(payload) > bytes_max:
        raise InvalidSignal(
            f"the payload has {len(payload)} bytes, the bound is {bytes_max}; "
            "send a reference to it instead",
            code="payload_too_large",
        )


def keys_of(signal: Signal, tenant: TenantId) -> tuple[str, ...]:
    """Return the keys by which waits of the tenant may be waiting for this signal."""
    if signal.kind is SignalKind.EXTERNAL_CONDITION:
        return (condition_key(tenant, signal.subject),)
    values = {
        CorrelationField.PROVIDER_EVENT_ID: signal.provider_event_id,
        CorrelationField.IDEMPOTENCY_KEY: signal.idempotency_key,
        CorrelationField.BODY_DIGEST: signal.body_digest,
    }
    return tuple(
        webhook_key(tenant, signal.subject, field, value)
        for field, value in values.items()
        if value
    )


def condition_key(tenant: TenantId, subject: str) -> str:
    """Return the key of waits of a tenant for an external condition."""
    return _key(tenant, SignalKind.EXTERNAL_CONDITION, subject)


def webhook_key(tenant: TenantId, trigger_id: str, field: CorrelationField, value: str) -> str:
    """Return the key of waits of a tenant for a delivery at a trigger."""
    return _key(tenant, SignalKind.WEBHOOK, trigger_id, field.value, value)


def _key(*parts: str) -> str:
    # A digest: of one length whatever the parts are, and no text in a part can look like another.
    return digest(encode(parts)).removeprefix("sha256:")[:40]


def fits_webhook(signal: Signal, wait: WebhookWait) -> bool:
    """Say whether a delivery is of the provider and kind of event that a wait wants."""
    return (wait.provider or signal.provider) == signal.provider and (
        wait.provider_event_kind or signal.provider_event_kind
    ) == signal.provider_event_kind


def kept_metadata(metadata: JsonValue) -> JsonValue:
    """Return what a node output keeps of a wake: all of it, or a stub that says how much it was."""
    size = len(canonical(metadata))
    if size <= PAYLOAD_BYTES_MAX:
        return metadata
    return {"truncated": True, "original_bytes": size, "limit_bytes": PAYLOAD_BYTES_MAX}
