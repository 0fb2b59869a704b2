"""The inbox: deliveries at webhooks that are stored become woken waits or new runs.

Any engine may take any of them; what a delivery leads to is written in one transaction with its
own end, so two engines or a crash make no second run (decision 24).
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from tandem.domain.automation import Automation, AutomationStatus, parse_document
from tandem.domain.change import Change
from tandem.domain.creation import NewRun
from tandem.domain.errors import ChangeRefused, EngineError, StoreError, StoreUnavailable
from tandem.domain.ids import ChangeId, DefinitionDigest, RunId, TenantId
from tandem.domain.inputs import declares
from tandem.domain.json import JsonObject, JsonValue
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.trigger import TriggerType
from tandem.domain.webhook import WebhookTrigger
from tandem.domain.webhook_delivery import (
    Delivery,
    input_of,
    parse_body,
    run_id_of,
    sanitized,
    scope_refusal,
    signal_of,
    trigger_context_of,
    trigger_reason_of,
)
from tandem.ports.clock import Clock
from tandem.ports.store import Store
from tandem.ports.webhooks import RefusedRun, SettledDelivery, Settling

BATCH: Final = 50
TRIES: Final = 3
"""So often a delivery is looked at again at once when its automation changes meanwhile."""
DEFINITIONS_KEPT: Final = 64
INPUT: Final = "webhook"
"""The input that an automation declares to be given the payload."""
DAY_MS: Final = 86_400_000
PAYLOADS_KEPT_MS: Final = 30 * DAY_MS
REJECTIONS_KEPT_MS: Final = DAY_MS
PAYLOADS_MAX: Final = 50_000
FORGET_EVERY_MS: Final = 60_000
FORGOTTEN_AT_ONCE: Final = 100


class Prepare(Protocol):
    """Makes a run that is not stored yet; see `Engine.prepare`."""

    def __call__(
        self,
        automation: Automation,
        inputs: JsonObject | None = None,
        *,
        run_id: RunId | None = None,
        tenant: TenantId = ...,
        trigger_type: str = ...,
        trigger_reason: str = ...,
        trigger_context: JsonObject | None = None,
        stored_version: int | None = None,
        started_by: str = ...,
    ) -> NewRun: ...


class Inbox:
    """Takes deliveries in the order of their arrival.

    `is_due` says that there may be some; without it nothing is asked of the store.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        new_change_id: Callable[[], ChangeId],
        prepare: Prepare,
        written: Callable[[Sequence[Change]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_change_id = new_change_id
        self._prepare = prepare
        self._written = written
        self._definitions: dict[tuple[TenantId, DefinitionDigest], Automation] = {}
        self._forget_at_ms = 0
        self.is_due = True

    async def take(self) -> int:
        """Let up to 50 deliveries become what they lead to; return how many did.

        Raises:
            StoreUnavailable: the rest is taken later.
        """
        if not self.is_due:
            return 0
        self.is_due = False  # before looking: what comes meanwhile says so again
        try:
            found = self._store.list_open_deliveries(limit=BATCH)
            taken = 0
            for tenant, delivery_id in found:
                settled = await self._take_one(tenant, delivery_id)
                if settled is not None:
                    taken += 1
                    await self._written([change for _, change in settled.woken])
        except EngineError:
            self.is_due = True
            raise
        if taken == BATCH:
            self.is_due = True
        return taken

    async def _take_one(self, tenant: TenantId, delivery_id: str) -> SettledDelivery | None:
        for _ in range(TRIES):
            delivery = self._store.find_delivery(delivery_id, tenant=tenant)
            if delivery is None or not delivery.is_open:
                return None
            # Another version may have been saved since the automation was read.
            with suppress(ChangeRefused):
                return await self._store.settle_delivery(
                    delivery_id,
                    self._settling(delivery),
                    tenant=tenant,
                    change_id=self._new_change_id(),
                    now_ms=self._clock.now_ms(),
                )
        return None

    def _settling(self, delivery: Delivery) -> Settling:
        tenant = delivery.tenant
        trigger = self._store.find_trigger(delivery.trigger_id, tenant=tenant)
        row = self._store.find_automation(delivery.automation_id, tenant=tenant)
        raw = self._store.read_payload(delivery.event_id or "", tenant=tenant)
        clean = None if raw is None else sanitized(parse_body(raw))
        kind = None if trigger is None else trigger.provider_event_kind
        signal = signal_of(delivery, clean, event_kind=kind)
        if trigger is None or row is None or row.is_deleted:
            refusal = RefusedRun(reason="automation_missing", is_failure=True)
            return Settling(signal=signal, automation_version=None, refusal=refusal)
        if row.status is not AutomationStatus.ACTIVE:
            refusal = RefusedRun(reason="automation_inactive")
            return Settling(signal=signal, automation_version=row.version, refusal=refusal)
        made = self._run(trigger, delivery, row, clean)
        run, refused = (made, None) if isinstance(made, NewRun) else (None, made)
        return Settling(signal=signal, automation_version=row.version, run=run, refusal=refused)

    def _run(
        self,
        trigger: WebhookTrigger,
        delivery: Delivery,
        row: StoredAutomation,
        clean: JsonValue,
    ) -> NewRun | RefusedRun:
        try:
            automation = self._definition(row)
            outside = scope_refusal(trigger, automation.metadata)
            if outside:
                return RefusedRun(reason=outside)
            inputs = {}
            if declares(automation.inputs, INPUT):
                inputs[INPUT] = input_of(trigger, delivery, clean)
            return self._prepare(
                automation,
                inputs,
                run_id=run_id_of(delivery),
                tenant=delivery.tenant,
                trigger_type=TriggerType.WEBHOOK,
                trigger_reason=trigger_reason_of(delivery),
                trigger_context=trigger_context_of(trigger, delivery),
                stored_version=row.version,
                started_by=f"webhook {trigger.trigger_id}",
            )
        except StoreUnavailable:
            raise
        except EngineError as error:
            return RefusedRun(reason="run_not_creatable", detail=str(error), is_failure=True)

    def _definition(self, row: StoredAutomation) -> Automation:
        name = (row.tenant, row.definition_digest)
        known = self._definitions.get(name)
        if known is not None:
            return known
        document = self._store.automation_document(row, row.version)
        try:
            automation = parse_document(document)
        except ValueError as error:  # what pydantic raises
            raise StoreError(
                f"version {row.version} of automation {row.automation_id} cannot be read: {error}",
                code="definition_unreadable",
            ) from error
        if len(self._definitions) >= DEFINITIONS_KEPT:
            self._definitions.clear()
        self._definitions[name] = automation
        return automation

    async def forget(self) -> None:
        """Forget what is old; while there is more, again with the next call."""
        now_ms = self._clock.now_ms()
        if now_ms < self._forget_at_ms:
            return
        gone = await self._store.forget_deliveries(
            payloads_before_ms=now_ms - PAYLOADS_KEPT_MS,
            rejected_before_ms=now_ms - REJECTIONS_KEPT_MS,
            payloads_max=PAYLOADS_MAX,
            limit=FORGOTTEN_AT_ONCE,
        )
        if gone < FORGOTTEN_AT_ONCE:
            self._forget_at_ms = now_ms + FORGET_EVERY_MS
