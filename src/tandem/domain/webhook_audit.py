"""What the audit records of webhooks: changes of triggers, and what deliveries led to.

No secret is in it, sealed or not. Deliveries whose sender was not believed are not recorded:
anybody can send any number of them; the list of deliveries keeps the newest (decision 24).
Duplicates and suppressed ones change nothing and are not recorded either.
"""

from collections.abc import Mapping
from typing import Any, Final

from tandem.domain.audit import AuditEntry, AuditEvent
from tandem.domain.webhook import DeliveryStatus, WebhookTrigger
from tandem.domain.webhook_delivery import Delivery
from tandem.domain.webhook_keeping import (
    BeginSetup,
    DisableTrigger,
    ImportSecret,
    PatchTrigger,
    RevealToken,
    RotateSecret,
    TakeToken,
    TriggerCommand,
)

PROVIDER: Final = "provider"
"""Who hands over a verification token."""
_EVENTS: Final[Mapping[type[TriggerCommand], AuditEvent]] = {
    PatchTrigger: AuditEvent.WEBHOOK_TRIGGER_CHANGED,
    DisableTrigger: AuditEvent.WEBHOOK_TRIGGER_DISABLED,
    RotateSecret: AuditEvent.WEBHOOK_SECRET_ROTATED,
    ImportSecret: AuditEvent.WEBHOOK_SECRET_IMPORTED,
    BeginSetup: AuditEvent.WEBHOOK_SETUP_BEGUN,
    TakeToken: AuditEvent.WEBHOOK_TOKEN_TAKEN,
    RevealToken: AuditEvent.WEBHOOK_TOKEN_REVEALED,
}
_DELIVERED: Final[Mapping[DeliveryStatus, AuditEvent]] = {
    DeliveryStatus.ACCEPTED: AuditEvent.WEBHOOK_DELIVERY_ACCEPTED,
    DeliveryStatus.REJECTED: AuditEvent.WEBHOOK_DELIVERY_REJECTED,
    DeliveryStatus.DISABLED: AuditEvent.WEBHOOK_DELIVERY_REJECTED,
    DeliveryStatus.FAILED: AuditEvent.WEBHOOK_DELIVERY_REJECTED,
}
_SHOWN: Final = ("name", "provider", "provider_event_kind", "signature_scheme", "enabled")


def command_entry(
    before: WebhookTrigger,
    after: WebhookTrigger,
    command: TriggerCommand,
    *,
    by: str,
    now_ms: int,
) -> AuditEntry:
    """Return what is recorded of a command that changed a trigger."""
    changed = {
        name: getattr(after, name)
        for name in _SHOWN
        if getattr(after, name) != getattr(before, name)
    }
    if after.secret_version != before.secret_version:
        changed["secret_version"] = after.secret_version
    return _entry(_EVENTS[type(command)], after, by=by, now_ms=now_ms, **changed)


def creation_entry(trigger: WebhookTrigger, *, by: str) -> AuditEntry:
    """Return what is recorded of a new trigger."""
    shown = {name: getattr(trigger, name) for name in _SHOWN}
    event = AuditEvent.WEBHOOK_TRIGGER_CREATED
    return _entry(event, trigger, by=by, now_ms=trigger.created_at_ms, **shown)


def deletion_entry(trigger: WebhookTrigger, *, by: str, now_ms: int) -> AuditEntry:
    """Return what is recorded of a trigger that is deleted."""
    return _entry(AuditEvent.WEBHOOK_TRIGGER_DELETED, trigger, by=by, now_ms=now_ms)


def delivery_entry(delivery: Delivery, *, now_ms: int) -> AuditEntry | None:
    """Return what is recorded of what became of a delivery, None for nothing."""
    event = _DELIVERED.get(delivery.status)
    if event is None or not delivery.is_authentic:
        return None
    detail = {
        "delivery_id": delivery.delivery_id,
        "trigger_id": delivery.trigger_id,
        "automation_id": delivery.automation_id,
        "queued_run_id": delivery.queued_run_id,
        "woken_run_id": delivery.woken_run_id,
        "reason": delivery.rejection_reason_code,
    }
    return AuditEntry(
        event=event,
        tenant=delivery.tenant,
        recorded_at_ms=now_ms,
        actor=f"webhook {delivery.trigger_id}",
        detail={name: value for name, value in detail.items() if value is not None},
    )


def audit_event_id(audit_no: int) -> str:
    """Return the name of a record of the audit."""
    return f"audit-{audit_no}"


def _entry(
    event: AuditEvent, trigger: WebhookTrigger, *, by: str, now_ms: int, **detail: Any
) -> AuditEntry:
    return AuditEntry(
        event=event,
        tenant=trigger.tenant,
        recorded_at_ms=now_ms,
        actor=by,
        detail={
            "trigger_id": trigger.trigger_id,
            "automation_id": trigger.automation_id,
            **detail,
        },
    )
