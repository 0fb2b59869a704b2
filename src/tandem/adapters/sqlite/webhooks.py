"""Webhooks on the tables: triggers and their secrets, and what becomes of deliveries.

A delivery is stored with its idempotency keys in one transaction, and turned into what it leads to
in another, which only goes through while the delivery is open. So no crash can lose it or let it
count twice.
"""

from collections.abc import Mapping
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sqlite import reviewing
from tandem.adapters.sqlite.access import add_audit
from tandem.adapters.sqlite.signals import Deliver
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.domain.automation import AutomationStatus
from tandem.domain.automation_keeping import present
from tandem.domain.errors import ChangeRefused, NotFound, Refused
from tandem.domain.ids import AutomationId, ChangeId, RunId, TenantId
from tandem.domain.run import LifecycleEvent, Run
from tandem.domain.signal import Signal
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.webhook import DeliveryStatus, WebhookTrigger
from tandem.domain.webhook_audit import (
    audit_event_id,
    command_entry,
    creation_entry,
    deletion_entry,
    delivery_entry,
)
from tandem.domain.webhook_delivery import (
    Arrival,
    Delivery,
    KnownClaim,
    RawEvent,
    counted,
    decide_claims,
    rejected,
    started,
    woke,
)
from tandem.domain.webhook_keeping import TriggerChange, TriggerCommand, decide_trigger
from tandem.ports.store import Delivered
from tandem.ports.webhooks import RefusedRun, SettledDelivery, StoredEvent

REJECTIONS_KEPT: Final = 1_024
"""So many deliveries that were not believed are kept for each trigger."""


