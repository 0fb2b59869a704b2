"""Who asks where one token, or none, is all there is."""

import hmac
from collections.abc import Mapping
from typing import Final

import msgspec

from tandem.adapters.http.errors import HttpError
from tandem.domain.caller import LOCAL_CALLER, ActorKind, Caller

TOKEN_HEADERS: Final = ("x-agent-token", "x-tandem-token")
AGENT_HEADER: Final = "x-tandem-agent-id"
ANCESTORS_HEADER: Final = "x-tandem-agent-ancestor-ids"


class LocalAccess:
    """One token that may do everything; without one, everybody may (D3)."""

    def __init__(self, token: str = "") -> None:
        self._token = token.encode()

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        """See `Access.caller_of`."""
        caller = LOCAL_CALLER
        if self._token:
            if not hmac.compare_digest(presented(headers).encode(), self._token):
                raise HttpError("AUTH_REQUIRED", "a token is needed, and none that is known came")
            caller = msgspec.structs.replace(caller, source="api_token")
        return as_agent(caller, headers)


def presented(headers: Mapping[str, str]) -> str:
    """Return the token of a request: the first header that is not empty counts (1.2)."""
    for name in TOKEN_HEADERS:
        token = headers.get(name, "").strip()
        if token:
            return token
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme in ("Bearer", "bearer") else ""


def as_agent(caller: Caller, headers: Mapping[str, str]) -> Caller:
    """Return the caller as the agent that a request names, if it names one (1.4)."""
    agent_id = headers.get(AGENT_HEADER, "").strip()
    if not agent_id:
        return caller
    ancestors = headers.get(ANCESTORS_HEADER, "").split(",")
    return msgspec.structs.replace(
        caller,
        kind=ActorKind.AGENT,
        actor_id=agent_id,
        ancestors=tuple(name.strip() for name in ancestors if name.strip()),
    )
