"""`tandem waits`: what runs wait for beside people, and telling them that it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tandem.adapters.cli import exits
from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.run import Run, Wait


@click.group()
def waits() -> None:
    """See what runs wait for, and say that it has come."""


@waits.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_server
@click.pass_obj
def list_(tools: Tools, as_json: bool) -> None:
    """List the open waits, oldest first."""
    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import short_id

    found = ask(tools, lambda desk: desk.list_waits())
    if as_json:
        text.print_json([text.plain(item) for item in found])
        return
    text.print_table(
        [
            {
                "run": short_id(item.run_id),
                "automation": text.one_line(item.automation_id, width=30),
                "node": text.one_line(item.wait.node_id, width=30),
                "kind": item.wait.kind,
                "status": item.wait.status.value,
                "since": text.moment(item.wait.registered_at_ms),
                "wakes": text.moment(item.wait.due_at_ms),
                "times out": text.moment(item.wait.timeout_at_ms),
                "then": item.wait.on_timeout if item.wait.timeout_at_ms is not None else "",
            }
            for item in found
        ]
    )
    if not found:
        text.note("no run waits for a moment or a signal")


@waits.command("resolve")
@click.argument("run")
@click.option("--node", metavar="NODE", help="The wait of this node; else the oldest open one.")
@click.option("--key", default="", help="Idempotency key; the same one again changes nothing.")
@click.option("--payload", metavar="JSON", default="null", help="What came; it goes to the output.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_server
@click.pass_obj
def resolve(tools: Tools, run: str, node: str | None, key: str, payload: str, as_json: bool) -> int:
    """Say that what a wait of RUN waits for has come."""
    import uuid

    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import short_id
    from tandem.adapters.cli.session import person
    from tandem.domain.command import ResolveWait
    from tandem.domain.ids import NodeId

    command = ResolveWait(
        idempotency_key=key or f"cli-{uuid.uuid4()}",
        node_id=NodeId(node) if node else None,
        payload=_checked(payload),
        source=person(),
    )

    async def act(desk: Desk) -> tuple[Run, Wait | None]:
        return await desk.resolve(await desk.find_run_id(run), command)

    row, wait = ask(tools, act, acts=True)
    if as_json:
        text.print_json({"wait": text.plain(wait) if wait else None, "run": text.plain(row)})
    elif wait is None:
        click.echo(f"nothing was resolved: that wait of run {short_id(row.run_id)} is over")
    else:
        click.echo(
            f"wait of node `{text.one_line(wait.node_id)}` is {wait.status.value}; "
            f"run {row.run_id} is {row.status.value}"
        )
    return exits.COMPLETED if wait is not None else exits.REFUSED


def _checked(payload: str) -> bytes:
    import json

    try:
        return json.dumps(json.loads(payload), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--payload is not JSON: {error}") from None
