"""Who may ask which route. A route that is not listed here is refused to everybody."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from tandem.domain.caller import Scope


class Open(StrEnum):
    """A route that needs no token."""

    HEALTH = "health"
    """Tells whether the server lives; also before the engine is open."""
    INGRESS = "ingress"
    """Judged by its own signature."""


S = Scope

POLICY: Final[Mapping[str, Scope | Open]] = {
    "GET /global/health": Open.HEALTH,
    "GET /global/workspace": S.VIEWER,
    "GET /openapi.json": S.VIEWER,
    "GET /scheduler/metrics": S.VIEWER,
}
