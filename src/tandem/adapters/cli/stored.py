"""`tandem automations`: the automations that the store keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tandem.adapters.cli.runner import PROFILES, look_of
from tandem.adapters.cli.server_options import ask, on_server, place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.automation import Automation
    from tandem.domain.firing import Firing
    from tandem.domain.run import Run
    from tandem.domain.stored_automation import AutomationRecord, StoredAutomation

    Looked = tuple[StoredAutomation, Sequence[AutomationRecord], Automation, Sequence[Firing]]

LISTED_MAX: Final = 10_000
RUNS_SHOWN_MAX: Final = 10
FIRINGS_SHOWN: Final = 10

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_reason = click.option("--reason", default="", help="Why; kept with what happened.")


@click.group()
def automations() -> None:
    """Keep automations in the store: save, look at, run and hold them."""


@automations.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option(
    "--expect-version",
    type=click.IntRange(0),
    metavar="N",
    help="Only if this is the current version; 0 for none.",
)
@_reason
@_json
@on_server
@click.pass_obj
def apply(
    tools: Tools, files: tuple[Path, ...], expect_version: int | None, reason: str, as_json: bool
) -> None:
    """Save the automations in FILE…; what has not changed stays as it is.

    All files are checked before the first is saved. A pause is never lifted by a save.
    """
    from tandem.adapters.cli import text

    loaded = _load_all(tools, files)
    _refuse_same_id(files, loaded)

    async def save(desk: Desk) -> list[tuple[StoredAutomation, str]]:
        return [
            await desk.save(automation, expected_version=expect_version, reason=reason)
            for automation in loaded
        ]

    saved = ask(tools, save, acts=True)
    if as_json:
        text.print_json([{**text.plain(row), "event": event} for row, event in saved])
        return
    for row, event in saved:
        what = event.removeprefix("automation_") or "unchanged"
        name = text.one_line(row.automation_id)
        click.echo(f"{name}: {what}, version {row.version}, {_status(row)}")


def _load_all(tools: Tools, files: Sequence[Path]) -> list[Automation]:
    """Read every file.

    Raises:
        InvalidAutomation: with the mistakes of all files.
    """
    from tandem.domain.errors import InvalidAutomation, Problem

    loaded: list[Automation] = []
    wrong: list[Problem] = []
    for file in files:
        try:
            loaded.append(tools.load_automation(file))
        except InvalidAutomation as error:
            wrong += error.problems
    if wrong:
        raise InvalidAutomation(wrong)
    return loaded


def _status(row: StoredAutomation) -> str:
    from tandem.adapters.cli import text
    from tandem.engine.automations import told_status

    return "deleted" if row.is_deleted else text.one_line(told_status(row), width=80)


def _refuse_same_id(files: Sequence[Path], loaded: Sequence[Automation]) -> None:
    seen: dict[str, Path] = {}
    for file, automation in zip(files, loaded, strict=True):
        other = seen.setdefault(automation.automation_id, file)
        if other is not file:
            raise click.UsageError(
                f"{other} and {file} are both automation {automation.automation_id!r}; give one "
                "of them another `automation_id`"
            )


@automations.command("list")
@click.option("--limit", type=click.IntRange(1, LISTED_MAX), default=100, show_default=True)
@click.option("--after", default="", metavar="ID", help="Only those after this id.")
@_json
@on_server
@click.pass_obj
def list_(tools: Tools, limit: int, after: str, as_json: bool) -> None:
    """List the automations of the store, by id."""
    from tandem.adapters.cli import text

    found = ask(tools, lambda desk: desk.list_automations(after_id=after, limit=limit))
    if as_json:
        text.print_json([text.plain(row) for row in found])
    elif found:
        text.print_table([_row(row) for row in found])
    else:
        text.note("no automation is saved; save one with: tandem automations apply FILE")


def _row(row: StoredAutomation) -> dict[str, str]:
    from tandem.adapters.cli import text

    return {
        "automation": text.one_line(row.automation_id, width=40),
        "version": str(row.version),
        "status": _status(row),
        "updated": text.moment(row.updated_at_ms),
        "name": text.one_line(row.name, width=40),
    }


@automations.command()
@click.argument("automation_id", metavar="ID")
@click.option("--version", type=click.IntRange(1), metavar="N", help="The definition of this one.")
@click.option("--firings", is_flag=True, help="Show the next 10 firings, and the newest ones.")
@_json
@on_server
@click.pass_obj
def show(
    tools: Tools, automation_id: str, version: int | None, firings: bool, as_json: bool
) -> None:
    """Show an automation, what happened to it, when it fires, and its definition."""
    from tandem.adapters.cli import text
    from tandem.domain.automation import canonical_document
    from tandem.domain.json import decode

    shown_max = FIRINGS_SHOWN if firings else 1

    async def look(desk: Desk) -> Looked:
        row, definition = await desk.automation(automation_id, version)
        row, decided = await desk.firings(row, limit=shown_max)
        return row, await desk.records(row), definition, decided

    row, records, definition, decided = ask(tools, look, acts=True)
    document = decode(canonical_document(definition))
    coming = _coming(row, limit=shown_max)
    if as_json:
        shown = {"shown_version": version or row.version, "definition": document}
        shown |= {"next_firings": coming, "firings": [text.plain(each) for each in decided]}
        happened = {"records": [text.plain(record) for record in records]}
        text.print_json({**text.plain(row), **happened, **shown})
        return
    text.print_table([_row(row)])
    click.echo()
    text.print_table([_happened(record) for record in records])
    if coming or decided:
        click.echo(f"\n{_told_deferral(row)}fires next:")
        text.print_table([{**each, "at_ms": str(each["at_ms"])} for each in coming])
        click.echo("\nfired lately:")
        text.print_table([_decided(each) for each in decided])
    click.echo(f"\nversion {version or row.version}:")
    text.print_json(document)


def _coming(row: StoredAutomation, *, limit: int) -> list[dict[str, Any]]:
    """Return when an automation fires next."""
    from tandem.adapters.cli.schedule import firings_shown
    from tandem.domain.firing import schedule_of, upcoming

    try:
        return firings_shown(schedule_of(row), upcoming(row, limit=limit))
    except ValueError:  # the firings say what is wrong with its schedule
        return []


def _told_deferral(row: StoredAutomation) -> str:
    from tandem.adapters.cli import text

    if row.deferred_at_ms is None:
        return ""
    return f"put off since {text.moment(row.deferred_at_ms)} until a run of it has ended; "


def _decided(firing: Firing) -> dict[str, str]:
    from tandem.adapters.cli import text

    return {
        "due": text.moment(firing.due_at_ms),
        "trigger": text.one_line(firing.trigger_type, width=20),
        "outcome": firing.outcome.value,
        "missed": str(firing.missed or ""),
        "run": firing.run_id or "",
        "why": text.one_line(firing.reason, width=80),
    }


def _happened(record: AutomationRecord) -> dict[str, str]:
    from tandem.adapters.cli import text

    return {
        "when": text.moment(record.recorded_at_ms),
        "what": record.event.value.removeprefix("automation_"),
        "version": str(record.version),
        "who": text.one_line(record.actor, width=30),
        "why": text.one_line(record.reason, width=60),
    }


@automations.command()
@click.argument("automation_id", metavar="ID")
@click.option("--input", "pairs", multiple=True, metavar="NAME=VALUE", help="An input; see `run`.")
@click.option("--inputs-json", metavar="FILE", help="Inputs as one JSON object.")
@click.option("--workspace", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--version", type=click.IntRange(1), metavar="N", help="An older version.")
@click.option("--profile", type=click.Choice(PROFILES), help="How strict the run is.")
@click.option("--detach", is_flag=True, help="Leave the run to another engine; print its id.")
@click.option("--dry-run", is_flag=True, help="Only tell what would run.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON lines.")
@click.option("--quiet", "-q", is_flag=True, help="Print only the summary.")
@on_server
@click.pass_obj
def run(
    tools: Tools,
    automation_id: str,
    pairs: tuple[str, ...],
    inputs_json: str | None,
    workspace: Path | None,
    version: int | None,
    profile: str | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run a saved automation to its end. A draft can only be run dry."""
    from tandem.adapters.cli import drive, given
    from tandem.domain.execution import ExecutionProfile

    look = look_of(as_json=as_json, quiet=quiet)
    if detach and dry_run:
        raise click.UsageError("--detach and --dry-run exclude each other")
    wanted = ExecutionProfile(profile) if profile else None
    if place_of(tools, tools.read_settings()) is not None:
        from tandem.adapters.cli import remote_run

        if workspace is not None or version is not None:
            raise click.UsageError(
                "a server runs the current version where it says itself; leave --workspace and "
                "--version out"
            )
        asked = remote_run.Order(automation_id, pairs, inputs_json, wanted)
        return remote_run.run(tools, asked, look, detach=detach, dry_run=dry_run)
    row, definition = ask(tools, lambda desk: desk.automation(automation_id, version), acts=True)
    order = drive.Order(
        automation=definition,
        inputs=given.read_inputs(definition, pairs, inputs_json),
        workspace=drive.workspace_of(definition, workspace),
        decisions=given.Decisions(),
        profile=wanted,
        stored_version=version or row.version,
    )
    settings = tools.read_settings()
    if dry_run:
        return drive.dry_run(tools, settings, order, look)
    if detach:
        return drive.detach(tools, settings, order, look)
    return drive.run(tools, settings, order, look)


