"""`tandem tokens`: who may ask the server, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from tandem.adapters.cli.server_options import ask, on_server

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tandem.adapters.cli.desk import Desk
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.ids import TenantId
    from tandem.domain.token import Token

_LISTED_MAX: Final = 1_000
_SCOPES: Final = ("viewer", "operator", "approver", "editor", "admin")
_KINDS: Final = ("human", "agent", "system")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_tenant = click.option(
    "--tenant", metavar="ORG/WORKSPACE", help="Whose tokens: `org/workspace[/deployment]`."
)


@click.group()
def tokens() -> None:
    """Make, list and revoke the tokens of the store here, or of a server.

    As soon as one was made the server asks everybody for one.
    """


@tokens.command()
@click.option("--name", required=True, help="What it is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(_SCOPES),
    help="What its holder may do; may be given more than once.",
)
@click.option(
    "--expires-in", metavar="SPAN", help="How long it is valid, such as 12h or 90d; else for ever."
)
@_tenant
@click.option("--actor", default="", help="Who is recorded for what its holder does.")
@click.option(
    "--kind", type=click.Choice(_KINDS), default="human", show_default=True, help="What they are."
)
@_json
@on_server
@click.pass_obj
def create(
    tools: Tools,
    name: str,
    scopes: tuple[str, ...],
    expires_in: str | None,
    tenant: str | None,
    actor: str,
    kind: str,
    as_json: bool,
) -> None:
    """Make a token. Its text is shown once and kept nowhere."""
    from tandem.adapters.cli import text
    from tandem.domain.caller import ActorKind, Scope

    wanted, expires_in_ms = _tenant_of(tenant), _span_ms(expires_in)

    def make(desk: Desk) -> Awaitable[tuple[Token, str]]:
        return desk.create_token(
            wanted,
            name=name,
            scopes=[Scope(scope) for scope in scopes],
            actor_id=actor,
            kind=ActorKind(kind),
            expires_in_ms=expires_in_ms,
        )

    token, secret = ask(tools, make, acts=True)
    if as_json:
        text.print_json({"token": _plain(token), "secret": secret})
        return
    click.echo(text.clean(secret))
    until = f"until {text.moment(token.expires_at_ms)}" if token.expires_at_ms else "for ever"
    shown = text.one_line(token.name)
    text.note(
        f"token {token.token_id} (`{shown}`) for {_tenant_words(token.tenant)}: "
        f"{', '.join(sorted(token.scopes))}, {until}"
    )
    text.note(
        "this is the only time that it is shown; keep it where secrets are kept, and send it as "
        "`Authorization: Bearer TOKEN`"
    )


@tokens.command("list")
@_tenant
@_json
@on_server
@click.pass_obj
def list_(tools: Tools, tenant: str | None, as_json: bool) -> None:
    """List the tokens, without their texts, which nobody has."""
    import time

    from tandem.adapters.cli import text

    wanted = _tenant_of(tenant)
    found = ask(tools, lambda desk: desk.list_tokens(wanted, limit=_LISTED_MAX))
    now_ms = time.time_ns() // 1_000_000
    if as_json:
        text.print_json([_plain(token, now_ms) for token in found])
        return
    text.print_table(
        [
            {
                "token": token.token_id,
                "name": text.one_line(token.name, width=30),
                "tenant": text.one_line(_tenant_words(token.tenant), width=30),
                "scopes": ", ".join(sorted(token.scopes)),
                "actor": text.one_line(token.actor_id, width=30),
                "state": token.state(now_ms).value,
                "expires": text.moment(token.expires_at_ms),
                "last used": text.moment(token.last_used_at_ms),
            }
            for token in found
        ]
    )
    if not found:
        text.note("there is no token; `tandem tokens create` makes one")


@tokens.command()
@click.argument("token_id", metavar="TOKEN")
@_json
@on_server
@click.pass_obj
def revoke(tools: Tools, token_id: str, as_json: bool) -> None:
    """End a token for good. TOKEN is its id, as `tandem tokens list` shows it."""
    from tandem.adapters.cli import text

    revoked = ask(tools, lambda desk: desk.revoke_token(token_id), acts=True)
    if as_json:
        text.print_json({"token": _plain(revoked)})
        return
    click.echo(
        f"token {revoked.token_id} (`{text.one_line(revoked.name)}`) is revoked; servers refuse it "
        "within a second"
    )


def _plain(token: Token, now_ms: int | None = None) -> dict[str, Any]:
    import msgspec

    shown: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(token, digest=b""))
    del shown["digest"]
    shown["scopes"] = sorted(token.scopes)
    if now_ms is not None:
        shown["state"] = token.state(now_ms).value
    return shown


def _tenant_of(words: str | None) -> TenantId | None:
    from tandem.domain.tenant import TenantContext, TenantSource

    if words is None:
        return None
    parts = [part.strip() for part in words.split("/")]
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise click.UsageError("--tenant is `org/workspace` or `org/workspace/deployment`")
    return TenantContext(
        org_id=parts[0],
        workspace_id=parts[1],
        deployment_id=parts[2] if len(parts) == 3 else None,
        source=TenantSource.EXPLICIT,
    ).tenant


def _tenant_words(tenant: TenantId) -> str:
    from tandem.domain.tenant import context_of

    found = context_of(tenant)
    parts = (found.org_id, found.workspace_id, found.deployment_id)
    return "/".join(part for part in parts if part)


def _span_ms(words: str | None) -> int | None:
    from tandem.domain.duration import parse_duration_ms

    if words is None:
        return None
    try:
        found = parse_duration_ms(words)
    except ValueError as error:
        raise click.UsageError(f"--expires-in: {error}") from None
    assert isinstance(found, int)
    return found
