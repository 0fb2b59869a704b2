"""The headers that say who asks (http-api 1.2 to 1.4)."""

from collections.abc import Mapping, Sequence
from typing import Final

from tandem.domain.actor import acting
from tandem.domain.caller import Caller

TOKEN_HEADERS: Final = ("x-agent-token", "x-tandem-token")
ASSERTION_HEADERS: Final = (
    "x-tandem-context-assertion",
    "x-tandem-context-jws",
    "x-tandem-tenant-context-jws",
)
RAW_TENANT_HEADERS: Final = (
    "x-tandem-org-id",
    "x-tenant-org-id",
    "x-tandem-workspace-id",
    "x-tenant-workspace-id",
    "x-tandem-actor-id",
    "x-user-id",
)
AGENT_HEADER: Final = "x-tandem-agent-id"
ANCESTORS_HEADER: Final = "x-tandem-agent-ancestor-ids"
SOURCE_HEADER: Final = "x-tandem-request-source"
ROOT_TOKEN_ID: Final = "environment"  # noqa: S105 # a name, no secret
"""Stands for the token of the environment where the id of a token is recorded."""


def actor_of(caller: Caller, headers: Mapping[str, str]) -> Caller:
    """Return who acts for a caller, as the request says it.

    Raises:
        InvalidRequest: a header names somebody in an impossible way.
    """
    return acting(
        caller,
        agent_id=headers.get(AGENT_HEADER, ""),
        ancestors=headers.get(ANCESTORS_HEADER, ""),
        source=headers.get(SOURCE_HEADER, ""),
    )


def presented(headers: Mapping[str, str]) -> str:
    """Return the token of a request: the first header that is not empty counts (http-api 1.2)."""
    token = first_of(headers, TOKEN_HEADERS)
    if token:
        return token
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme in ("Bearer", "bearer") else ""


def first_of(headers: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the first of these headers that is not empty; empty when all are."""
    return next((value for name in names if (value := headers.get(name, "").strip())), "")
