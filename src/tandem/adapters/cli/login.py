"""`tandem login` and `tandem logout`: what a server knows this person by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import Tools


@click.command()
@click.argument("url")
@click.option("--insecure", is_flag=True, help="Also over plain http:// to another machine.")
@click.pass_obj
def login(tools: Tools, url: str, insecure: bool) -> None:
    """Keep a token for the server at URL; it is asked for, or read from standard input.

    The token is tried before it is kept. The file is yours alone; a file that others may read is
    refused.
    """
    import asyncio

    from tandem.adapters.cli import text
    from tandem.adapters.cli.server_options import read_token

    settings = tools.read_settings()
    logins = tools.open_logins(settings)
    place = tools.server_url(url)
    logins.find(place)  # an unsafe file is refused before a token is typed
    token = tools.checked_token(place, read_token(), is_insecure=insecure)

    async def look() -> None:
        async with tools.connect(place, token) as server:
            await server.ask("GET", "/global/workspace")

    asyncio.run(look())
    logins.keep(place, token)
    click.echo(f"logged in to {place}")
    text.note(f"the token is kept in {logins.path}; forget it with: tandem logout {place}")
    text.note(f"ask this server with --url {place}, or set TANDEM_URL")


@click.command()
@click.argument("url", required=False)
@click.option("--all", "every", is_flag=True, help="Forget the tokens of all servers.")
@click.pass_obj
def logout(tools: Tools, url: str | None, every: bool) -> None:
    """Forget the token for the server at URL. The server goes on taking it until it is revoked."""
    from tandem.adapters.cli import text

    if (url is None) is not every:
        raise click.UsageError("name a server, or say --all")
    settings = tools.read_settings()
    gone = tools.open_logins(settings).forget(None if url is None else tools.server_url(url))
    for name in gone:
        click.echo(f"logged out of {name}")
    if not gone:
        text.note("there was nothing to forget")
