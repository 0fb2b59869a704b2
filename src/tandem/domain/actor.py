"""Who acts for a caller: the governance actor (http-api 1.4), with trap D2 mended.

A caller that presents a token is a person unless the token or the request says otherwise. The
original makes a `system` of it, which may then change no automation.
"""

from typing import Final

import msgspec

from tandem.domain.caller import ActorKind, Caller
from tandem.domain.errors import InvalidRequest

NAME_MAX: Final = 256
ANCESTORS_MAX: Final = 32
_CONTROL_PANELS: Final = frozenset({"control_panel", "local_control_panel"})


def acting(caller: Caller, *, agent_id: str = "", ancestors: str = "", source: str = "") -> Caller:
    """Return who acts.

    Args:
        caller: who is known by what was presented.
        agent_id: the agent that the request says it comes from. It wins over everything but a
            token that belongs to an agent: that cannot speak for another one.
        ancestors: agents that made this one, the first one first, with commas in between.
        source: where the request says that it comes from.

    Raises:
        InvalidRequest: a name is too long or has control characters, or there are too many.
    """
    source = _name(source) or caller.source
    agent_id = _name(agent_id)
    if caller.kind is ActorKind.AGENT and caller.actor_id:
        agent_id = caller.actor_id
    if agent_id:
        return msgspec.structs.replace(
            caller,
            kind=ActorKind.AGENT,
            actor_id=agent_id,
            source=source,
            ancestors=_ancestors(ancestors),
        )
    return msgspec.structs.replace(caller, kind=_kind(caller, source), source=source)


def _kind(caller: Caller, source: str) -> ActorKind:
    """Return what a caller is that names no agent."""
    if caller.token_id or caller.actor_id or source in _CONTROL_PANELS:
        return caller.kind
    return ActorKind.SYSTEM


def _ancestors(text: str) -> tuple[str, ...]:
    names = tuple(name for part in text.split(",") if (name := _name(part)))
    if len(names) > ANCESTORS_MAX:
        raise InvalidRequest(
            f"an agent may name {ANCESTORS_MAX} ancestors", code="VALIDATION_FAILED"
        )
    return names


def _name(text: str) -> str:
    name = text.strip()
    if len(name) > NAME_MAX or not name.isprintable():
        raise InvalidRequest(
            f"a name in a header has at most {NAME_MAX} printable characters",
            code="VALIDATION_FAILED",
        )
    return name