@automations.command()
@click.argument("automation_id", metavar="ID")
@_reason
@_json
@on_server
@click.pass_obj
def pause(tools: Tools, automation_id: str, reason: str, as_json: bool) -> None:
    """Hold everything of an automation: what runs is paused, what is queued is not started."""
    _hold(tools, automation_id, "pause", reason or "paused by operator", as_json=as_json)


@automations.command()
@click.argument("automation_id", metavar="ID")
@_reason
@_json
@on_server
@click.pass_obj
def resume(tools: Tools, automation_id: str, reason: str, as_json: bool) -> None:
    """Let the queued runs of an automation go on; paused ones with `tandem resume RUN`."""
    _hold(tools, automation_id, "resume", reason or "resumed by operator", as_json=as_json)


@automations.command()
@click.argument("automation_id", metavar="ID")
@_reason
@_json
@on_server
@click.pass_obj
def delete(tools: Tools, automation_id: str, reason: str, as_json: bool) -> None:
    """Take an automation out of the lists; its runs stay."""
    _hold(tools, automation_id, "delete", reason or "deleted by operator", as_json=as_json)


def _hold(tools: Tools, automation_id: str, what: str, reason: str, *, as_json: bool) -> None:
    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import short_id
    from tandem.domain.lifecycle import RunState
    from tandem.ports.store import RunFilter

    async def act(desk: Desk) -> tuple[StoredAutomation, Sequence[Run], str]:
        row = await desk.hold(automation_id, what, reason=reason)
        pausing = RunFilter(
            tenant=row.tenant,
            automation_id=row.automation_id,
            statuses=(RunState.PAUSING, RunState.PAUSED),
        )
        again = "tandem runs resume" if desk.is_remote else "tandem resume"
        return row, await desk.list_runs(pausing), f"{again} {{}}{desk.beside}"

    row, paused, again = ask(tools, act, acts=True)
    if as_json:
        shown: dict[str, Any] = {"paused_runs": [run.run_id for run in paused]}
        text.print_json({**text.plain(row), **shown})
        return
    click.echo(f"{text.one_line(row.automation_id)}: {_status(row)}")
    for run in paused[:RUNS_SHOWN_MAX]:
        command = again.format(short_id(run.run_id))
        click.echo(f"  run {short_id(run.run_id)} is {run.status.value}; continue with: {command}")
