"""`--url` and `--token`: whether a command is about the store here or about a server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.local_desk import LocalDesk
    from tandem.adapters.cli.tools import Tools
    from tandem.settings import Settings

T = TypeVar("T")

_URL: Final = "tandem.url"
_TOKEN: Final = "tandem.token"  # noqa: S105 # the name of an option
_INSECURE: Final = "tandem.insecure"


class Place(NamedTuple):
    """A server, and by what it knows who asks."""

    url: str
    token: str
    beside: str
    """What a command needs at its end to be asked of the same server."""


def _kept(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            ctx.meta[name] = value

    return keep


def server_options() -> list[Callable[..., Any]]:
    """Return the options; what they are given is read by `place_of`."""
    return [
        click.option(
            "--url",
            metavar="URL",
            expose_value=False,
            callback=_kept(_URL),
            help="Ask this server instead of the store here; TANDEM_URL.",
        ),
        click.option(
            "--token",
            metavar="TOKEN",
            expose_value=False,
            callback=_kept(_TOKEN),
            help="What the server knows you by; `-` reads it from standard input, @FILE from a "
            "file; TANDEM_TOKEN, else that of `tandem login`.",
        ),
        click.option(
            "--insecure",
            is_flag=True,
            expose_value=False,
            callback=_kept(_INSECURE),
            help="Send a token over plain http:// to another machine.",
        ),
    ]


def on_server(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a server."""
    for option in reversed(server_options()):
        function = option(function)
    return function


def place_of(tools: Tools, settings: Settings) -> Place | None:
    """Return the server that this command is for; None for the store here.

    `--url` comes before TANDEM_URL; `--token` before TANDEM_TOKEN before the token of a login.

    Raises:
        InvalidRequest: the URL is none, or a token would travel as plain text.
        Refused: the file of logins is not safe.
        click.UsageError: a token without a server.
    """
    meta = click.get_current_context().meta
    given = meta.get(_URL, "")
    if not given and not settings.url:
        if meta.get(_TOKEN) or meta.get(_INSECURE):
            raise click.UsageError("--token and --insecure are for a server; name it with --url")
        return None
    from shlex import quote

    url = tools.server_url(given or settings.url)
    return Place(
        url=url,
        token=tools.checked_token(
            url, _token(tools, settings, url), is_insecure=bool(meta.get(_INSECURE))
        ),
        beside=f" --url {quote(url)}" if given else "",
    )


def _token(tools: Tools, settings: Settings, url: str) -> str:
    given = click.get_current_context().meta.get(_TOKEN, "")
    if not given:
        return settings.token or tools.open_logins(settings).find(url)
    if given == "-":
        return read_token()
    from tandem.adapters.cli.given import read_value

    if not given.startswith("@"):
        from tandem.adapters.cli.text import note

        note(
            "a token on the command line can be read by everybody on this machine; "
            "TANDEM_TOKEN, `--token @FILE` and `tandem login` keep it secret"
        )
    return read_value(given).strip()


def read_token() -> str:
    """Read a token from standard input, without showing it where a person types it.

    Raises:
        click.UsageError: there is none.
    """
    import sys

    if sys.stdin.isatty():
        token = str(click.prompt("Token", hide_input=True, err=True))
    else:
        token = sys.stdin.readline(8_192)
    if not token.strip() or not token.strip().isprintable() or not token.isascii():
        raise click.UsageError("standard input has no token")
    return token.strip()


def ask(tools: Tools, question: Callable[[Desk], Awaitable[T]], *, acts: bool = False) -> T:
    """Ask something of what the command is about, and return the answer; see `open_desk`."""
    import asyncio

    async def asked() -> T:
        async with open_desk(tools, acts=acts) as desk:
            return await question(desk)

    return asyncio.run(asked())


@asynccontextmanager
async def open_desk(tools: Tools, *, acts: bool = False) -> AsyncIterator[Desk]:
    """Open what the command is about: a server, or the store here.

    Args:
        tools: of this process.
        acts: whether more is asked than to look; an engine is opened for that here.

    Raises:
        EngineError: it cannot be opened, or see `place_of`.
    """
    settings = tools.read_settings()
    place = place_of(tools, settings)
    if place is None:
        async with open_local_desk(tools, settings, acts=acts) as local:
            yield local
        return
    from tandem.adapters.cli.remote_desk import RemoteDesk

    async with tools.connect(place.url, place.token) as server:
        yield RemoteDesk(server, beside=place.beside)


@asynccontextmanager
async def open_local_desk(
    tools: Tools, settings: Settings, *, acts: bool
) -> AsyncIterator[LocalDesk]:
    """Open the store here, with an engine that drives nothing when something is to be done."""
    from tandem.adapters.cli.local_desk import LocalDesk
    from tandem.adapters.cli.text import note

    if acts:
        async with tools.open_engine(settings, drives=False, on_problem=note) as parts:
            yield LocalDesk(tools, settings, parts.store, parts)
        return
    store = tools.open_store(settings)
    try:
        yield LocalDesk(tools, settings, store, None)
    finally:
        store.close()
