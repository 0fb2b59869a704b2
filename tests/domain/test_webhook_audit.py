"""What the audit records of webhooks."""

import msgspec
import pytest
from tests.domain.test_webhook import trigger
from tests.domain.test_webhook_delivery import delivery

from tandem.domain.audit import AuditEvent
from tandem.domain.ids import RunId
from tandem.domain.webhook import DeliveryStatus, TriggerPatch
from tandem.domain.webhook_audit import (
    audit_event_id,
    command_entry,
    creation_entry,
    deletion_entry,
    delivery_entry,
)
from tandem.domain.webhook_delivery import not_believed, rejected, started
from tandem.domain.webhook_keeping import (
    DisableTrigger,
    PatchTrigger,
    RotateSecret,
    TriggerCommand,
    decide_trigger,
)

SECRET = b"sealed-secret"


def detail_of(command: TriggerCommand) -> tuple[AuditEvent, dict[str, object]]:
    before = trigger()
    after = decide_trigger(before, command, now_ms=9).trigger
    entry = command_entry(before, after, command, by="ann", now_ms=9)
    assert (entry.actor, entry.recorded_at_ms, entry.tenant) == ("ann", 9, before.tenant)
    assert SECRET.decode() not in str(entry)
    detail = dict(entry.detail)
    assert detail.pop("trigger_id") == before.trigger_id
    assert detail.pop("automation_id") == before.automation_id
    return entry.event, detail


def test_a_change_names_what_it_changed() -> None:
    patch = PatchTrigger(TriggerPatch(name="other", enabled=False), False)
    event = AuditEvent.WEBHOOK_TRIGGER_CHANGED
    assert detail_of(patch) == (event, {"name": "other", "enabled": False})
    event = AuditEvent.WEBHOOK_TRIGGER_DISABLED
    assert detail_of(DisableTrigger()) == (event, {"enabled": False})


def test_a_rotation_names_the_version_and_never_the_secret() -> None:
    event, detail = detail_of(RotateSecret(SECRET, 0, "ann"))
    assert (event, detail) == (AuditEvent.WEBHOOK_SECRET_ROTATED, {"secret_version": 1})


def test_a_new_trigger_and_a_deleted_one_are_recorded() -> None:
    made = trigger()
    created = creation_entry(made, by="ann")
    assert (created.event, created.actor) == (AuditEvent.WEBHOOK_TRIGGER_CREATED, "ann")
    assert created.detail["provider"] == made.provider
    assert made.public_path_token not in str(created)
    deleted = deletion_entry(made, by="bob", now_ms=9)
    assert (deleted.event, deleted.actor) == (AuditEvent.WEBHOOK_TRIGGER_DELETED, "bob")


def test_a_delivery_is_recorded_when_it_led_to_something_or_was_refused_by_us() -> None:
    believed = msgspec.structs.replace(delivery(), event_id="e")
    run = delivery_entry(started(believed, RunId("r"), now_ms=2), now_ms=2)
    assert run is not None
    assert (run.event, run.detail["queued_run_id"]) == (AuditEvent.WEBHOOK_DELIVERY_ACCEPTED, "r")
    assert run.actor == f"webhook {believed.trigger_id}"
    refused = delivery_entry(rejected(believed, "automation_inactive", now_ms=2), now_ms=2)
    assert refused is not None
    assert refused.event is AuditEvent.WEBHOOK_DELIVERY_REJECTED
    assert refused.detail["reason"] == "automation_inactive"


@pytest.mark.parametrize("status", [DeliveryStatus.RECEIVED, DeliveryStatus.DUPLICATE])
def test_a_delivery_that_changes_nothing_is_not_recorded(status: DeliveryStatus) -> None:
    believed = msgspec.structs.replace(delivery(), event_id="e", status=status)
    assert delivery_entry(believed, now_ms=2) is None


def test_whoever_is_not_believed_writes_nothing_into_the_audit() -> None:
    asked = msgspec.structs.replace(delivery(), event_id=None)
    assert delivery_entry(not_believed(asked, "bad_signature"), now_ms=2) is None


def test_a_record_has_a_name() -> None:
    assert audit_event_id(7) == "audit-7"
