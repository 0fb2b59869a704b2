"""`tandem handoffs`: files by which automations start each other's runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tandem.adapters.cli.tools import Tools
    from tandem.domain.handoff import HandoffFile
    from tandem.engine.engine import Engine

    T = TypeVar("T")

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def handoffs() -> None:
    """Hand work over to an automation that watches for it."""


@handoffs.command()
@click.argument("target", metavar="AUTOMATION")
@click.option("--type", "artifact_type", required=True, help="What it is; conditions name it.")
@click.option("--id", "handoff_id", default="", help="Its id; made up when it is not given.")
@click.option("--content", "content_path", help="Path of what is handed over.")
@click.option("--source", default="", envvar="TANDEM_AUTOMATION_ID", help="Who hands it over.")
@click.option("--run", "run_id", default="", envvar="TANDEM_RUN_ID", help="By which run.")
@click.option("--node", "node_id", default="", envvar="TANDEM_NODE_ID", help="By which node.")
@click.option("--metadata", default="", metavar="JSON", help="More about it.")
@_json
@click.pass_obj
def deposit(
    tools: Tools,
    target: str,
    artifact_type: str,
    handoff_id: str,
    content_path: str | None,
    source: str,
    run_id: str,
    node_id: str,
    metadata: str,
    as_json: bool,
) -> None:
    """Put a handoff before AUTOMATION. Within a node, run and node are known."""
    import json
    import time
    from uuid import uuid4

    from tandem.adapters.cli import text
    from tandem.domain.handoff import Handoff

    try:
        more = json.loads(metadata) if metadata else None
    except ValueError as error:
        raise click.UsageError(f"--metadata is no JSON: {error}") from None
    made = Handoff(
        handoff_id=handoff_id or f"handoff-{uuid4().hex}",
        source_automation_id=source or "person",
        source_run_id=run_id or "none",
        source_node_id=node_id or "none",
        target_automation_id=target,
        artifact_type=artifact_type,
        created_at_ms=int(time.time() * 1_000),
        content_path=content_path,
        metadata=more,
    )
    path = _ask(tools, lambda engine: engine.handoffs.deposit(made))
    if as_json:
        text.print_json({"path": path, **text.plain(made)})
    else:
        click.echo(f"{made.handoff_id}: {path}")


@handoffs.command()
@click.argument("automation_id", metavar="AUTOMATION")
@click.argument("handoff_id", metavar="HANDOFF")
@_json
@click.pass_obj
def approve(tools: Tools, automation_id: str, handoff_id: str, as_json: bool) -> None:
    """Let a handoff of the inbox start its run."""
    from tandem.adapters.cli import text
    from tandem.domain.ids import AutomationId

    made = _ask(
        tools, lambda engine: engine.handoffs.approve(AutomationId(automation_id), handoff_id)
    )
    if as_json:
        text.print_json(text.plain(made))
    else:
        click.echo(f"{text.one_line(made.handoff_id)}: approved")


@handoffs.command("list")
@click.argument("automation_id", metavar="AUTOMATION")
@_json
@click.pass_obj
def list_(tools: Tools, automation_id: str, as_json: bool) -> None:
    """Show the handoffs of AUTOMATION: in the inbox, approved and archived."""
    from tandem.adapters.cli import text
    from tandem.domain.ids import AutomationId
    from tandem.engine.handoffs import listing_document

    found = _ask(tools, lambda engine: engine.handoffs.list(AutomationId(automation_id)))
    if as_json:
        text.print_json(listing_document(found))
        return
    folders = (("inbox", found.inbox), ("approved", found.approved), ("archived", found.archived))
    rows = [_row(where, file) for where, files in folders for file in files]
    if rows:
        text.print_table(rows)
    else:
        text.note(f"there is no handoff below {found.workspace_root}")


def _row(where: str, file: HandoffFile) -> Mapping[str, str]:
    from tandem.adapters.cli import text

    made = file.handoff
    if made is None:
        return {"where": where, "handoff": file.file, "type": "", "from": "", "run": file.problem}
    return {
        "where": where,
        "handoff": text.one_line(made.handoff_id, width=40),
        "type": text.one_line(made.artifact_type, width=20),
        "from": text.one_line(made.source_automation_id, width=30),
        "run": made.consumed_by_run_id or "",
    }


def _ask(tools: Tools, ask: Callable[[Engine], T]) -> T:
    import asyncio

    from tandem.adapters.cli.text import note

    async def asked() -> T:
        async with tools.open_engine(tools.read_settings(), drives=False, on_problem=note) as parts:
            return ask(parts.engine)

    return asyncio.run(asked())
