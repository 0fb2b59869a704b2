"""Webhook triggers from outside: keeping them, and judging what is delivered at them."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.errors import EngineError, InvalidRequest, NotFound, Refused
from tandem.domain.ids import AutomationId, TenantId
from tandem.domain.json import JsonValue, digest
from tandem.domain.webhook import (
    NOTION,
    SECRET_BYTES_MAX,
    TriggerPatch,
    TriggerSpec,
    WebhookTrigger,
    new_trigger,
)
from tandem.domain.webhook_audit import PROVIDER
from tandem.domain.webhook_delivery import (
    DELIVERY_PREFIX,
    EVENT_PREFIX,
    Arrival,
    Dedupe,
    Delivery,
    claims_of,
    event_id_of,
    feedback_of,
    not_believed,
    parse_body,
    preview_of,
    raw_event,
    record_id_of,
    rejected,
    sanitized,
    suppressed,
)
from tandem.domain.webhook_keeping import (
    BeginSetup,
    DisableTrigger,
    ImportSecret,
    PatchTrigger,
    RevealToken,
    RotateSecret,
    TakeToken,
    TriggerChange,
    TriggerCommand,
    begin_setup,
    first_secret,
    is_setup_open,
)
from tandem.domain.webhook_secret import new_secret
from tandem.domain.webhook_signature import Incoming, Terms, pretend_to_verify, verify
from tandem.engine.engine import Engine
from tandem.ports.clock import Clock
from tandem.ports.ids import Ids
from tandem.ports.store import Store
from tandem.ports.vault import Vault

TRIGGERS_MAX: Final = 1_000
"""So many triggers of an automation are listed."""
NONCE_BYTES: Final = 32
_DISABLED: Final = "trigger_disabled"


class WebhookPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How deliveries are judged."""

    tolerance_ms: int = 300_000
    unsigned_allowed: bool = False


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger, with what is told once only: its secret, or the nonce of its set-up."""

    trigger: WebhookTrigger
    secret: str = ""
    nonce: str = ""


class Reception(StrEnum):
    """What a sender is told."""

    ACCEPTED = "accepted"
    NOT_BELIEVED = "not_believed"
    DISABLED = "disabled"
    NOT_JSON = "not_json"
    VERIFICATION_PENDING = "verification_pending"


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender is told, and the delivery if there is one.

    `to_note` is one that nobody has to wait for: it is stored after the answer, so that the time
    of an answer does not tell what was wrong.
    """

    reception: Reception
    delivery: Delivery | None = None
    to_note: Arrival | None = None


