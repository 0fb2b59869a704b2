"""What the store keeps of webhooks: triggers, their sealed secrets, deliveries, raw events."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tandem.domain.change import Change
from tandem.domain.creation import NewRun
from tandem.domain.ids import AutomationId, ChangeId, RunId, TenantId, WaitId
from tandem.domain.run import Run
from tandem.domain.signal import Signal
from tandem.domain.webhook import DeliveryStatus, WebhookTrigger
from tandem.domain.webhook_delivery import Arrival, Delivery, RawEvent
from tandem.domain.webhook_keeping import SealedSecret, TriggerChange, TriggerCommand


class RefusedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Why a delivery cannot become a run, as its automation stands."""

    reason: str
    detail: str = ""
    is_failure: bool = False


class Settling(msgspec.Struct, frozen=True, kw_only=True):
    """What an open delivery is to become, as its automation was read: a run, or a refusal.

    `signal` is told to the waits first; a run is created only when none of them wants it.
    `automation_version` is the version that was read, None when there was none to be run.
    """

    signal: Signal
    automation_version: int | None
    run: NewRun | None = None
    refusal: RefusedRun | None = None


class SettledDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """What a delivery has become, with the run that was created and the waits that were woken."""

    delivery: Delivery
    run: Run | None = None
    woken: tuple[tuple[WaitId, Change], ...] = ()
    refused: tuple[tuple[WaitId, str], ...] = ()


class DeliveryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which deliveries a list shows, newest first; with `raw_only` those whose payload was kept.

    `before` names a delivery: only older ones, and none once that is forgotten.
    """

    tenant: TenantId
    trigger_id: str | None = None
    automation_id: AutomationId | None = None
    run_id: RunId | None = None
    status: DeliveryStatus | None = None
    raw_only: bool = False
    limit: int = 50
    before: str | None = None


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A raw event and its delivery; `is_available` says that its payload is still there."""

    delivery: Delivery
    event: RawEvent
    is_available: bool


class WebhookStore(Protocol):
    """Rows of webhooks. Every write is one transaction, like those of the runs."""

    async def create_trigger(self, change: TriggerChange, *, by: str = "") -> None:
        """Write a new trigger, and its first secret if it has one; the audit has who made it.

        Raises:
            NotFound: its automation is not there.
            StoreUnavailable: nothing was written.
        """
        ...

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
        """Lock a trigger, load it, decide, write; return it. The audit has what changed, and `by`.

        Raises:
            NotFound: no such trigger of this automation for this tenant.
            InvalidRequest: the trigger is of another kind.
            Refused: its state does not allow it.
            StoreUnavailable: nothing was written.
        """
        ...

    async def delete_trigger(
        self,
        trigger_id: str,
        *,
        tenant: TenantId,
        automation_id: AutomationId,
        now_ms: int,
        by: str = "",
    ) -> None:
        """Delete a trigger with its secrets and idempotency keys; its deliveries grow old.

        The audit has who did.

        Raises:
            NotFound: no such trigger of this automation for this tenant.
            StoreUnavailable: nothing was written.
        """
        ...

    def find_trigger(self, trigger_id: str, *, tenant: TenantId) -> WebhookTrigger | None:
        """Return a trigger, or None."""
        ...

    def find_trigger_by_token(self, public_path_token: str) -> WebhookTrigger | None:
        """Return the trigger of any tenant that has this address, or None."""
        ...

    def list_triggers(
        self, *, tenant: TenantId, automation_id: AutomationId, limit: int
    ) -> Sequence[WebhookTrigger]:
        """Return the triggers of an automation, newest first."""
        ...

    def list_secrets(self, trigger_id: str, *, now_ms: int) -> Sequence[SealedSecret]:
        """Return the secrets of a trigger that are valid now, newest first."""
        ...

    async def receive(self, arrival: Arrival) -> Delivery:
        """Store a delivery and claim its idempotency keys; return it with the verdict.

        A delivery whose key is taken is stored as what it is, and leads to nothing. Of each key
        only one delivery ever is `received`. The same delivery again changes nothing.

        Raises:
            NotFound: the trigger is gone.
            StoreUnavailable: nothing was written.
        """
        ...

    def list_open_deliveries(self, *, limit: int) -> Sequence[tuple[TenantId, str]]:
        """Return deliveries that still have to become something, oldest first."""
        ...

    async def settle_delivery(
        self,
        delivery_id: str,
        settling: Settling,
        *,
        tenant: TenantId,
        change_id: ChangeId,
        now_ms: int,
    ) -> SettledDelivery | None:
        """Let an open delivery wake waits or become a run; None when it is not open any more.

        The run, the waits and the delivery are one transaction: however often this is tried, and
        by however many engines, one run is created at most.

        Raises:
            ChangeRefused: the automation has changed since it was read; nothing was written.
            StoreUnavailable: nothing was written.
        """
        ...

    def find_delivery(self, delivery_id: str, *, tenant: TenantId) -> Delivery | None:
        """Return a delivery, or None."""
        ...

    def list_deliveries(self, chosen: DeliveryFilter) -> Sequence[Delivery]:
        """Return deliveries, newest first."""
        ...

    def find_event(self, event_id: str, *, tenant: TenantId) -> StoredEvent | None:
        """Return a raw event, or None."""
        ...

    def list_webhook_events(self, chosen: DeliveryFilter) -> Sequence[StoredEvent]:
        """Return raw events, newest first."""
        ...

    def read_payload(self, event_id: str, *, tenant: TenantId) -> bytes | None:
        """Return the body of a raw event, or None when it is gone."""
        ...

    async def forget_deliveries(
        self, *, payloads_before_ms: int, rejected_before_ms: int, payloads_max: int, limit: int
    ) -> int:
        """Forget old deliveries, the oldest first; return how many.

        Believed ones go with their payloads, at that age or when there are more than
        `payloads_max`; those whose sender was not believed go sooner. None goes that is open.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...
