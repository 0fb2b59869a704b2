"""Deliveries at webhook triggers: what is recorded of each, and which are the same again."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from tandem.domain.errors import InvalidRequest
from tandem.domain.ids import AutomationId, RunId, TenantId, WaitId
from tandem.domain.json import JsonValue, canonical, decode, digest, encode
from tandem.domain.signal import DELIVERY_BYTES_MAX, Signal, SignalKind
from tandem.domain.spelling import doubled
from tandem.domain.trigger import WEBHOOK_CONTEXT
from tandem.domain.webhook import (
    EVENT_ID_MAX,
    DeliveryCounts,
    DeliveryStatus,
    Scheme,
    WebhookTrigger,
)
from tandem.domain.webhook_signature import SELF_FEEDBACK_HEADER

DELIVERY_PREFIX: Final = "automation-webhook-delivery-"
EVENT_PREFIX: Final = "automation-webhook-event-"
PREVIEW_BYTES_MAX: Final = 16_384
"""A larger preview is told by its size alone."""
DEPTH_MAX: Final = 64
HEADERS_KEPT_MAX: Final = 64
HEADER_KEPT_MAX: Final = 1_024
REDACTED: Final = "[redacted]"
TRUST: Final = "untrusted_external_webhook"
RETENTION_POLICY: Final = "raw_payload_30_days"
_SENSITIVE: Final = (
    "secret",
    "token",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "signature",
    "password",
)
_ORIGIN_HEADERS: Final = ("action-id", "run-id", "node-id", "idempotency-key", "resource-id")
_YES: Final = frozenset({"1", "true", "yes"})


class Dedupe(StrEnum):
    """What the idempotency of a delivery came to."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REPLAY = "replay"
    """This very delivery is stored already."""
    CONFLICT = "conflict"
    """The provider's id was used before for another body."""
    IGNORED_FEEDBACK_LOOP = "ignored_feedback_loop"


class Correlation(StrEnum):
    """What a delivery led to."""

    RECEIVED = "received"
    NEW_RUN = "new_run"
    WAKE_RUN = "wake_run"
    DUPLICATE = "duplicate"
    SUPPRESSED = "suppressed"
    REJECTED = "rejected"
    DEAD_LETTER = "dead_letter"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery, from its arrival on. What does not apply is None.

    `event_id` names the raw event; a delivery that was refused before it was believed has none.
    `redelivery_of_delivery_id` is the delivery that a person sent through again.
    """

    delivery_id: str
    tenant: TenantId
    trigger_id: str
    automation_id: AutomationId
    event_id: str | None = None
    provider_event_id: str | None = None
    body_digest: str
    status: DeliveryStatus = DeliveryStatus.RECEIVED
    rejection_reason_code: str | None = None
    rejection_detail: str | None = None
    idempotency_key: str | None = None
    idempotency_record_id: str | None = None
    dedupe_result: Dedupe | None = None
    dedupe_reason_code: str | None = None
    duplicate_of_delivery_id: str | None = None
    duplicate_of_run_id: RunId | None = None
    verification_scheme: Scheme
    verification_provider: str
    verification_reason_code: str | None = None
    queued_run_id: RunId | None = None
    woken_run_id: RunId | None = None
    woken_wait_id: WaitId | None = None
    feedback_loop: dict[str, Any] | None = None
    correlation: Correlation = Correlation.RECEIVED
    received_at_ms: int
    accepted_at_ms: int | None = None
    rejected_at_ms: int | None = None
    sanitized_preview: Any = None
    audit_event_id: str | None = None
    redelivery_of_delivery_id: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it still has to become something."""
        return self.status is DeliveryStatus.RECEIVED

    @property
    def is_authentic(self) -> bool:
        """Whether its sender was believed, so that its payload is kept."""
        return self.event_id is not None

    @property
    def run_id(self) -> RunId | None:
        """The run that it started or woke."""
        return self.queued_run_id or self.woken_run_id


class RawEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What came, as it came, apart from its bytes."""

    headers_digest: str
    headers_redacted: dict[str, str]
    content_type: str
    payload_bytes: int


class ClaimKey(msgspec.Struct, frozen=True, kw_only=True):
    """One idempotency key of a delivery; the same one with another fingerprint is a conflict."""

    key: str
    fingerprint: str


class KnownClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A key that an earlier delivery has claimed."""

    key: str
    fingerprint: str
    delivery_id: str


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is to be stored; `event` and `payload` only where its sender was believed."""

    delivery: Delivery
    claims: tuple[ClaimKey, ...] = ()
    event: RawEvent | None = None
    payload: bytes = b""


# Reading what came


def event_id_of(trigger: WebhookTrigger, headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of the event: that of the first header which holds a usable one."""
    for name in trigger.event_id_headers:
        value = headers.get(name, "").strip()
        if value and len(value) <= EVENT_ID_MAX and value.isascii() and value.isprintable():
            return value
    return None


