"""`tandem runs verify`: is the record of a run whole, and is what it vouches for still there?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tandem.adapters.cli import exits
from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.tools import Tools
    from tandem.engine.verification import Verification


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_server
@click.pass_obj
def verify(tools: Tools, run: str, as_json: bool) -> int:
    """Check the chain of receipts of a run, its outputs and its artifacts; exit 1 when not sound.

    The hash that is printed stands for everything up to now: note it elsewhere to compare later.
    """
    from tandem.adapters.cli import text

    async def check(desk: Desk) -> Verification:
        return await desk.verify(await desk.find_run_id(run))

    found = ask(tools, check)
    if as_json:
        text.print_json({"ok": not found.faults, **text.plain(found)})
    else:
        for fault in found.faults:
            click.echo(f"{fault.code}: {text.one_line(fault.message)}")
        if found.unsealed:
            click.echo(f"{text.count(found.unsealed, 'event')} from before there were receipts")
        verdict = text.count(len(found.faults), "fault") if found.faults else "sound"
        click.echo(
            f"run {found.run_id}: {verdict}, {text.count(found.events, 'event')}, "
            f"{text.count(found.artifacts, 'artifact')}, {found.head or 'no hash'}"
        )
    return exits.FAILED if found.faults else exits.COMPLETED
