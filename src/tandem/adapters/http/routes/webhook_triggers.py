"""Webhook triggers of automations, what came at them, and sending it through again (http-api 3.9).

Secrets are told once, when they are made.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue
from starlette.responses import Response

from tandem.adapters.http.bodies import Body, flag, whole
from tandem.adapters.http.call import Call, Endpoint, Parameter, answer
from tandem.adapters.http.errors import HttpError
from tandem.domain.caller import Scope
from tandem.domain.errors import InvalidRequest, NotFound
from tandem.domain.ids import AutomationId, RunId
from tandem.domain.spelling import doubled
from tandem.domain.webhook import DeliveryStatus, TriggerPatch, TriggerSpec
from tandem.domain.webhook_delivery import (
    delivery_document,
    event_document,
    parse_body,
    statuses_of,
)
from tandem.domain.webhook_keeping import overlap_ms_of
from tandem.domain.webhook_view import PROXY_PREFIX, callback_path, trigger_document
from tandem.engine.webhooks import Made
from tandem.ports.webhooks import DeliveryFilter, StoredEvent

_HOST: Final = re.compile(
    r"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?"
)
_SCHEMES: Final = ("http", "https")
EVENTS_MAX: Final = 200


class WebhookTriggerCreate(Body):
    """A new trigger."""

    provider: str
    name: str | None = None
    provider_event_kind: str | None = None
    signature_scheme: str | None = None
    enabled: bool | None = None
    owning_org_unit_id: str | None = None
    resource_scope: dict[str, JsonValue] | None = None
    default_data_class: str | None = None
    default_risk_tier: str | None = None


class WebhookTriggerUpdate(Body):
    """What is to be changed of a trigger; null clears where a field may be empty."""

    name: str | None = None
    provider: str | None = None
    provider_event_kind: str | None = None
    signature_scheme: str | None = None
    default_data_class: str | None = None
    default_risk_tier: str | None = None
    enabled: bool | None = None


class WebhookSecretRotate(Body):
    """How long the former secret stays valid beside the new one."""

    overlap_seconds: int = 0


class WebhookSecretImport(Body):
    """The secret that a provider made."""

    secret: str


# Triggers


async def list_triggers(call: Call) -> Response:
    """List the triggers of an automation, newest first."""
    found = call.service.webhooks.list(_automation(call), tenant=call.tenant)
    base = _base_url(call)
    triggers = [trigger_document(trigger, base_url=base) for trigger in found]
    return answer({"triggers": triggers, "count": len(triggers)})


async def create(call: Call) -> Response:
    """Make a trigger and tell its secret, once."""
    automation_id = _automation(call)
    given = await call.body(WebhookTriggerCreate)
    fields = given.model_dump(exclude_none=True)
    made = await call.service.webhooks.create(
        automation_id, TriggerSpec(**fields), tenant=call.tenant
    )
    return _tell_made(call, made)


async def get(call: Call) -> Response:
    """Tell a trigger."""
    trigger = call.service.webhooks.get(*_named(call), tenant=call.tenant)
    return answer({"trigger": trigger_document(trigger, base_url=_base_url(call))})


async def update(call: Call) -> Response:
    """Change fields of a trigger."""
    named = _named(call)
    given = await call.body(WebhookTriggerUpdate)
    patch = TriggerPatch(**given.model_dump(include=given.model_fields_set))
    trigger = await call.service.webhooks.patch(*named, patch, tenant=call.tenant)
    return answer({"trigger": trigger_document(trigger, base_url=_base_url(call))})


async def disable(call: Call) -> Response:
    """Take no more deliveries."""
    trigger = await call.service.webhooks.disable(*_named(call), tenant=call.tenant)
    return answer({"ok": True, "trigger": trigger_document(trigger, base_url=_base_url(call))})


async def delete(call: Call) -> Response:
    """Delete a trigger."""
    automation_id, trigger_id = _named(call)
    await call.service.webhooks.delete(automation_id, trigger_id, tenant=call.tenant)
    return answer({"ok": True, "deleted": True, **doubled({"trigger_id": trigger_id})})


async def rotate_secret(call: Call) -> Response:
    """Give a trigger another secret and tell it, once."""
    named = _named(call)
    given = WebhookSecretRotate()
    if (await call.request.body()).strip():
        given = await call.body(WebhookSecretRotate)
    made = await call.service.webhooks.rotate(
        *named,
        tenant=call.tenant,
        by=call.caller.name,
        overlap_ms=overlap_ms_of(given.overlap_seconds),
    )
    return _tell_made(call, made)


async def import_secret(call: Call) -> Response:
    """Take the secret that the provider made."""
    named = _named(call)
    given = await call.body(WebhookSecretImport)
    trigger = await call.service.webhooks.import_secret(*named, given.secret, tenant=call.tenant)
    return answer({"ok": True, "trigger": trigger_document(trigger, base_url=_base_url(call))})


async def reveal_token(call: Call) -> Response:
    """Tell the verification token that the provider handed over, once."""
    made = await call.service.webhooks.reveal_token(*_named(call), tenant=call.tenant)
    told = doubled({"verification_token": made.secret, "token_one_time": True})
    shown = trigger_document(made.trigger, base_url=_base_url(call))
    return answer({**told, "trigger": shown})


async def reset_verification(call: Call) -> Response:
    """Let the provider hand over another verification token."""
    made = await call.service.webhooks.reset_verification(*_named(call), tenant=call.tenant)
    shown = trigger_document(made.trigger, base_url=_base_url(call))
    return answer({"trigger": shown, **_setup(call, made), **doubled({"setup_one_time": True})})


def _automation(call: Call) -> AutomationId:
    """Return the automation that the path names, which has to be there."""
    automation_id = AutomationId(call.path("automation_id"))
    call.service.automations(call.tenant).get(automation_id)
    return automation_id


def _named(call: Call) -> tuple[AutomationId, str]:
    return _automation(call), call.path("trigger_id")


def _tell_made(call: Call, made: Made) -> Response:
    document: dict[str, Any] = {"trigger": trigger_document(made.trigger, base_url=_base_url(call))}
    if made.secret:
        document |= doubled({"new_secret": made.secret, "secret_one_time": True})
    else:
        document |= doubled({"secret_one_time": False, "verification_pending": True})
    if made.nonce:
        document |= _setup(call, made)
    return answer(document)


def _setup(call: Call, made: Made) -> dict[str, Any]:
    path = callback_path(made.trigger, nonce=made.nonce)
    return doubled(
        {
            "setup_callback_path": path,
            "setup_callback_url": f"{_base_url(call)}{path}",
            "setup_expires_at_ms": made.trigger.setup_expires_at_ms,
        }
    )


def _base_url(call: Call) -> str:
    """Return where the sender reaches this server, as a proxy in front of it says (3.9)."""
    headers = call.request.headers
    host = headers.get("x-forwarded-host", "").partition(",")[0].strip() or headers.get("host", "")
    if not _HOST.fullmatch(host):
        return ""
    scheme = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    prefix = headers.get("x-forwarded-prefix", "").strip().rstrip("/")
    known = prefix if prefix == PROXY_PREFIX else ""
    return f"{scheme if scheme in _SCHEMES else 'http'}://{host}{known}"


# Deliveries


async def list_deliveries(call: Call) -> Response:
    """List what came at a trigger, newest first."""
    automation_id, trigger_id = _named(call)
    call.service.webhooks.get(automation_id, trigger_id, tenant=call.tenant)
    limit = whole(call.query, "limit", default=50, lowest=1, highest=100)
    chosen = DeliveryFilter(tenant=call.tenant, trigger_id=trigger_id, limit=limit)
    found = [delivery_document(one) for one in call.service.store.list_deliveries(chosen)]
    return answer({"deliveries": found, "count": len(found), "limit": limit})


async def get_delivery(call: Call) -> Response:
    """Tell a delivery."""
    found = call.service.webhooks.get_delivery(
        *_named(call), call.path("delivery_id"), tenant=call.tenant
    )
    return answer({"delivery": delivery_document(found)})


async def redeliver(call: Call) -> Response:
    """Send a delivery through again."""
    again = await call.service.webhooks.redeliver(
        *_named(call), call.path("delivery_id"), tenant=call.tenant
    )
    return answer({"ok": True, "delivery": delivery_document(again)})


# Raw events


async def list_events(call: Call) -> Response:
    """List what came and was believed, with what is known of it, newest first."""
    query = call.query
    limit = whole(query, "limit", default=50, lowest=1, highest=EVENTS_MAX)
    automation_id = query.get("automation_id") or query.get("automationID")
    chosen = DeliveryFilter(
        tenant=call.tenant,
        trigger_id=query.get("trigger_id") or query.get("triggerID"),
        automation_id=AutomationId(automation_id) if automation_id else None,
        status=_status(query),
        limit=limit if call.sight.is_whole else EVENTS_MAX,
    )
    return answer({**_events(call, chosen, limit), "limit": limit})


async def list_events_of_run(call: Call) -> Response:
    """List what started or woke a run, newest first."""
    run_id = RunId(call.path("run_id"))
    if call.service.store.find_run(run_id, tenant=call.tenant) is None:
        raise NotFound(f"there is no run {run_id}", code="AUTOMATION_V2_RUN_NOT_FOUND")
    limit = whole(call.query, "limit", default=50, lowest=1, highest=EVENTS_MAX)
    chosen = DeliveryFilter(tenant=call.tenant, run_id=run_id, limit=limit)
    return answer({**_events(call, chosen, limit), "limit": limit, **doubled({"run_id": run_id})})


def _events(call: Call, chosen: DeliveryFilter, limit: int) -> dict[str, Any]:
    found = [
        _event(one)
        for one in call.service.store.list_webhook_events(chosen)
        if call.sight.sees(one.delivery.automation_id)
    ][:limit]
    return {"events": found, "count": len(found)}


def _event(stored: StoredEvent, payload: JsonValue = None) -> dict[str, Any]:
    return event_document(
        stored.delivery, stored.event, is_available=stored.is_available, payload=payload
    )


async def get_event(call: Call) -> Response:
    """Tell a raw event; its payload, which may hold secrets, only to editors who ask for it."""
    event_id = call.path("event_id")
    stored = call.service.store.find_event(event_id, tenant=call.tenant)
    if stored is None or not call.sight.sees(stored.delivery.automation_id):
        raise NotFound(
            f"there is no webhook event {event_id[:100]}",
            code="AUTOMATION_WEBHOOK_EVENT_NOT_FOUND",
        )
    if not (flag(call.query, "include_payload") or flag(call.query, "includePayload")):
        return answer({"event": _event(stored)})
    if not call.caller.may(Scope.EDITOR):
        raise HttpError(
            "SCOPE_DENIED",
            "the payload may hold secrets; it needs the scope `editor`",
            details={"scope": Scope.EDITOR},
        )
    raw = call.service.store.read_payload(event_id, tenant=call.tenant)
    return answer({"event": _event(stored, None if raw is None else _readable(raw))})


def _readable(raw: bytes) -> Any:
    try:
        return parse_body(raw)
    except InvalidRequest:
        return raw.decode("utf-8", "replace")


def _status(query: Mapping[str, str]) -> DeliveryStatus | None:
    text = query.get("status", "")
    return statuses_of([text])[0] if text.strip() else None


# The table

_BASE: Final = "/automations/v2/{automation_id}/webhook-triggers"
_ONE: Final = f"{_BASE}/{{trigger_id}}"
_DELIVERY: Final = f"{_ONE}/deliveries/{{delivery_id}}"
_TOLD: Final = "trigger, new_secret?, secret_one_time"
_SETUP: Final = "setup_callback_path, setup_callback_url, setup_expires_at_ms"
_NO_TRIGGER: Final = "AUTOMATION_WEBHOOK_TRIGGER_NOT_FOUND"
_NO_DELIVERY: Final = "AUTOMATION_WEBHOOK_DELIVERY_NOT_FOUND"


def _codes(invalid: str = "") -> Mapping[str, str]:
    found = {"not_found": "AUTOMATION_V2_NOT_FOUND"}
    return found | ({"invalid_request": f"AUTOMATION_WEBHOOK_{invalid}"} if invalid else {})


def _limit(default: int) -> tuple[Parameter, ...]:
    return (Parameter(name="limit", says=f"So many at most; {default} without.", kind="integer"),)


ROUTES = (
    Endpoint(
        method="GET",
        path=_BASE,
        handler=list_triggers,
        says="List the webhook triggers of an automation, newest first.",
        answers="triggers[], count",
        codes=_codes(),
    ),
    Endpoint(
        method="POST",
        path=_BASE,
        handler=create,
        says="Make a webhook trigger; its secret is told in this answer and never again.",
        answers=f"{_TOLD}; or verification_pending, {_SETUP}",
        body=WebhookTriggerCreate,
        codes=_codes("CREATE_FAILED"),
    ),
    Endpoint(
        method="GET",
        path=_ONE,
        handler=get,
        says="Tell a webhook trigger.",
        answers="trigger",
        codes=_codes(),
        errors=(_NO_TRIGGER,),
    ),
    Endpoint(
        method="PATCH",
        path=_ONE,
        handler=update,
        says="Change fields of a webhook trigger.",
        answers="trigger",
        body=WebhookTriggerUpdate,
        codes=_codes("UPDATE_FAILED"),
        errors=(_NO_TRIGGER,),
    ),
    Endpoint(
        method="POST",
        path=f"{_ONE}/disable",
        handler=disable,
        says="Take no more deliveries at a trigger; again changes nothing.",
        answers="ok, trigger",
        codes=_codes(),
        errors=(_NO_TRIGGER,),
    ),
    Endpoint(
        method="DELETE",
        path=_ONE,
        handler=delete,
        says="Delete a webhook trigger with its secrets.",
        answers="ok, deleted, trigger_id",
        codes=_codes(),
        errors=(_NO_TRIGGER,),
    ),
    Endpoint(
        method="POST",
        path=f"{_ONE}/rotate-secret",
        handler=rotate_secret,
        says="Give a trigger another secret; the former one is dead at once, unless "
        "`overlap_seconds` keeps it.",
        answers=_TOLD,
        codes=_codes("ROTATE_FAILED"),
        errors=(_NO_TRIGGER, "AUTOMATION_WEBHOOK_ROTATE_UNSUPPORTED"),
    ),
    Endpoint(
        method="POST",
        path=f"{_ONE}/import-secret",
        handler=import_secret,
        says="Take the secret that the provider of a trigger made.",
        answers="ok, trigger",
        body=WebhookSecretImport,
        codes=_codes("SECRET_IMPORT_FAILED"),
        errors=(_NO_TRIGGER,),
    ),
    Endpoint(
        method="POST",
        path=f"{_ONE}/reveal-verification-token",
        handler=reveal_token,
        says="Tell the verification token that the provider handed over, once.",
        answers="verification_token, token_one_time, trigger",
        codes=_codes("REVEAL_FAILED"),
        errors=(_NO_TRIGGER, "AUTOMATION_WEBHOOK_TOKEN_UNAVAILABLE"),
    ),
    Endpoint(
        method="POST",
        path=f"{_ONE}/reset-verification",
        handler=reset_verification,
        says="Let the provider of a trigger hand over another verification token.",
        answers=f"trigger, {_SETUP}, setup_one_time",
        codes=_codes("RESET_VERIFICATION_FAILED"),
        errors=(_NO_TRIGGER,),
    ),
    Endpoint(
        method="GET",
        path=f"{_ONE}/deliveries",
        handler=list_deliveries,
        says="List what came at a trigger and what became of it, newest first.",
        answers="deliveries[], count, limit",
        query=_limit(50),
        codes=_codes(),
        errors=(_NO_TRIGGER, "QUERY_INVALID"),
    ),
    Endpoint(
        method="GET",
        path=_DELIVERY,
        handler=get_delivery,
        says="Tell a delivery.",
        answers="delivery",
        codes=_codes(),
        errors=(_NO_TRIGGER, _NO_DELIVERY),
    ),
    Endpoint(
        method="POST",
        path=f"{_DELIVERY}/redeliver",
        handler=redeliver,
        says="Send a delivery through again, as a new one.",
        answers="ok, delivery",
        codes=_codes(),
        errors=(
            _NO_TRIGGER,
            _NO_DELIVERY,
            "AUTOMATION_WEBHOOK_TRIGGER_DISABLED",
            "AUTOMATION_WEBHOOK_PAYLOAD_UNAVAILABLE",
        ),
    ),
    Endpoint(
        method="GET",
        path="/automations/v2/webhook-events",
        handler=list_events,
        says="List what came from outside and was believed, newest first.",
        answers="events[], count, limit",
        query=(
            Parameter(name="trigger_id", says="At this trigger only."),
            Parameter(name="automation_id", says="For this automation only."),
            Parameter(name="status", says="In this status only."),
            *_limit(50),
        ),
        errors=("QUERY_INVALID", "AUTOMATION_WEBHOOK_EVENT_STATUS_INVALID"),
    ),
    Endpoint(
        method="GET",
        path="/automations/v2/webhook-events/{event_id}",
        handler=get_event,
        says="Tell what came; the payload only where it is asked for.",
        answers="event",
        query=(
            Parameter(
                name="include_payload", says="With the payload, for editors.", kind="boolean"
            ),
        ),
        errors=("AUTOMATION_WEBHOOK_EVENT_NOT_FOUND",),
    ),
    Endpoint(
        method="GET",
        path="/automations/v2/runs/{run_id}/webhook-events",
        handler=list_events_of_run,
        says="List what came and started or woke a run, newest first.",
        answers="events[], count, limit, run_id",
        query=_limit(50),
        errors=("QUERY_INVALID", "AUTOMATION_V2_RUN_NOT_FOUND"),
    ),
)