class CreateTrigger(msgspec.Struct, frozen=True, tag=True):
    """Write a new trigger."""

    change: TriggerChange
    by: str = ""

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        trigger = self.change.trigger
        automation_id = trigger.automation_id
        present(
            tables.find_automation(connection, trigger.tenant, automation_id),
            automation_id,
        )
        values = (
            trigger.tenant,
            trigger.trigger_id,
            trigger.automation_id,
            trigger.public_path_token,
            _text(trigger),
        )
        run_statement(connection, tables.sql["add_webhook_trigger"], values)
        _put_secrets(tables, connection, self.change)
        add_audit(tables, connection, creation_entry(trigger, by=self.by))

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`; the id is never used again."""
        trigger = self.change.trigger
        return find_trigger(tables, connection, trigger.trigger_id, trigger.tenant) is not None

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


class ExecuteOnTrigger(msgspec.Struct, frozen=True, tag=True):
    """Load a trigger, decide a command on it and write; the result is the trigger."""

    tenant: TenantId
    automation_id: AutomationId
    trigger_id: str
    command: TriggerCommand
    now_ms: int
    by: str = ""

    def perform(self, tables: Tables, connection: apsw.Connection) -> WebhookTrigger:
        """See `Write`."""
        trigger = get_trigger(
            tables, connection, self.trigger_id, self.tenant, of=self.automation_id
        )
        change = decide_trigger(trigger, self.command, now_ms=self.now_ms)
        if change.trigger != trigger:
            _put_trigger(tables, connection, change.trigger)
            _put_secrets(tables, connection, change)
            entry = command_entry(
                trigger, change.trigger, self.command, by=self.by, now_ms=self.now_ms
            )
            add_audit(tables, connection, entry)
        return change.trigger

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: WebhookTrigger | None
    ) -> bool:
        """See `Write`."""
        found = find_trigger(tables, connection, self.trigger_id, self.tenant)
        return result is not None and found == result

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> WebhookTrigger:
        """See `Write`."""
        return unpack(raw, WebhookTrigger)


class DeleteTrigger(msgspec.Struct, frozen=True, tag=True):
    """Delete a trigger with its secrets and its idempotency keys."""

    tenant: TenantId
    automation_id: AutomationId
    trigger_id: str
    now_ms: int
    by: str = ""

    def perform(self, tables: Tables, connection: apsw.Connection) -> None:
        """See `Write`."""
        trigger = get_trigger(
            tables, connection, self.trigger_id, self.tenant, of=self.automation_id
        )
        sql, trigger_id = tables.sql, self.trigger_id
        run_statement(connection, sql["remove_webhook_trigger"], (trigger_id,))
        past = trigger.secret_version + 1
        run_statement(connection, sql["remove_webhook_secrets"], (trigger_id, past))
        run_statement(connection, sql["remove_webhook_claims"], (self.tenant, trigger_id))
        entry = deletion_entry(trigger, by=self.by, now_ms=self.now_ms)
        add_audit(tables, connection, entry)

    def landed(self, tables: Tables, connection: apsw.Connection, result: None) -> bool:
        """See `Write`; the id is never used again."""
        return find_trigger(tables, connection, self.trigger_id, self.tenant) is None

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> None:
        """See `Write`; there is nothing to read."""


class Receive(msgspec.Struct, frozen=True, tag=True):
    """Store a delivery and claim its idempotency keys; the result is the delivery."""

    arrival: Arrival

    def perform(self, tables: Tables, connection: apsw.Connection) -> Delivery:
        """See `Write`."""
        arrival, asked = self.arrival, self.arrival.delivery
        known = find_delivery(tables, connection, asked.delivery_id, asked.tenant)
        if known is not None:
            return known
        trigger = get_trigger(tables, connection, asked.trigger_id, asked.tenant)
        claims = _known_claims(tables, connection, arrival)
        delivery, new = decide_claims(asked, arrival.claims, claims)
        delivery = _audited(tables, connection, delivery, now_ms=asked.received_at_ms)
        number = _add_delivery(tables, connection, delivery, arrival.event)
        if arrival.event is not None:
            values = (number, arrival.payload)
            run_statement(connection, tables.sql["add_webhook_payload"], values)
        for claim in new:
            run_statement(
                connection,
                tables.sql["add_webhook_claim"],
                (
                    asked.tenant,
                    asked.trigger_id,
                    claim.key,
                    claim.fingerprint,
                    asked.delivery_id,
                    asked.received_at_ms,
                ),
            )
        if not delivery.is_authentic:
            trimmed = (delivery.trigger_id, REJECTIONS_KEPT)
            run_statement(connection, tables.sql["trim_webhook_rejections"], trimmed)
        now_ms = delivery.received_at_ms
        _put_trigger(tables, connection, counted(trigger, delivery, before=None, now_ms=now_ms))
        return delivery

    def landed(self, tables: Tables, connection: apsw.Connection, result: Delivery | None) -> bool:
        """See `Write`; the id is never used again."""
        asked = self.arrival.delivery
        found = find_delivery(tables, connection, asked.delivery_id, asked.tenant)
        return result is not None and found is not None

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Delivery:
        """See `Write`."""
        return unpack(raw, Delivery)


class SettleDelivery(msgspec.Struct, frozen=True, tag=True):
    """Let an open delivery wake waits, or become a run, or nothing; None when it is not open.

    `run`, `events` and `document` are those of the run, where there can be one.
    """

    tenant: TenantId
    delivery_id: str
    signal: Signal
    automation_version: int | None
    change_id: ChangeId
    now_ms: int
    run: Run | None = None
    events: tuple[LifecycleEvent, ...] = ()
    document: bytes = b""
    refusal: RefusedRun | None = None

    def perform(self, tables: Tables, connection: apsw.Connection) -> SettledDelivery | None:
        """See `Write`. What may refuse is looked at before anything is written."""
        delivery = find_delivery(tables, connection, self.delivery_id, self.tenant)
        if delivery is None or not delivery.is_open:
            return None
        trigger = find_trigger(tables, connection, delivery.trigger_id, self.tenant)
        if trigger is None:
            gone = rejected(
                delivery,
                "webhook_trigger_missing",
                now_ms=self.now_ms,
                status=DeliveryStatus.FAILED,
            )
            return self._end(tables, connection, None, SettledDelivery(delivery=gone))
        if not trigger.enabled:
            ended = rejected(
                delivery, "trigger_disabled", now_ms=self.now_ms, status=DeliveryStatus.DISABLED
            )
            return self._end(tables, connection, trigger, SettledDelivery(delivery=ended))
        row = tables.find_automation(connection, self.tenant, delivery.automation_id)
        self._check_version(row)
        told = self._tell_waits(tables, connection, delivery)
        if told.woken:
            wait_id, change = told.woken[0]
            awake = woke(delivery, change.run.run_id, wait_id, now_ms=self.now_ms)
            settled = SettledDelivery(delivery=awake, woken=told.woken, refused=told.refused)
            return self._end(tables, connection, trigger, settled)
        refusal = _standing_refusal(row) or self.refusal or self._review(tables, connection)
        if refusal is not None:
            status = DeliveryStatus.FAILED if refusal.is_failure else DeliveryStatus.REJECTED
            ended = rejected(
                delivery,
                refusal.reason,
                now_ms=self.now_ms,
                status=status,
                detail=refusal.detail,
            )
            return self._end(tables, connection, trigger, SettledDelivery(delivery=ended))
        run = self.run
        assert run is not None
        run.run_no = tables.insert_run(connection, run, self.events, self.document)
        begun = started(delivery, run.run_id, now_ms=self.now_ms)
        return self._end(tables, connection, trigger, SettledDelivery(delivery=begun, run=run))

    def _check_version(self, row: StoredAutomation | None) -> None:
        if row is not None and not row.is_deleted and row.version != self.automation_version:
            raise ChangeRefused(
                f"automation {row.automation_id} has changed since it was read for this delivery"
            )

    def _tell_waits(
        self, tables: Tables, connection: apsw.Connection, delivery: Delivery
    ) -> Delivered:
        deliver = Deliver(
            self.tenant,
            self.signal,
            0,
            ChangeId(f"{self.change_id}-wait"),
            self.now_ms,
            delivery.received_at_ms,
        )
        return deliver.perform(tables, connection)

    def _review(self, tables: Tables, connection: apsw.Connection) -> RefusedRun | None:
        assert self.run is not None
        try:
            reviewing.refuse_creation(connection, tables.sql, self.run)
        except Refused as refused:
            return RefusedRun(reason=refused.code, detail=str(refused))
        return None

    def _end(
        self,
        tables: Tables,
        connection: apsw.Connection,
        trigger: WebhookTrigger | None,
        settled: SettledDelivery,
    ) -> SettledDelivery:
        delivery = _audited(tables, connection, settled.delivery, now_ms=self.now_ms)
        settled = msgspec.structs.replace(settled, delivery=delivery)
        values = (
            delivery.status.value,
            delivery.run_id,
            _text(delivery),
            delivery.delivery_id,
        )
        if not fetch(connection, tables.sql["settle_webhook_delivery"], values):
            raise ChangeRefused(f"delivery {delivery.delivery_id} is not open any more")
        if trigger is not None:
            before = DeliveryStatus.RECEIVED
            later = counted(trigger, delivery, before=before, now_ms=self.now_ms)
            _put_trigger(tables, connection, later)
        return settled

    def landed(
        self, tables: Tables, connection: apsw.Connection, result: SettledDelivery | None
    ) -> bool:
        """See `Write`."""
        if result is None:
            return False
        found = find_delivery(tables, connection, self.delivery_id, self.tenant)
        return found == result.delivery

    def receive(
        self, tables: Tables, connection: apsw.Connection, raw: bytes
    ) -> SettledDelivery | None:
        """See `Write`."""
        return unpack(raw, SettledDelivery | None)


class ForgetDeliveries(msgspec.Struct, frozen=True, tag=True):
    """Forget old deliveries; the result is how many."""

    payloads_before_ms: int
    rejected_before_ms: int
    payloads_max: int
    limit: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> int:
        """See `Write`."""
        sql = tables.sql
        old: list[dict[str, Any]] = []
        for is_believed, before_ms in ((0, self.rejected_before_ms), (1, self.payloads_before_ms)):
            values = (is_believed, before_ms, self.limit)
            old += fetch(connection, sql["list_old_webhook_deliveries"], values)
        for row in fetch(connection, sql["nth_newest_webhook_delivery"], (self.payloads_max,)):
            values = (1, row["received_at_ms"] + 1, self.limit)
            old += fetch(connection, sql["list_old_webhook_deliveries"], values)
        gone = {row["delivery_no"] for row in old if row["status"] != DeliveryStatus.RECEIVED}
        for number in sorted(gone):
            run_statement(connection, sql["remove_webhook_payload"], (number,))
            run_statement(connection, sql["remove_webhook_delivery"], (number,))
        return len(gone)

    def landed(self, tables: Tables, connection: apsw.Connection, result: int | None) -> bool:
        """See `Write`; forgetting again does no harm."""
        return False

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> int:
        """See `Write`."""
        return unpack(raw, int)


# Reading and writing rows


def _audited(
    tables: Tables, connection: apsw.Connection, delivery: Delivery, *, now_ms: int
) -> Delivery:
    """Record what became of a delivery where that is recorded, and return it with the record."""
    entry = delivery_entry(delivery, now_ms=now_ms)
    if entry is None:
        return delivery
    record = add_audit(tables, connection, entry)
    return msgspec.structs.replace(delivery, audit_event_id=audit_event_id(record.audit_no))


def find_trigger(
    tables: Tables, connection: apsw.Connection, trigger_id: str, tenant: TenantId
) -> WebhookTrigger | None:
    """Return a trigger, or None."""
    found = fetch(connection, tables.sql["find_webhook_trigger"], (trigger_id, tenant))
    return trigger_of(found[0]) if found else None


def get_trigger(
    tables: Tables,
    connection: apsw.Connection,
    trigger_id: str,
    tenant: TenantId,
    *,
    of: AutomationId | None = None,
) -> WebhookTrigger:
    """Return a trigger that has to be there, and to be of this automation.

    Raises:
        NotFound: it is not.
    """
    found = find_trigger(tables, connection, trigger_id, tenant)
    if found is None or of not in (None, found.automation_id):
        raise no_trigger(trigger_id)
    return found


def no_trigger(trigger_id: str) -> NotFound:
    """Return the error that says that there is no such trigger."""
    return NotFound(
        f"there is no webhook trigger {trigger_id}", code="AUTOMATION_WEBHOOK_TRIGGER_NOT_FOUND"
    )


def find_delivery(
    tables: Tables, connection: apsw.Connection, delivery_id: str, tenant: TenantId
) -> Delivery | None:
    """Return a delivery, or None."""
    found = fetch(connection, tables.sql["find_webhook_delivery"], (delivery_id, tenant))
    return delivery_of(found[0]) if found else None


def trigger_of(row: Mapping[str, Any]) -> WebhookTrigger:
    """Read the row of a trigger."""
    return msgspec.json.decode(row["trigger"], type=WebhookTrigger)


def delivery_of(row: Mapping[str, Any]) -> Delivery:
    """Read the row of a delivery; a duplicate names the run of the first one."""
    delivery = msgspec.json.decode(row["delivery"], type=Delivery)
    if delivery.duplicate_of_delivery_id is None or row["of_run"] is None:
        return delivery
    return msgspec.structs.replace(delivery, duplicate_of_run_id=RunId(row["of_run"]))


def stored_event_of(row: Mapping[str, Any]) -> StoredEvent:
    """Read the row of a delivery that was believed."""
    return StoredEvent(
        delivery=delivery_of(row),
        event=msgspec.json.decode(row["event"], type=RawEvent),
        is_available=bool(row["has_payload"]),
    )


def _text(record: WebhookTrigger | Delivery | RawEvent) -> str:
    return msgspec.json.encode(record).decode()


def _put_trigger(tables: Tables, connection: apsw.Connection, trigger: WebhookTrigger) -> None:
    values = (_text(trigger), trigger.trigger_id)
    run_statement(connection, tables.sql["put_webhook_trigger"], values)


def _put_secrets(tables: Tables, connection: apsw.Connection, change: TriggerChange) -> None:
    sql, trigger = tables.sql, change.trigger
    if change.forgets_secrets:
        past = trigger.secret_version + 1
        run_statement(connection, sql["remove_webhook_secrets"], (trigger.trigger_id, past))
    secret = change.secret
    if secret is None:
        return
    former = secret.version - 1
    kept_from = secret.version if change.former_until_ms is None else former
    run_statement(connection, sql["remove_webhook_secrets"], (trigger.trigger_id, kept_from))
    if change.former_until_ms is not None:
        values = (change.former_until_ms, trigger.trigger_id, former)
        run_statement(connection, sql["end_webhook_secret"], values)
    added = (trigger.trigger_id, secret.version, secret.sealed)
    run_statement(connection, sql["add_webhook_secret"], added)


def _known_claims(
    tables: Tables, connection: apsw.Connection, arrival: Arrival
) -> dict[str, KnownClaim]:
    if not arrival.claims:
        return {}
    delivery = arrival.delivery
    keys = msgspec.json.encode([claim.key for claim in arrival.claims]).decode()
    values = (delivery.tenant, delivery.trigger_id, keys)
    found = fetch(connection, tables.sql["find_webhook_claims"], values)
    return {row["key"]: msgspec.convert(row, KnownClaim) for row in found}


def _add_delivery(
    tables: Tables, connection: apsw.Connection, delivery: Delivery, event: RawEvent | None
) -> int:
    values = (
        delivery.delivery_id,
        delivery.event_id,
        delivery.tenant,
        delivery.trigger_id,
        delivery.automation_id,
        delivery.status.value,
        delivery.run_id,
        delivery.duplicate_of_delivery_id,
        delivery.is_authentic,
        delivery.received_at_ms,
        _text(delivery),
        None if event is None else _text(event),
    )
    (row,) = fetch(connection, tables.sql["add_webhook_delivery"], values)
    return int(row["delivery_no"])


def _standing_refusal(row: StoredAutomation | None) -> RefusedRun | None:
    if row is None or row.is_deleted:
        return RefusedRun(reason="automation_missing", is_failure=True)
    if row.status is not AutomationStatus.ACTIVE:
        return RefusedRun(reason="automation_inactive", detail=f"it is {row.status}")
    return None