def parse_body(body: bytes) -> JsonValue:
    """Read the payload.

    Raises:
        InvalidRequest: it is no JSON, or nested beyond reading.
    """
    try:
        value = decode(body)
        canonical(value)
    except (msgspec.DecodeError, msgspec.EncodeError, ValueError, RecursionError, OverflowError):
        raise InvalidRequest("the body is not JSON", code="invalid_json") from None
    return value


def sanitized(value: JsonValue, *, depth: int = 0) -> JsonValue:
    """Return a payload without the values under keys that name secrets."""
    if depth >= DEPTH_MAX:
        return "[too deep]"
    if isinstance(value, Mapping):
        return {
            key: REDACTED if is_sensitive(key) else sanitized(inner, depth=depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [sanitized(inner, depth=depth + 1) for inner in value]
    return value


def is_sensitive(key: str) -> bool:
    """Say whether what a key names is not to be shown."""
    lowered = key.lower().replace("-", "_")
    return any(word in lowered for word in _SENSITIVE)


def preview_of(clean: JsonValue) -> JsonValue:
    """Return what a record keeps of a sanitised payload: all of it, or how large it is."""
    size = len(encode(clean))
    if size <= PREVIEW_BYTES_MAX:
        return clean
    return {"truncated": True, "original_bytes": size, "limit_bytes": PREVIEW_BYTES_MAX}


def raw_event(headers: Mapping[str, str], body: bytes) -> RawEvent:
    """Describe what came, with the values of telling headers left out."""
    kept = sorted(headers.items())[:HEADERS_KEPT_MAX]
    return RawEvent(
        headers_digest=digest(canonical(dict(headers))),
        headers_redacted={
            name[:HEADER_KEPT_MAX]: REDACTED if is_sensitive(name) else value[:HEADER_KEPT_MAX]
            for name, value in kept
        },
        content_type=headers.get("content-type", "")[:HEADER_KEPT_MAX],
        payload_bytes=len(body),
    )


def feedback_of(
    scheme: Scheme, headers: Mapping[str, str], payload: JsonValue
) -> dict[str, Any] | None:
    """Return what says that a delivery comes from something this engine did itself, if anything.

    Its sender may allow that with a header; it counts only where the signature covers it.
    """
    origin: dict[str, Any] = {
        name.replace("-", "_"): headers[f"x-tandem-origin-{name}"][:EVENT_ID_MAX]
        for name in _ORIGIN_HEADERS
        if headers.get(f"x-tandem-origin-{name}", "").strip()
    }
    told = None
    if isinstance(payload, Mapping):
        told = payload.get("tandem_origin") or payload.get("tandemOrigin")
    if told:
        origin["payload"] = preview_of(sanitized(told))
    if not origin:
        return None
    wanted = headers.get(SELF_FEEDBACK_HEADER, "").strip().lower() in _YES
    return {"origin": origin, "allowed": wanted and scheme is Scheme.HMAC_SHA256_V1}


# Deciding


def claims_of(trigger_id: str, event_id: str | None, body_digest: str) -> tuple[ClaimKey, ...]:
    """Return the keys that a delivery claims: that of its event first, then that of its body."""
    body = ClaimKey(key=f"trigger:{trigger_id}:body:{body_digest}", fingerprint=body_digest)
    if event_id is None:
        return (body,)
    key = f"trigger:{trigger_id}:provider_event:{event_id}"
    return (ClaimKey(key=key, fingerprint=body_digest), body)


def record_id_of(tenant: TenantId, key: str) -> str:
    """Return the id of the record of a claim."""
    return f"whidem_{digest(encode([tenant, key])).removeprefix('sha256:')[:32]}"


def decide_claims(
    delivery: Delivery, claims: Sequence[ClaimKey], known: Mapping[str, KnownClaim]
) -> tuple[Delivery, tuple[ClaimKey, ...]]:
    """Decide whether a delivery was there before; return it with the verdict, and what it claims.

    The provider's id counts before the body. Identical bodies are never run twice.
    """
    if not claims:
        return delivery, ()
    delivery = msgspec.structs.replace(
        delivery,
        idempotency_key=claims[0].key,
        idempotency_record_id=record_id_of(delivery.tenant, claims[0].key),
    )
    new = tuple(claim for claim in claims if claim.key not in known)
    for claim in claims:
        found = known.get(claim.key)
        if found is None:
            continue
        if found.delivery_id == delivery.delivery_id:
            return msgspec.structs.replace(delivery, dedupe_result=Dedupe.REPLAY), ()
        if found.fingerprint != claim.fingerprint:
            return _conflict(delivery, found), ()
        return _duplicate(delivery, found), new
    return msgspec.structs.replace(delivery, dedupe_result=Dedupe.ACCEPTED), new


def _conflict(delivery: Delivery, found: KnownClaim) -> Delivery:
    return msgspec.structs.replace(
        rejected(delivery, "idempotency_conflict", now_ms=delivery.received_at_ms),
        dedupe_result=Dedupe.CONFLICT,
        dedupe_reason_code="idempotency_conflict",
        duplicate_of_delivery_id=found.delivery_id,
    )


def _duplicate(delivery: Delivery, found: KnownClaim) -> Delivery:
    return msgspec.structs.replace(
        delivery,
        status=DeliveryStatus.DUPLICATE,
        correlation=Correlation.DUPLICATE,
        dedupe_result=Dedupe.DUPLICATE,
        dedupe_reason_code="duplicate_delivery",
        rejection_reason_code="duplicate_delivery",
        duplicate_of_delivery_id=found.delivery_id,
    )


def suppressed(delivery: Delivery, feedback: dict[str, Any]) -> Delivery:
    """Return a delivery that comes from what this engine did itself."""
    return msgspec.structs.replace(
        delivery,
        status=DeliveryStatus.SUPPRESSED,
        correlation=Correlation.SUPPRESSED,
        rejection_reason_code="self_induced_feedback_loop",
        dedupe_result=Dedupe.IGNORED_FEEDBACK_LOOP,
        dedupe_reason_code="self_induced_feedback_loop",
        feedback_loop=feedback,
        rejected_at_ms=delivery.received_at_ms,
    )


def rejected(
    delivery: Delivery,
    reason: str,
    *,
    now_ms: int,
    status: DeliveryStatus = DeliveryStatus.REJECTED,
    detail: str = "",
) -> Delivery:
    """Return a delivery that leads to nothing, and why."""
    dead = status is DeliveryStatus.FAILED
    return msgspec.structs.replace(
        delivery,
        status=status,
        rejection_reason_code=reason,
        rejection_detail=detail or None,
        correlation=Correlation.DEAD_LETTER if dead else Correlation.REJECTED,
        rejected_at_ms=now_ms,
    )


def not_believed(delivery: Delivery, reason: str) -> Delivery:
    """Return a delivery whose sender is not believed, or whose trigger takes none."""
    disabled = reason == "trigger_disabled"
    status = DeliveryStatus.DISABLED if disabled else DeliveryStatus.REJECTED
    found = rejected(delivery, reason, now_ms=delivery.received_at_ms, status=status)
    return msgspec.structs.replace(found, verification_reason_code=reason)


def started(delivery: Delivery, run_id: RunId, *, now_ms: int) -> Delivery:
    """Return a delivery that has become a run."""
    return msgspec.structs.replace(
        delivery,
        status=DeliveryStatus.ACCEPTED,
        correlation=Correlation.NEW_RUN,
        queued_run_id=run_id,
        accepted_at_ms=now_ms,
    )


def woke(delivery: Delivery, run_id: RunId, wait_id: WaitId, *, now_ms: int) -> Delivery:
    """Return a delivery that has woken a wait."""
    return msgspec.structs.replace(
        delivery,
        status=DeliveryStatus.ACCEPTED,
        correlation=Correlation.WAKE_RUN,
        woken_run_id=run_id,
        woken_wait_id=wait_id,
        accepted_at_ms=now_ms,
    )


def scope_refusal(trigger: WebhookTrigger, metadata: JsonValue) -> str:
    """Return why the scope of a trigger does not fit its automation's, or an empty text."""
    scope = metadata.get("enterprise_scope") if isinstance(metadata, Mapping) else None
    if not isinstance(scope, Mapping):
        asks = trigger.owning_org_unit_id is not None or trigger.resource_scope is not None
        return "webhook_automation_missing_enterprise_scope" if asks else ""
    unit, resource = scope.get("owning_org_unit_id"), scope.get("resource_scope")
    if isinstance(unit, str) and unit.strip():
        if trigger.owning_org_unit_id is None:
            return "webhook_missing_org_scope"
        if trigger.owning_org_unit_id != unit.strip().lower():
            return "webhook_org_scope_mismatch"
    if resource is not None:
        if trigger.resource_scope is None:
            return "webhook_missing_resource_scope"
        if canonical(trigger.resource_scope) != canonical(resource):
            return "webhook_resource_scope_mismatch"
    return ""


# Passing on


def signal_of(delivery: Delivery, clean: JsonValue, *, event_kind: str | None) -> Signal:
    """Return the signal by which waits hear of a delivery."""
    payload = encode(clean)
    return Signal(
        kind=SignalKind.WEBHOOK,
        subject=delivery.trigger_id,
        idempotency_key=delivery.idempotency_key or delivery.delivery_id,
        payload=payload if len(payload) <= DELIVERY_BYTES_MAX else encode(preview_of(clean)),
        source=trigger_reason_of(delivery),
        provider=delivery.verification_provider,
        provider_event_kind=event_kind or "",
        provider_event_id=delivery.provider_event_id or "",
        body_digest=delivery.body_digest,
    )


def run_id_of(delivery: Delivery) -> RunId:
    """Return the id of the run that a delivery becomes: there can be no other one."""
    return RunId(f"automation-v2-run-{delivery.delivery_id.removeprefix(DELIVERY_PREFIX)}")


def trigger_reason_of(delivery: Delivery) -> str:
    """Return why a run was created."""
    return f"{delivery.verification_provider} webhook delivery {delivery.delivery_id}"


def trigger_context_of(trigger: WebhookTrigger, delivery: Delivery) -> dict[str, Any]:
    """Return what a run keeps of the delivery that started it: `metadata.automation_webhook`."""
    return {
        WEBHOOK_CONTEXT: {
            "trust": TRUST,
            "trigger_id": trigger.trigger_id,
            "trigger_name": trigger.name,
            "delivery_id": delivery.delivery_id,
            "event_id": delivery.event_id,
            "provider": trigger.provider,
            "provider_event_kind": trigger.provider_event_kind,
            "provider_event_id": delivery.provider_event_id,
            "body_digest": delivery.body_digest,
            "data_class": trigger.default_data_class.value,
            "risk_tier": trigger.default_risk_tier.value if trigger.default_risk_tier else None,
            "received_at_ms": delivery.received_at_ms,
            "payload_preview": delivery.sanitized_preview,
        }
    }


def input_of(trigger: WebhookTrigger, delivery: Delivery, clean: JsonValue) -> dict[str, Any]:
    """Return the input `webhook` of a run whose automation declares one."""
    return {
        "trust": TRUST,
        "trigger_id": trigger.trigger_id,
        "delivery_id": delivery.delivery_id,
        "provider": trigger.provider,
        "provider_event_kind": trigger.provider_event_kind,
        "provider_event_id": delivery.provider_event_id,
        "payload": clean,
    }


# Counting


def counted(
    trigger: WebhookTrigger, delivery: Delivery, *, before: DeliveryStatus | None, now_ms: int
) -> WebhookTrigger:
    """Return a trigger that has counted a delivery which is new, or was in status `before`."""
    counts = msgspec.structs.asdict(trigger.delivery_counts)
    if before is None:
        counts["total"] += 1
    else:
        counts[before.value] -= 1
    counts[delivery.status.value] += 1
    changes: dict[str, Any] = {"delivery_counts": DeliveryCounts(**counts)}
    if before is None:
        changes["last_received_at_ms"] = now_ms
    if delivery.status is DeliveryStatus.ACCEPTED:
        changes["last_accepted_at_ms"] = now_ms
    elif delivery.rejected_at_ms is not None:
        changes["last_rejected_at_ms"] = now_ms
    return msgspec.structs.replace(trigger, **changes)


# Showing


def delivery_document(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as it is shown, each key in both spellings."""
    document = msgspec.to_builtins(delivery)
    for inner in ("tenant", "event_id"):
        del document[inner]
    run_id = delivery.queued_run_id
    document["queued_run_path"] = f"/automations/v2/runs/{run_id}" if run_id else None
    return doubled(document)


def event_document(
    delivery: Delivery, event: RawEvent, *, is_available: bool, payload: JsonValue = None
) -> dict[str, Any]:
    """Return a raw event as it is shown, each key in both spellings."""
    document = delivery_document(delivery)
    return document | doubled(
        {
            "event_id": delivery.event_id,
            "headers_digest": event.headers_digest,
            "headers_redacted": event.headers_redacted,
            "content_type": event.content_type,
            "payload_ref": f"webhook-event:{delivery.event_id}",
            "payload_bytes": event.payload_bytes,
            "payload_available": is_available,
            "payload": payload,
            "retention_policy": RETENTION_POLICY,
        }
    )


def statuses_of(words: Iterable[str]) -> tuple[DeliveryStatus, ...]:
    """Read statuses.

    Raises:
        InvalidRequest: there is no such status.
    """
    try:
        return tuple(DeliveryStatus(word.strip().lower()) for word in words)
    except ValueError:
        raise InvalidRequest(
            f"`status` is one of {', '.join(DeliveryStatus)}",
            code="AUTOMATION_WEBHOOK_EVENT_STATUS_INVALID",
        ) from None
