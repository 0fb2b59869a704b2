"""`tandem runs watch`: live events, wherever they come from, as lines or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from tandem.adapters.cli import text
from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.tools import OpenEngine, Tools
    from tandem.domain.ids import RunId
    from tandem.engine.event_feed import Ending, Subscription

IDLE_MS: Final = 500
"""How often a run is looked at whose events do not come any more."""
PREFIX: Final = "automation.v2."
_AGAIN: Final = "events were missed: {reason}; what follows is complete again"


def line_of(event: Mapping[str, Any], *, named: bool) -> str:
    """Return an event as a line: `12:01:05 node.started  collect  attempt 1  running`."""
    from tandem.adapters.cli.references import short_id

    told, envelope = event["properties"], event["envelope"]
    kind = str(event["type"]).removeprefix(PREFIX)
    parts = [f"{text.clock(envelope['occurred_at_ms'])} {kind}"]
    if named:
        parts.insert(0, short_id(told["run_id"]))
    if "node_id" in told:
        parts.append(text.one_line(str(told["node_id"])))
    if "attempt" in told:
        parts.append(f"attempt {told['attempt']}")
    if "decision" in told:
        parts.append(text.one_line(str(told["decision"])))
    parts.append(str(told["status"]))
    if told.get("reason"):
        parts.append(text.one_line(str(told["reason"]), width=160))
    return "  ".join(parts)


def print_event(event: Mapping[str, Any], *, as_json: bool, named: bool) -> None:
    """Print one event; those of JSON have the cursor behind them as `id`."""
    if as_json:
        text.print_json(event, indent=0)
    else:
        click.echo(line_of(event, named=named))


@click.command()
@click.argument("run", required=False)
@click.option("--all", "is_all", is_flag=True, help="Every run, from now on, until stopped.")
@click.option("--after", default="", metavar="ID", help="Go on behind this id of an event.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@on_server
@click.pass_obj
def watch(tools: Tools, run: str | None, is_all: bool, after: str, as_json: bool) -> None:
    """Follow the events of RUN from its beginning to its end, or of all runs."""
    if (run is None) is not is_all:
        raise click.UsageError("name a run, or give --all")

    async def follow(desk: Desk) -> None:
        run_id = None if run is None else await desk.find_run_id(run)
        async for event in desk.watch(run_id, after=after):
            print_event(event, as_json=as_json, named=is_all)

    ask(tools, follow, acts=True)


async def local_events(
    parts: OpenEngine, run_id: RunId | None, after: str
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield events of the local store; those of one run up to its end."""
    from tandem.domain.event_cursor import EventCursor
    from tandem.domain.ids import LOCAL_TENANT
    from tandem.engine.event_feed import Ending, Wanted
    from tandem.engine.waiting import is_ended

    wanted = Wanted(tenant=LOCAL_TENANT, run_id=run_id, prefix=PREFIX)
    if run_id is not None and not after:
        after = str(EventCursor(parts.store.find_event_tail().store_id, 0))
    while True:
        with parts.feed.subscribe(wanted, after=after) as subscription:
            if run_id is None and not after:
                text.note("following every run from now on")
            _note_reset(subscription)
            after = str(subscription.start)
            while subscription.ending is None or subscription.waiting:
                row = None
                if run_id is not None:
                    row = parts.store.find_run(run_id, tenant=LOCAL_TENANT)
                    if row is None:
                        return  # it was deleted
                # The row was read first: all events of a run that has ended are in the store.
                ended = row is not None and is_ended(row)
                found = await subscription.next(wait_ms=1 if ended else IDLE_MS)
                for told in found:
                    after = str(told.cursor)
                    yield {"id": after, **_document(told.content)}
                if ended and not found and subscription.ending is None:
                    return
            ending: Ending | None = subscription.ending
        if ending is Ending.CLOSED:
            return


def _note_reset(subscription: Subscription) -> None:
    from tandem.domain.event_cursor import RESET_MEANINGS

    if subscription.reset is not None:
        text.note(_AGAIN.format(reason=RESET_MEANINGS[subscription.reset]))


def _document(content: bytes) -> Mapping[str, Any]:
    from tandem.domain.json import decode

    document = decode(content)
    assert isinstance(document, dict)
    return document
