"""The store of webhooks, on the tables of one SQLite file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from tandem.adapters.sqlite import webhooks
from tandem.adapters.sqlite.tables import Found, Tables
from tandem.adapters.sqlite.writer import Writer
from tandem.domain.creation import create
from tandem.domain.ids import AutomationId, ChangeId, TenantId
from tandem.domain.webhook import WebhookTrigger
from tandem.domain.webhook_delivery import Arrival, Delivery
from tandem.domain.webhook_keeping import SealedSecret, TriggerChange, TriggerCommand
from tandem.ports.webhooks import DeliveryFilter, SettledDelivery, Settling, StoredEvent

_NUMBER_MAX = 2**62


class Hooks(ABC):
    """What `ports.webhooks.WebhookStore` promises; the store of the runs is made of it, too."""

    _tables: Tables
    _writer: Writer

    @abstractmethod
    def _find(self, name: str, *values: object) -> Found: ...

    # Triggers

    async def create_trigger(self, change: TriggerChange, *, by: str = "") -> None:
        """See `WebhookStore.create_trigger`."""
        await self._writer.submit(webhooks.CreateTrigger(change, by))

    async def execute_on_trigger(
        self,
        trigger_id: str,
        command: TriggerCommand,
        *,
        tenant: TenantId,
        automation_id: AutomationId,
        now_ms: int,
        by: str = "",
    ) -> WebhookTrigger:
        """See `WebhookStore.execute_on_trigger`."""
        return await self._writer.submit(
            webhooks.ExecuteOnTrigger(tenant, automation_id, trigger_id, command, now_ms, by)
        )

    async def delete_trigger(
        self,
        trigger_id: str,
        *,
        tenant: TenantId,
        automation_id: AutomationId,
        now_ms: int,
        by: str = "",
    ) -> None:
        """See `WebhookStore.delete_trigger`."""
        await self._writer.submit(
            webhooks.DeleteTrigger(tenant, automation_id, trigger_id, now_ms, by)
        )

    def find_trigger(self, trigger_id: str, *, tenant: TenantId) -> WebhookTrigger | None:
        """See `WebhookStore.find_trigger`."""
        found = self._find("find_webhook_trigger", trigger_id, tenant)
        return webhooks.trigger_of(found[0]) if found else None

    def find_trigger_by_token(self, public_path_token: str) -> WebhookTrigger | None:
        """See `WebhookStore.find_trigger_by_token`."""
        found = self._find("find_webhook_trigger_by_token", public_path_token)
        return webhooks.trigger_of(found[0]) if found else None

    def list_triggers(
        self, *, tenant: TenantId, automation_id: AutomationId, limit: int
    ) -> Sequence[WebhookTrigger]:
        """See `WebhookStore.list_triggers`."""
        found = self._find("list_webhook_triggers", tenant, automation_id, limit)
        return [webhooks.trigger_of(row) for row in found]

    def list_secrets(self, trigger_id: str, *, now_ms: int) -> Sequence[SealedSecret]:
        """See `WebhookStore.list_secrets`."""
        found = self._find("list_webhook_secrets", trigger_id, now_ms)
        return [msgspec.convert(row, SealedSecret) for row in found]

    # Deliveries

    async def receive(self, arrival: Arrival) -> Delivery:
        """See `WebhookStore.receive`."""
        return await self._writer.submit(webhooks.Receive(arrival))

    def list_open_deliveries(self, *, limit: int) -> Sequence[tuple[TenantId, str]]:
        """See `WebhookStore.list_open_deliveries`."""
        found = self._find("list_open_webhook_deliveries", 0, limit)
        return [(TenantId(row["tenant"]), row["delivery_id"]) for row in found]

    async def settle_delivery(
        self,
        delivery_id: str,
        settling: Settling,
        *,
        tenant: TenantId,
        change_id: ChangeId,
        now_ms: int,
    ) -> SettledDelivery | None:
        """See `WebhookStore.settle_delivery`."""
        new = settling.run
        run, events = (None, ()) if new is None else create(new, now_ms=now_ms)
        if new is not None:
            self._tables.remember(tenant, new.plan)
        return await self._writer.submit(
            webhooks.SettleDelivery(
                tenant,
                delivery_id,
                settling.signal,
                settling.automation_version,
                change_id,
                now_ms,
                run,
                events,
                b"" if new is None else new.document,
                settling.refusal,
            )
        )

    def find_delivery(self, delivery_id: str, *, tenant: TenantId) -> Delivery | None:
        """See `WebhookStore.find_delivery`."""
        found = self._find("find_webhook_delivery", delivery_id, tenant)
        return webhooks.delivery_of(found[0]) if found else None

    def list_deliveries(self, chosen: DeliveryFilter) -> Sequence[Delivery]:
        """See `WebhookStore.list_deliveries`."""
        return [webhooks.delivery_of(row) for row in self._chosen(chosen)]

    def find_event(self, event_id: str, *, tenant: TenantId) -> StoredEvent | None:
        """See `WebhookStore.find_event`."""
        found = self._find("find_webhook_event", event_id, tenant)
        return webhooks.stored_event_of(found[0]) if found else None

    def list_webhook_events(self, chosen: DeliveryFilter) -> Sequence[StoredEvent]:
        """See `WebhookStore.list_webhook_events`."""
        raw = msgspec.structs.replace(chosen, raw_only=True)
        return [webhooks.stored_event_of(row) for row in self._chosen(raw)]

    def read_payload(self, event_id: str, *, tenant: TenantId) -> bytes | None:
        """See `WebhookStore.read_payload`."""
        found = self._find("read_webhook_payload", event_id, tenant)
        return bytes(found[0]["payload"]) if found else None

    async def forget_deliveries(
        self, *, payloads_before_ms: int, rejected_before_ms: int, payloads_max: int, limit: int
    ) -> int:
        """See `WebhookStore.forget_deliveries`."""
        write = webhooks.ForgetDeliveries(
            payloads_before_ms, rejected_before_ms, payloads_max, limit
        )
        if not any(
            (
                self._find("list_old_webhook_deliveries", 0, rejected_before_ms, 1),
                self._find("list_old_webhook_deliveries", 1, payloads_before_ms, 1),
                self._find("nth_newest_webhook_delivery", payloads_max),
            )
        ):
            return 0  # without a transaction: there is nothing most of the time
        return await self._writer.submit(write)

    def _chosen(self, chosen: DeliveryFilter) -> Found:
        """Return rows by the narrowest of what is asked for; the others are left out after that."""
        status = chosen.status.value if chosen.status is not None else ""
        raw_only = chosen.raw_only or chosen.run_id is not None
        before_no = _NUMBER_MAX
        if chosen.before is not None:
            place = self._find("find_webhook_delivery_no", chosen.before, chosen.tenant)
            if not place:
                return []
            before_no = place[0]["delivery_no"]
        tail = (status, raw_only, before_no, chosen.limit)
        of_tenant = (chosen.tenant, *tail)
        if chosen.run_id is not None:
            of = (chosen.tenant, chosen.run_id, *tail)
            return self._find("list_webhook_deliveries_of_run", *of)
        if chosen.trigger_id is not None:
            return self._find("list_webhook_deliveries_of_trigger", chosen.trigger_id, *of_tenant)
        if chosen.automation_id is not None:
            return self._find(
                "list_webhook_deliveries_of_automation", chosen.tenant, chosen.automation_id, *tail
            )
        return self._find("list_webhook_deliveries_of_tenant", *of_tenant)
