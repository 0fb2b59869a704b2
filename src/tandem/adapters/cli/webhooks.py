"""`tandem webhooks`: triggers at which deliveries from outside come in for an automation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tandem.adapters.cli.tools import Tools
    from tandem.domain.webhook import WebhookTrigger
    from tandem.domain.webhook_delivery import Delivery
    from tandem.engine.webhooks import Made, Webhooks

_LISTED_MAX: Final = 1_000
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_automation = click.argument("automation")
_trigger = click.argument("trigger")


@click.group()
def webhooks() -> None:
    """Let deliveries from outside start runs. AUTOMATION is its `automation_id`."""


@webhooks.command()
@_automation
@click.option("--provider", default="generic", show_default=True, help="Who delivers.")
@click.option("--name", default="", help="What people call it.")
@click.option("--scheme", help="How deliveries are signed; else the one of the provider.")
@click.option("--event-kind", help="What is delivered; for people, and for waits.")
@_json
@click.pass_obj
def create(
    tools: Tools,
    automation: str,
    provider: str,
    name: str,
    scheme: str | None,
    event_kind: str | None,
    as_json: bool,
) -> None:
    """Make a trigger for AUTOMATION. Its secret is shown now and never again."""
    from tandem.adapters.cli.session import person
    from tandem.domain.ids import LOCAL_TENANT, AutomationId
    from tandem.domain.webhook import TriggerSpec

    spec = TriggerSpec(
        provider=provider, name=name, signature_scheme=scheme, provider_event_kind=event_kind
    )
    made = _ask(
        tools,
        lambda hooks: hooks.create(
            AutomationId(automation), spec, tenant=LOCAL_TENANT, by=person()
        ),
    )
    _tell_made(made, as_json=as_json)


@webhooks.command("list")
@_automation
@_json
@click.pass_obj
def list_(tools: Tools, automation: str, as_json: bool) -> None:
    """List the triggers of AUTOMATION, newest first."""
    from tandem.adapters.cli import text
    from tandem.domain.ids import LOCAL_TENANT, AutomationId
    from tandem.domain.webhook_view import trigger_document

    store = tools.open_store(tools.read_settings())
    try:
        found = store.list_triggers(
            tenant=LOCAL_TENANT, automation_id=AutomationId(automation), limit=_LISTED_MAX
        )
    finally:
        store.close()
    if as_json:
        text.print_json([trigger_document(trigger) for trigger in found])
        return
    text.print_table([_row(trigger) for trigger in found])
    if not found:
        text.note(f"no trigger; make one with: tandem webhooks create {text.one_line(automation)}")


@webhooks.command()
@_automation
@_trigger
@_json
@click.pass_obj
def show(tools: Tools, automation: str, trigger: str, as_json: bool) -> None:
    """Show TRIGGER: its address, and what came."""
    _tell(_find(tools, automation, trigger), as_json=as_json)


@webhooks.command()
@_automation
@_trigger
@click.option(
    "--overlap",
    "overlap_s",
    type=click.IntRange(0),
    default=0,
    metavar="SECONDS",
    help="So long the former secret stays valid, too.",
)
@_json
@click.pass_obj
def rotate(tools: Tools, automation: str, trigger: str, overlap_s: int, as_json: bool) -> None:
    """Give TRIGGER another secret; it is shown now and never again."""
    from tandem.adapters.cli.session import person
    from tandem.domain.ids import LOCAL_TENANT, AutomationId
    from tandem.domain.webhook_keeping import overlap_ms_of

    overlap_ms = overlap_ms_of(overlap_s)
    made = _ask(
        tools,
        lambda hooks: hooks.rotate(
            AutomationId(automation),
            trigger,
            tenant=LOCAL_TENANT,
            by=person(),
            overlap_ms=overlap_ms,
        ),
    )
    _tell_made(made, as_json=as_json)


@webhooks.command()
@_automation
@_trigger
@_json
@click.pass_obj
def disable(tools: Tools, automation: str, trigger: str, as_json: bool) -> None:
    """Take no more deliveries at TRIGGER."""
    _tell(_enable(tools, automation, trigger, enabled=False), as_json=as_json)


@webhooks.command()
@_automation
@_trigger
@_json
@click.pass_obj
def enable(tools: Tools, automation: str, trigger: str, as_json: bool) -> None:
    """Take deliveries at TRIGGER again."""
    _tell(_enable(tools, automation, trigger, enabled=True), as_json=as_json)


@webhooks.command()
@_automation
@_trigger
@click.pass_obj
def delete(tools: Tools, automation: str, trigger: str) -> None:
    """Delete TRIGGER with its secrets."""
    from tandem.adapters.cli import text
    from tandem.adapters.cli.session import person
    from tandem.domain.ids import LOCAL_TENANT, AutomationId

    _ask(
        tools,
        lambda hooks: hooks.delete(
            AutomationId(automation), trigger, tenant=LOCAL_TENANT, by=person()
        ),
    )
    click.echo(f"trigger {text.one_line(trigger)} is deleted")


@webhooks.command()
@_automation
@_trigger
@click.option("--limit", type=click.IntRange(1, _LISTED_MAX), default=50, show_default=True)
@_json
@click.pass_obj
def deliveries(tools: Tools, automation: str, trigger: str, limit: int, as_json: bool) -> None:
    """List what came at TRIGGER and what became of it, newest first."""
    from tandem.adapters.cli import text
    from tandem.domain.ids import LOCAL_TENANT
    from tandem.domain.webhook_delivery import delivery_document
    from tandem.ports.webhooks import DeliveryFilter

    found_trigger = _find(tools, automation, trigger)
    store = tools.open_store(tools.read_settings())
    try:
        found = store.list_deliveries(
            DeliveryFilter(tenant=LOCAL_TENANT, trigger_id=found_trigger.trigger_id, limit=limit)
        )
    finally:
        store.close()
    if as_json:
        text.print_json([delivery_document(delivery) for delivery in found])
        return
    text.print_table([_delivery_row(delivery) for delivery in found])
    if not found:
        text.note("nothing was delivered yet")


@webhooks.command()
@_automation
@_trigger
@click.argument("delivery")
@_json
@click.pass_obj
def redeliver(tools: Tools, automation: str, trigger: str, delivery: str, as_json: bool) -> None:
    """Send DELIVERY through again, as another one; any engine takes it."""
    from tandem.adapters.cli import text
    from tandem.domain.ids import LOCAL_TENANT, AutomationId
    from tandem.domain.webhook_delivery import delivery_document

    again = _ask(
        tools,
        lambda hooks: hooks.redeliver(
            AutomationId(automation), trigger, delivery, tenant=LOCAL_TENANT
        ),
    )
    if as_json:
        text.print_json(delivery_document(again))
    else:
        click.echo(f"delivery {again.delivery_id} waits for an engine to take it")


def _ask(tools: Tools, what: Callable[[Webhooks], Awaitable[Any]]) -> Any:
    import asyncio

    async def ask() -> Any:
        from tandem.adapters.cli.text import note

        async with tools.open_engine(tools.read_settings(), drives=False, on_problem=note) as parts:
            return await what(parts.webhooks)

    return asyncio.run(ask())


def _find(tools: Tools, automation: str, trigger: str) -> WebhookTrigger:
    from tandem.domain.errors import NotFound
    from tandem.domain.ids import LOCAL_TENANT

    store = tools.open_store(tools.read_settings())
    try:
        found = store.find_trigger(trigger, tenant=LOCAL_TENANT)
    finally:
        store.close()
    if found is None or found.automation_id != automation:
        raise NotFound(
            f"automation {automation} has no trigger {trigger}; "
            f"`tandem webhooks list {automation}` shows the ones there are"
        )
    return found


def _enable(tools: Tools, automation: str, trigger: str, *, enabled: bool) -> WebhookTrigger:
    from tandem.adapters.cli.session import person
    from tandem.domain.ids import LOCAL_TENANT, AutomationId
    from tandem.domain.webhook import TriggerPatch

    patch = TriggerPatch(enabled=enabled)
    changed: WebhookTrigger = _ask(
        tools,
        lambda hooks: hooks.patch(
            AutomationId(automation), trigger, patch, tenant=LOCAL_TENANT, by=person()
        ),
    )
    return changed


def _row(trigger: WebhookTrigger) -> dict[str, str]:
    from tandem.adapters.cli import text

    counts = trigger.delivery_counts
    return {
        "trigger": trigger.trigger_id,
        "name": text.one_line(trigger.name, width=30),
        "provider": text.one_line(trigger.provider, width=16),
        "scheme": trigger.signature_scheme.value,
        "takes": "yes" if trigger.enabled else "no",
        "accepted": str(counts.accepted),
        "rejected": str(counts.rejected),
        "last": text.moment(trigger.last_received_at_ms),
    }


def _delivery_row(delivery: Delivery) -> dict[str, str]:
    from tandem.adapters.cli import text

    return {
        "delivery": delivery.delivery_id,
        "received": text.moment(delivery.received_at_ms),
        "status": delivery.status.value,
        "signature": delivery.verification_reason_code or "good",
        "dedupe": delivery.dedupe_result.value if delivery.dedupe_result else "",
        "reason": delivery.rejection_reason_code or "",
        "run": delivery.run_id or delivery.duplicate_of_run_id or "",
        "event": text.one_line(delivery.provider_event_id or "", width=30),
    }


def _tell_made(made: Made, *, as_json: bool) -> None:
    from tandem.adapters.cli import text
    from tandem.domain.webhook_view import callback_path, trigger_document

    trigger = made.trigger
    if as_json:
        setup = callback_path(trigger, nonce=made.nonce) if made.nonce else None
        text.print_json(
            {
                "trigger": trigger_document(trigger),
                "new_secret": made.secret or None,
                "setup_callback_path": setup,
            }
        )
        return
    _tell(trigger, as_json=False)
    if made.secret:
        click.echo(f"secret: {made.secret}")
        text.note("the secret is shown this once; whoever delivers needs it")
    if made.nonce:
        click.echo(f"set up at: {callback_path(trigger, nonce=made.nonce)}")


def _tell(trigger: WebhookTrigger, *, as_json: bool) -> None:
    from tandem.adapters.cli import text
    from tandem.domain.webhook_view import callback_path, trigger_document

    if as_json:
        text.print_json(trigger_document(trigger))
        return
    counts = trigger.delivery_counts
    state = "takes deliveries" if trigger.enabled else "is disabled"
    click.echo(f"trigger {trigger.trigger_id} of {text.one_line(trigger.automation_id)} {state}")
    click.echo(f"address: {callback_path(trigger)}")
    click.echo(f"signed:  {trigger.signature_scheme.value}, secret {trigger.secret_version or '-'}")
    click.echo(
        f"came:    {counts.total}; accepted {counts.accepted}, duplicate {counts.duplicate}, "
        f"rejected {counts.rejected}, suppressed {counts.suppressed}, failed {counts.failed}"
    )
