"""`tandem serve`: the engine with its HTTP interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import Tools


@click.command()
@click.option("--host", metavar="ADDRESS", help="Listen here; TANDEM_HOST, else 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Listen on this port, 0 for a free one; TANDEM_PORT, else 39731.",
)
@click.pass_obj
def serve(tools: Tools, host: str | None, port: int | None) -> int:
    """Drive runs and answer over HTTP, until SIGTERM or Ctrl-C.

    Without a token it listens on this machine only.
    """
    import sys

    settings = tools.read_settings()
    is_for_machines = settings.log_is_json(on_screen=sys.stderr.isatty())

    def say(text: str) -> None:
        if not is_for_machines:  # else the log says it, so that every line of it is JSON
            click.echo(text, err=True)

    return tools.serve(
        settings,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        say=say,
    )
