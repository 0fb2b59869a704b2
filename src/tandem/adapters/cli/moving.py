"""`tandem db backup`, `export`, `import`, `gc`, `archive`: the store as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tandem.adapters.cli import exits

if TYPE_CHECKING:
    from collections.abc import Callable

    from tandem.adapters.cli.tools import Tools

DAY_MS: Final = 86_400_000
ARCHIVE_ROWS: Final = 1_000
DAYS_MAX: Final = 100_000
_SAID_EVERY: Final = 500

_days = click.IntRange(0, DAYS_MAX)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_new_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
_old_file = click.argument("file", type=click.Path(exists=False, path_type=Path))


def _saying(what: str) -> Callable[[int], None]:
    """Return what tells a person now and then how far long work has come."""
    said = 0

    def progress(done: int) -> None:
        nonlocal said
        if done - said >= _SAID_EVERY:
            said = done
            from tandem.adapters.cli.text import note

            note(f"{done} {what}…")

    return progress


@click.command()
@_new_file
@_json
@click.pass_obj
def backup(tools: Tools, file: Path, as_json: bool) -> None:
    """Copy the store to FILE while engines go on; large outputs stay where they are."""
    from tandem.adapters.cli import text

    settings = tools.read_settings()
    store = tools.open_store(settings)
    said = _saying("pages")
    try:
        size = store.back_up(file.absolute(), progress=lambda done, _: said(done // 100))
    finally:
        store.close()
    folder = settings.state_dir / "artifacts"
    if as_json:
        found = {"file": str(file), "size_bytes": size, "artifacts": str(folder)}
        text.print_json(found)
    else:
        click.echo(f"{file}: {text.size(size)}")
        if folder.is_dir():
            click.echo(f"large outputs are files in {folder}; copy them after this, not before")


@click.command()
@_new_file
@click.option("--contents", is_flag=True, help="With the bytes of large outputs.")
@_json
@click.pass_obj
def export(tools: Tools, file: Path, contents: bool, as_json: bool) -> int:
    """Write every run to FILE, one JSON line each, for any store to import.

    What a store keeps beside its runs, such as automations, tokens and webhook triggers, is not in
    it, and is counted; a backup holds all.
    """
    from tandem.adapters.cli import text

    found = tools.export_store(
        tools.read_settings(), file, with_contents=contents, progress=_saying("runs")
    )
    if as_json:
        text.print_json({"file": str(file), **found})
    else:
        click.echo(f"{file}: {text.count(found['runs'], 'run')}, {text.size(found['size_bytes'])}")
        if found["missing"]:
            click.echo(f"{text.count(found['missing'], 'large output')} could not be read")
        for said in found["left_out"]:
            click.echo(f"left out: {said}")
        if found["not_exported"]:
            beside = ", ".join(f"{what} ({n})" for what, n in found["not_exported"].items())
            click.echo(f"an export is of runs; not in it: {beside}; `tandem db backup` copies all")
    return exits.REFUSED if found["left_out"] else exits.COMPLETED


@click.command("import")
@_old_file
@_json
@click.pass_obj
def import_(tools: Tools, file: Path, as_json: bool) -> int:
    """Read runs from FILE: an export, or what the original Tandem engine stored.

    The original's `automation_v2_runs.json` and its folder `automation-runs` are both understood.
    A run that is here already stays as it is; of several copies of a run of the original the one
    that says most counts. A run that was alive there is paused here.
    """
    import asyncio

    from tandem.adapters.cli import text

    found = asyncio.run(tools.import_store(tools.read_settings(), file, progress=_saying("runs")))
    if as_json:
        text.print_json({"file": str(file), **found})
    else:
        click.echo(
            f"{text.count(found['imported'] + found['paused'], 'run')} imported, "
            f"{found['paused']} of them paused because they were alive, "
            f"{found['same']} here already"
        )
        if found["renewed"]:
            runs = text.count(found["renewed"], "run")
            click.echo(f"{runs} told anew, from a copy that says more than the one that was here")
        for run_id in found["corrupt"]:
            click.echo(f"{run_id}: could not be read; it is blocked, its text is kept")
        for run_id in found["differing"]:
            click.echo(f"{run_id}: the one that is here differs and was kept")
        for said in (*found["unreadable"], *found["left_out"]):
            click.echo(f"left out: {said}")
    faults = (found["differing"], found["unreadable"], found["left_out"])
    return exits.REFUSED if any(faults) else exits.COMPLETED


@click.command()
@click.option("--older-than", "days", type=_days, default=7, show_default=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@_json
@click.pass_obj
def gc(tools: Tools, days: int, dry_run: bool, as_json: bool) -> None:
    """Remove what nothing needs: scratch folders of ended attempts, outputs that no run names.

    DAYS is how long something must not have been written to, an output at least an hour. Artifacts
    of runs are never removed.
    """
    import time

    from tandem.adapters.cli import text

    now_ms = time.time_ns() // 1_000_000
    found = tools.collect_garbage(
        tools.read_settings(), before_ms=now_ms - days * DAY_MS, now_ms=now_ms, dry_run=dry_run
    )
    if as_json:
        text.print_json({"dry_run": dry_run, **found})
        return
    verb = "would remove" if dry_run else "removed"
    click.echo(
        f"{verb} {text.count(found['scratch_folders'], 'scratch folder')} "
        f"({text.size(found['scratch_bytes'])}) and {text.count(found['artifacts'], 'output')} "
        f"({text.size(found['artifact_bytes'])})"
    )


@click.command()
@click.option("--older-than", "days", type=_days, default=None, help="Days; default: the setting.")
@_json
@click.pass_obj
def archive(tools: Tools, days: int | None, as_json: bool) -> None:
    """Pack the rows of old runs now; engines do that by themselves."""
    import asyncio
    import time

    from tandem.adapters.cli import text

    settings = tools.read_settings()
    chosen = settings.retention_days if days is None else days
    now_ms = time.time_ns() // 1_000_000
    if days is None and not chosen:
        text.note("TANDEM_AUTOMATION_V2_RUNS_RETENTION_DAYS is 0: nothing is packed")
        return

    async def pack() -> int:
        store = tools.open_store(settings)
        total = 0
        try:
            while moved := await store.archive(
                before_ms=now_ms - chosen * DAY_MS, rows_max=ARCHIVE_ROWS, now_ms=now_ms
            ):
                total += moved
        finally:
            store.close()
        return total

    moved = asyncio.run(pack())
    if as_json:
        text.print_json({"moved": moved})
    else:
        click.echo(f"packed {text.count(moved, 'row')}")
