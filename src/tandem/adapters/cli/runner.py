"""`tandem run` and `tandem resume`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tandem.adapters.cli import exits

if TYPE_CHECKING:
    from tandem.adapters.cli.drive import Look
    from tandem.adapters.cli.tools import Tools


# The same words as `ExecutionProfile`, which is not imported for a help text; a test compares them.
PROFILES: Final = ("strict", "guided", "yolo")


def look_of(*, as_json: bool, quiet: bool) -> Look:
    """Return how a command shows what happens.

    Raises:
        click.UsageError: it was asked for two ways.
    """
    from tandem.adapters.cli.drive import Look

    if as_json and quiet:
        raise click.UsageError("--json and --quiet exclude each other")
    return Look.JSON if as_json else Look.QUIET if quiet else Look.AUTO


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="An input; @FILE reads the value from a file.",
)
@click.option(
    "--inputs-json", metavar="FILE", help="Inputs as one JSON object; `-` reads standard input."
)
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the run works; by default the automation's workspace_root, else here.",
)
@click.option("--approve", multiple=True, metavar="NODE", help="Approve a gate in advance.")
@click.option("--decide", multiple=True, metavar="NODE=DECISION", help="Decide a gate in advance.")
@click.option("--profile", type=click.Choice(PROFILES), help="How strict the run is.")
@click.option("--detach", is_flag=True, help="Leave the run to another engine; print its id.")
@click.option("--dry-run", is_flag=True, help="Only tell what would run.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON lines.")
@click.option("--quiet", "-q", is_flag=True, help="Print only the summary.")
@click.option("--url", hidden=True)
@click.pass_obj
def run(
    tools: Tools,
    file: Path,
    pairs: tuple[str, ...],
    inputs_json: str | None,
    workspace: Path | None,
    approve: tuple[str, ...],
    decide: tuple[str, ...],
    profile: str | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    url: str | None,
) -> int:
    """Run the automation in FILE to its end, in this process.

    Ctrl-C pauses the run once what runs has ended; a second one cancels it.
    """
    from functools import partial

    from tandem.adapters.cli import drive, given
    from tandem.domain.execution import ExecutionProfile

    look = look_of(as_json=as_json, quiet=quiet)
    if url is not None:
        raise click.UsageError(
            "a server runs what it keeps: save the file with `tandem automations apply FILE "
            "--url URL`, then start it with `tandem automations run ID --url URL`"
        )
    if detach and (approve or decide):
        raise click.UsageError("--detach leaves the run to others: decide with `tandem gates`")
    if detach and dry_run:
        raise click.UsageError("--detach and --dry-run exclude each other")
    decisions = given.read_decisions(approve, decide)
    automation = tools.load_automation(file, warn=partial(drive.warn, look=look))
    decisions.check(automation)
    order = drive.Order(
        automation=automation,
        inputs=given.read_inputs(automation, pairs, inputs_json),
        workspace=drive.workspace_of(automation, workspace),
        decisions=decisions,
        profile=ExecutionProfile(profile) if profile else None,
    )
    settings = tools.read_settings()
    if dry_run:
        return drive.dry_run(tools, settings, order, look)
    if detach:
        return drive.detach(tools, settings, order, look)
    return drive.run(tools, settings, order, look)


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@click.option("--all", "every", is_flag=True, help="Continue every unfinished run.")
@click.option("--approve", multiple=True, metavar="NODE", help="Approve a gate in advance.")
@click.option("--decide", multiple=True, metavar="NODE=DECISION", help="Decide a gate in advance.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON lines.")
@click.option("--quiet", "-q", is_flag=True, help="Print only the summary.")
@click.pass_obj
def resume(
    tools: Tools,
    run: str | None,
    every: bool,
    approve: tuple[str, ...],
    decide: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> int:
    """Continue a run: interrupted, paused, waiting, failed or blocked.

    RUN is an id, the beginning of one, or `latest`; without it the only unfinished run is meant.
    """
    from tandem.adapters.cli import drive, given

    look = look_of(as_json=as_json, quiet=quiet)
    if every and run is not None:
        raise click.UsageError("name a run or say --all, not both")
    settings = tools.read_settings()
    decisions = given.read_decisions(approve, decide)
    code = drive.resume(tools, settings, run, decisions, look, every=every)
    return exits.COMPLETED if code is None else code