class Webhooks:
    """Everything about webhooks, asked through one engine."""

    def __init__(
        self,
        engine: Engine,
        vault: Vault,
        *,
        clock: Clock,
        ids: Ids,
        policy: WebhookPolicy | None = None,
    ) -> None:
        self._engine = engine
        self._store: Store = engine.store
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._policy = policy or WebhookPolicy()

    # Keeping triggers

    async def create(
        self, automation_id: AutomationId, spec: TriggerSpec, *, tenant: TenantId, by: str = ""
    ) -> Made:
        """Make a trigger; its secret is told now and never again.

        The audit has who made it, as it has every change of a trigger.

        Raises:
            InvalidRequest: a field has a value that it may not have.
            NotFound: the automation is not there.
            StoreUnavailable: nothing was written.
        """
        now_ms = self._clock.now_ms()
        trigger = new_trigger(
            spec,
            tenant=tenant,
            automation_id=automation_id,
            trigger_id=f"whtr_{self._ids.new()}",
            public_path_token=f"whpub_{self._vault.draw(16).hex()}",
            now_ms=now_ms,
            unsigned_allowed=self._policy.unsigned_allowed,
        )
        secret = nonce = ""
        change = TriggerChange(trigger=trigger)
        if trigger.provider == NOTION:
            nonce = self._nonce()
            change = begin_setup(trigger, digest(nonce.encode()), now_ms=now_ms)
        elif trigger.has_secret_of_ours:
            secret = new_secret(trigger.signature_scheme, self._vault.draw)
            sealed = self._vault.seal(secret, context=trigger.trigger_id)
            change = first_secret(trigger, sealed, now_ms=now_ms)
        await self._store.create_trigger(change, by=by)
        return Made(trigger=change.trigger, secret=secret, nonce=nonce)

    def get(
        self, automation_id: AutomationId, trigger_id: str, *, tenant: TenantId
    ) -> WebhookTrigger:
        """Return a trigger of an automation.

        Raises:
            NotFound: there is no such trigger, or it is of another automation.
        """
        found = self._store.find_trigger(trigger_id, tenant=tenant)
        if found is None or found.automation_id != automation_id:
            raise NotFound(
                f"automation {automation_id} has no webhook trigger {trigger_id}",
                code="AUTOMATION_WEBHOOK_TRIGGER_NOT_FOUND",
            )
        return found

    def list(self, automation_id: AutomationId, *, tenant: TenantId) -> Sequence[WebhookTrigger]:
        """Return the triggers of an automation, newest first; at most 1,000."""
        return self._store.list_triggers(
            tenant=tenant, automation_id=automation_id, limit=TRIGGERS_MAX
        )

    async def patch(
        self,
        automation_id: AutomationId,
        trigger_id: str,
        patch: TriggerPatch,
        *,
        tenant: TenantId,
        by: str = "",
    ) -> WebhookTrigger:
        """Change fields of a trigger.

        Raises:
            InvalidRequest: a field has a value that it may not have.
            NotFound: there is no such trigger.
            StoreUnavailable: nothing was written.
        """
        command = PatchTrigger(patch, self._policy.unsigned_allowed)
        return await self._execute(automation_id, trigger_id, command, tenant, by=by)

    async def disable(
        self, automation_id: AutomationId, trigger_id: str, *, tenant: TenantId, by: str = ""
    ) -> WebhookTrigger:
        """Take no more deliveries at a trigger; again changes nothing.

        Raises:
            NotFound: there is no such trigger.
            StoreUnavailable: nothing was written.
        """
        return await self._execute(automation_id, trigger_id, DisableTrigger(), tenant, by=by)

    async def delete(
        self, automation_id: AutomationId, trigger_id: str, *, tenant: TenantId, by: str = ""
    ) -> None:
        """Delete a trigger.

        Raises:
            NotFound: there is no such trigger.
            StoreUnavailable: nothing was written.
        """
        await self._store.delete_trigger(
            trigger_id,
            tenant=tenant,
            automation_id=automation_id,
            now_ms=self._clock.now_ms(),
            by=by,
        )

    async def rotate(
        self,
        automation_id: AutomationId,
        trigger_id: str,
        *,
        tenant: TenantId,
        by: str,
        overlap_ms: int = 0,
    ) -> Made:
        """Give a trigger another secret, which is told now and never again.

        Args:
            automation_id: whose trigger it is.
            trigger_id: the trigger.
            tenant: whose automation it is.
            by: who asks.
            overlap_ms: so long the former secret stays valid beside the new one.

        Raises:
            InvalidRequest: its secret is made by its provider.
            NotFound: there is no such trigger.
            StoreUnavailable: nothing was written; the former secret is valid.
        """
        trigger = self.get(automation_id, trigger_id, tenant=tenant)
        secret = new_secret(trigger.signature_scheme, self._vault.draw)
        sealed = self._vault.seal(secret, context=trigger_id)
        command = RotateSecret(sealed, overlap_ms, by)
        rotated = await self._execute(automation_id, trigger_id, command, tenant, by=by)
        return Made(trigger=rotated, secret=secret)

    async def import_secret(
        self,
        automation_id: AutomationId,
        trigger_id: str,
        secret: str,
        *,
        tenant: TenantId,
        by: str = "",
    ) -> WebhookTrigger:
        """Take the secret that the provider of a trigger made.

        Raises:
            InvalidRequest: the secret is unusable, or the trigger has one of ours.
            NotFound: there is no such trigger.
            StoreUnavailable: nothing was written.
        """
        sealed = self._vault.seal(_usable(secret), context=trigger_id)
        return await self._execute(automation_id, trigger_id, ImportSecret(sealed), tenant, by=by)

    async def reset_verification(
        self, automation_id: AutomationId, trigger_id: str, *, tenant: TenantId, by: str = ""
    ) -> Made:
        """Forget the verification token of a trigger and let its provider hand over another one.

        Raises:
            InvalidRequest: its provider has no such tokens.
            NotFound: there is no such trigger.
            StoreUnavailable: nothing was written.
        """
        nonce = self._nonce()
        command = BeginSetup(digest(nonce.encode()))
        trigger = await self._execute(automation_id, trigger_id, command, tenant, by=by)
        return Made(trigger=trigger, nonce=nonce)

    async def reveal_token(
        self, automation_id: AutomationId, trigger_id: str, *, tenant: TenantId, by: str = ""
    ) -> Made:
        """Tell the verification token that the provider handed over, once.

        Raises:
            InvalidRequest: its provider has no such tokens.
            NotFound: there is no such trigger.
            Refused: none has come yet, or it was told before.
            StoreUnavailable: nothing was written.
        """
        now_ms = self._clock.now_ms()
        trigger = await self._execute(automation_id, trigger_id, RevealToken(), tenant, by=by)
        found = self._store.list_secrets(trigger_id, now_ms=now_ms)
        token = self._vault.unseal(found[0].sealed, context=trigger_id)
        return Made(trigger=trigger, secret=token)

    async def _execute(
        self,
        automation_id: AutomationId,
        trigger_id: str,
        command: TriggerCommand,
        tenant: TenantId,
        *,
        by: str,
    ) -> WebhookTrigger:
        return await self._store.execute_on_trigger(
            trigger_id,
            command,
            tenant=tenant,
            automation_id=automation_id,
            now_ms=self._clock.now_ms(),
            by=by,
        )

    def _nonce(self) -> str:
        return f"whsetup_{self._vault.draw(NONCE_BYTES).hex()}"

    # Deliveries

    def find_by_token(self, public_path_token: str) -> WebhookTrigger | None:
        """Return the trigger at an address, or None."""
        return self._store.find_trigger_by_token(public_path_token)

    async def receive(
        self, trigger: WebhookTrigger | None, incoming: Incoming, *, nonce: str = ""
    ) -> Received:
        """Judge a delivery; one whose sender is believed is on disk when this returns.

        Args:
            trigger: what is at the address, as `find_by_token` said.
            incoming: what came.
            nonce: the last part of the address, for a verification token.

        Raises:
            StoreUnavailable: nothing was written; the sender is to try again.
        """
        if trigger is None:
            pretend_to_verify(incoming.body)
            return Received(reception=Reception.NOT_BELIEVED)
        now_ms = self._clock.now_ms()
        if nonce:
            return await self._take_token(trigger, incoming, nonce, now_ms)
        if not trigger.enabled:
            return _refused(self._delivery(trigger, incoming, now_ms), _DISABLED)
        secrets = [
            self._vault.unseal(found.sealed, context=trigger.trigger_id)
            for found in self._store.list_secrets(trigger.trigger_id, now_ms=now_ms)
        ]
        terms = Terms(
            now_ms=now_ms,
            tolerance_ms=self._policy.tolerance_ms,
            unsigned_allowed=self._policy.unsigned_allowed,
        )
        reason = verify(trigger.signature_scheme, secrets, incoming, terms)
        if reason:
            return _refused(self._delivery(trigger, incoming, now_ms), reason)
        return await self._believe(trigger, incoming, now_ms)

    async def note(self, arrival: Arrival) -> None:
        """Store a delivery that led to nothing.

        Raises:
            NotFound: its trigger is gone since.
            StoreUnavailable: it was not written.
        """
        await self._store.receive(arrival)

    async def redeliver(
        self, automation_id: AutomationId, trigger_id: str, delivery_id: str, *, tenant: TenantId
    ) -> Delivery:
        """Send a delivery through again, as a new one that names it; its body may be a known one.

        Raises:
            NotFound: there is no such trigger or delivery.
            Refused: the trigger is disabled, or the body is not there: its sender was not believed,
                or it is too old.
            StoreUnavailable: nothing was written.
        """
        trigger = self.get(automation_id, trigger_id, tenant=tenant)
        former = self.get_delivery(automation_id, trigger_id, delivery_id, tenant=tenant)
        if not trigger.enabled:
            raise Refused(
                f"trigger {trigger_id} is disabled", code="AUTOMATION_WEBHOOK_TRIGGER_DISABLED"
            )
        event_id = former.event_id or ""
        event = self._store.find_event(event_id, tenant=tenant)
        payload = self._store.read_payload(event_id, tenant=tenant)
        if event is None or payload is None or former.rejection_reason_code == "invalid_json":
            raise Refused(
                f"delivery {delivery_id} has no body that could be sent through again",
                code="AUTOMATION_WEBHOOK_PAYLOAD_UNAVAILABLE",
            )
        now_ms = self._clock.now_ms()
        name = self._ids.new()
        key = f"trigger:{trigger_id}:redelivery:{delivery_id}:{name}"
        again = Delivery(
            delivery_id=f"{DELIVERY_PREFIX}{name}",
            event_id=f"{EVENT_PREFIX}{name}",
            tenant=tenant,
            trigger_id=trigger_id,
            automation_id=automation_id,
            provider_event_id=former.provider_event_id,
            body_digest=former.body_digest,
            idempotency_key=key,
            idempotency_record_id=record_id_of(tenant, key),
            dedupe_result=Dedupe.ACCEPTED,
            verification_scheme=former.verification_scheme,
            verification_provider=former.verification_provider,
            received_at_ms=now_ms,
            sanitized_preview=former.sanitized_preview,
            redelivery_of_delivery_id=delivery_id,
        )
        stored = await self._store.receive(
            Arrival(delivery=again, event=event.event, payload=payload)
        )
        self._engine.look_into_inbox()
        return stored

    def get_delivery(
        self, automation_id: AutomationId, trigger_id: str, delivery_id: str, *, tenant: TenantId
    ) -> Delivery:
        """Return a delivery at a trigger.

        Raises:
            NotFound: there is no such trigger or delivery.
        """
        self.get(automation_id, trigger_id, tenant=tenant)
        found = self._store.find_delivery(delivery_id, tenant=tenant)
        if found is None or found.trigger_id != trigger_id:
            raise NotFound(
                f"trigger {trigger_id} has no delivery {delivery_id}",
                code="AUTOMATION_WEBHOOK_DELIVERY_NOT_FOUND",
            )
        return found

    def _delivery(self, trigger: WebhookTrigger, incoming: Incoming, now_ms: int) -> Delivery:
        return Delivery(
            delivery_id=f"{DELIVERY_PREFIX}{self._ids.new()}",
            tenant=trigger.tenant,
            trigger_id=trigger.trigger_id,
            automation_id=trigger.automation_id,
            provider_event_id=event_id_of(trigger, incoming.headers),
            body_digest=digest(incoming.body),
            verification_scheme=trigger.signature_scheme,
            verification_provider=trigger.provider,
            received_at_ms=now_ms,
        )

    async def _believe(self, trigger: WebhookTrigger, incoming: Incoming, now_ms: int) -> Received:
        delivery = msgspec.structs.replace(
            self._delivery(trigger, incoming, now_ms), event_id=f"{EVENT_PREFIX}{self._ids.new()}"
        )
        event = raw_event(incoming.headers, incoming.body)
        try:
            payload = parse_body(incoming.body)
        except InvalidRequest as error:
            broken = rejected(delivery, error.code, now_ms=now_ms)
            arrival = Arrival(delivery=broken, event=event, payload=incoming.body)
            stored = await self._store.receive(arrival)
            return Received(reception=Reception.NOT_JSON, delivery=stored)
        preview = preview_of(sanitized(payload))
        delivery = msgspec.structs.replace(delivery, sanitized_preview=preview)
        stored = await self._store.receive(
            self._arrival(trigger, delivery, incoming, event_payload=payload)
        )
        if stored.is_open:
            self._engine.look_into_inbox()
        return Received(reception=Reception.ACCEPTED, delivery=stored)

    def _arrival(
        self,
        trigger: WebhookTrigger,
        delivery: Delivery,
        incoming: Incoming,
        *,
        event_payload: JsonValue,
    ) -> Arrival:
        event = raw_event(incoming.headers, incoming.body)
        feedback = feedback_of(trigger.signature_scheme, incoming.headers, event_payload)
        if feedback is not None and not feedback["allowed"]:
            quiet = suppressed(delivery, feedback)
            return Arrival(delivery=quiet, event=event, payload=incoming.body)
        delivery = msgspec.structs.replace(delivery, feedback_loop=feedback)
        claims = claims_of(trigger.trigger_id, delivery.provider_event_id, delivery.body_digest)
        return Arrival(delivery=delivery, claims=claims, event=event, payload=incoming.body)

    async def _take_token(
        self, trigger: WebhookTrigger, incoming: Incoming, nonce: str, now_ms: int
    ) -> Received:
        """Take the verification token that a provider hands over (http-api 3.10, step 4)."""
        setup_digest = digest(nonce.encode())
        token = _token_in(incoming.body)
        if not token or not is_setup_open(trigger, setup_digest, now_ms=now_ms):
            pretend_to_verify(incoming.body)
            return Received(reception=Reception.NOT_BELIEVED)
        sealed = self._vault.seal(token, context=trigger.trigger_id)
        try:
            await self._execute(
                trigger.automation_id,
                trigger.trigger_id,
                TakeToken(setup_digest, sealed),
                trigger.tenant,
                by=PROVIDER,
            )
        except (Refused, NotFound):
            return Received(reception=Reception.NOT_BELIEVED)  # another one was first
        return Received(reception=Reception.VERIFICATION_PENDING)


def _refused(delivery: Delivery, reason: str) -> Received:
    told = Reception.DISABLED if reason == _DISABLED else Reception.NOT_BELIEVED
    return Received(reception=told, to_note=Arrival(delivery=not_believed(delivery, reason)))


def _token_in(body: bytes) -> str:
    try:
        payload = parse_body(body)
        token = payload.get("verification_token") if isinstance(payload, Mapping) else None
        return _usable(token) if isinstance(token, str) else ""
    except EngineError:
        return ""


def _usable(secret: str) -> str:
    """Return a secret that came from elsewhere.

    Raises:
        InvalidRequest: it is empty, too long or has characters that no secret has.
    """
    text = secret.strip()
    if not 1 <= len(text) <= SECRET_BYTES_MAX or not (text.isascii() and text.isprintable()):
        raise InvalidRequest(f"a secret has 1 to {SECRET_BYTES_MAX} plain characters")
    return text
