"""`tandem webhooks`: triggers at which deliveries from outside come in for an automation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tandem.adapters.cli.hook_desk import Document, HookDesk
    from tandem.adapters.cli.tools import Tools

T = TypeVar("T")

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
@on_server
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
    given = {
        "provider": provider,
        "name": name,
        "signature_scheme": scheme,
        "provider_event_kind": event_kind,
    }
    said = {field: value for field, value in given.items() if value}
    _tell_made(_ask(tools, lambda hooks: hooks.create(automation, said)), as_json=as_json)


@webhooks.command("list")
@_automation
@_json
@on_server
@click.pass_obj
def list_(tools: Tools, automation: str, as_json: bool) -> None:
    """List the triggers of AUTOMATION, newest first."""
    from tandem.adapters.cli import text

    found = _ask(tools, lambda hooks: hooks.list(automation))
    if as_json:
        text.print_json(found)
        return
    text.print_table([_row(trigger) for trigger in found])
    if not found:
        text.note(f"no trigger; make one with: tandem webhooks create {text.one_line(automation)}")


@webhooks.command()
@_automation
@_trigger
@_json
@on_server
@click.pass_obj
def show(tools: Tools, automation: str, trigger: str, as_json: bool) -> None:
    """Show TRIGGER: its address, and what came."""
    _tell(_ask(tools, lambda hooks: hooks.get(automation, trigger)), as_json=as_json)


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
@on_server
@click.pass_obj
def rotate(tools: Tools, automation: str, trigger: str, overlap_s: int, as_json: bool) -> None:
    """Give TRIGGER another secret; it is shown now and never again."""
    made = _ask(tools, lambda hooks: hooks.rotate(automation, trigger, overlap_s=overlap_s))
    _tell_made(made, as_json=as_json)


@webhooks.command()
@_automation
@_trigger
@_json
@on_server
@click.pass_obj
def disable(tools: Tools, automation: str, trigger: str, as_json: bool) -> None:
    """Take no more deliveries at TRIGGER."""
    changed = _ask(tools, lambda hooks: hooks.enable(automation, trigger, enabled=False))
    _tell(changed, as_json=as_json)


@webhooks.command()
@_automation
@_trigger
@_json
@on_server
@click.pass_obj
def enable(tools: Tools, automation: str, trigger: str, as_json: bool) -> None:
    """Take deliveries at TRIGGER again."""
    changed = _ask(tools, lambda hooks: hooks.enable(automation, trigger, enabled=True))
    _tell(changed, as_json=as_json)


@webhooks.command()
@_automation
@_trigger
@on_server
@click.pass_obj
def delete(tools: Tools, automation: str, trigger: str) -> None:
    """Delete TRIGGER with its secrets."""
    from tandem.adapters.cli import text

    _ask(tools, lambda hooks: hooks.delete(automation, trigger))
    click.echo(f"trigger {text.one_line(trigger)} is deleted")


@webhooks.command()
@_automation
@_trigger
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True)
@_json
@on_server
@click.pass_obj
def deliveries(tools: Tools, automation: str, trigger: str, limit: int, as_json: bool) -> None:
    """List what came at TRIGGER and what became of it, newest first."""
    from tandem.adapters.cli import text

    found = _ask(tools, lambda hooks: hooks.deliveries(automation, trigger, limit=limit))
    if as_json:
        text.print_json(found)
        return
    text.print_table([_delivery_row(delivery) for delivery in found])
    if not found:
        text.note("nothing was delivered yet")


@webhooks.command()
@_automation
@_trigger
@click.argument("delivery")
@_json
@on_server
@click.pass_obj
def redeliver(tools: Tools, automation: str, trigger: str, delivery: str, as_json: bool) -> None:
    """Send DELIVERY through again, as another one; any engine takes it."""
    from tandem.adapters.cli import text

    again = _ask(tools, lambda hooks: hooks.redeliver(automation, trigger, delivery))
    if as_json:
        text.print_json(again)
    else:
        shown = text.one_line(again["delivery_id"])
        click.echo(f"delivery {shown} waits for an engine to take it")


def _ask(tools: Tools, what: Callable[[HookDesk], Awaitable[T]]) -> T:
    return ask(tools, lambda desk: what(desk.hooks), acts=True)


def _row(trigger: Document) -> dict[str, str]:
    from tandem.adapters.cli import text

    counts = trigger["delivery_counts"]
    return {
        "trigger": text.one_line(trigger["trigger_id"]),
        "name": text.one_line(trigger["name"], width=30),
        "provider": text.one_line(trigger["provider"], width=16),
        "scheme": text.one_line(trigger["signature_scheme"]),
        "takes": "yes" if trigger["enabled"] else "no",
        "accepted": str(counts["accepted"]),
        "rejected": str(counts["rejected"]),
        "last": text.moment(trigger["last_received_at_ms"]),
    }


def _delivery_row(delivery: Document) -> dict[str, str]:
    from tandem.adapters.cli import text

    def shown(name: str) -> str:
        return text.one_line(delivery[name] or "", width=60)

    runs = (shown(name) for name in ("queued_run_id", "woken_run_id", "duplicate_of_run_id"))
    return {
        "delivery": shown("delivery_id"),
        "received": text.moment(delivery["received_at_ms"]),
        "status": shown("status"),
        "signature": shown("verification_reason_code") or "good",
        "dedupe": shown("dedupe_result"),
        "reason": shown("rejection_reason_code"),
        "run": next(filter(None, runs), ""),
        "event": text.one_line(delivery["provider_event_id"] or "", width=30),
    }


def _tell_made(made: Document, *, as_json: bool) -> None:
    from tandem.adapters.cli import text

    if as_json:
        text.print_json(made)
        return
    _tell(made["trigger"], as_json=False)
    if made["new_secret"]:
        click.echo(f"secret: {text.clean(made['new_secret'])}")
        text.note("the secret is shown this once; whoever delivers needs it")
    if made["setup_callback_path"]:
        click.echo(f"set up at: {text.clean(made['setup_callback_path'])}")


def _tell(trigger: Document, *, as_json: bool) -> None:
    from tandem.adapters.cli import text

    if as_json:
        text.print_json(trigger)
        return
    counts: dict[str, Any] = trigger["delivery_counts"]
    state = "takes deliveries" if trigger["enabled"] else "is disabled"
    named = text.one_line(trigger["trigger_id"]), text.one_line(trigger["automation_id"])
    version = trigger["secret_status"]["secret_version"] or "-"
    click.echo(f"trigger {named[0]} of {named[1]} {state}")
    click.echo(f"address: {text.one_line(trigger['callback_url'])}")
    click.echo(f"signed:  {text.one_line(trigger['signature_scheme'])}, secret {version}")
    click.echo(
        f"came:    {counts['total']}; accepted {counts['accepted']}, "
        f"duplicate {counts['duplicate']}, rejected {counts['rejected']}, "
        f"suppressed {counts['suppressed']}, failed {counts['failed']}"
    )
