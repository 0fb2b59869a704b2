"""`tandem waits`: what runs wait for beside people, and telling them that it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from tandem.adapters.cli import exits

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.command import ResolveWait
    from tandem.domain.run import Run, Wait

_LISTED_MAX: Final = 500


@click.group()
def waits() -> None:
    """See what runs wait for, and say that it has come."""


@waits.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(tools: Tools, as_json: bool) -> None:
    """List the open waits, oldest first."""
    from tandem.adapters.cli import text
    from tandem.adapters.cli.references import short_id
    from tandem.domain.ids import LOCAL_TENANT

    store = tools.open_store(tools.read_settings())
    try:
        found = store.list_waits(tenant=LOCAL_TENANT, limit=_LISTED_MAX)
    finally:
        store.close()
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
@click.pass_obj
def resolve(tools: Tools, run: str, node: str | None, key: str, payload: str, as_json: bool) -> int:
    """Say that what a wait of RUN waits for has come."""
    import asyncio
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
    row, wait = asyncio.run(_resolve(tools, run, command))
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


async def _resolve(tools: Tools, name: str, command: ResolveWait) -> tuple[Run, Wait | None]:
    from tandem.adapters.cli.references import find_run_id
    from tandem.adapters.cli.text import note
    from tandem.domain.errors import NotFound
    from tandem.domain.ids import LOCAL_TENANT

    settings = tools.read_settings()
    async with tools.open_engine(settings, drives=False, on_problem=note) as parts:
        run_id = find_run_id(parts.store, name)
        wait = await parts.engine.resolve_wait(run_id, command)
        row = parts.store.find_run(run_id, tenant=LOCAL_TENANT)
        if row is None:
            raise NotFound(f"there is no run {run_id}")
        return row, wait
