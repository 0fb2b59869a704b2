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

_HOOKS: Final = "/automations/v2/{automation_id}/webhook-triggers"
_HOOK: Final = f"{_HOOKS}/{{trigger_id}}"
_DELIVERY: Final = f"{_HOOK}/deliveries/{{delivery_id}}"

POLICY: Final[Mapping[str, Scope | Open]] = {
    # Webhooks
    "POST /webhooks/automations/{token}": Open.INGRESS,
    "POST /webhooks/automations/{token}/{nonce}": Open.INGRESS,
    f"GET {_HOOKS}": S.VIEWER,
    f"POST {_HOOKS}": S.EDITOR,
    f"GET {_HOOK}": S.VIEWER,
    f"PATCH {_HOOK}": S.EDITOR,
    f"DELETE {_HOOK}": S.EDITOR,
    f"POST {_HOOK}/disable": S.EDITOR,
    f"POST {_HOOK}/rotate-secret": S.EDITOR,
    f"POST {_HOOK}/import-secret": S.EDITOR,
    f"POST {_HOOK}/reveal-verification-token": S.EDITOR,
    f"POST {_HOOK}/reset-verification": S.EDITOR,
    f"GET {_HOOK}/deliveries": S.VIEWER,
    f"GET {_DELIVERY}": S.VIEWER,
    f"POST {_DELIVERY}/redeliver": S.OPERATOR,
    "GET /automations/v2/webhook-events": S.VIEWER,
    "GET /automations/v2/webhook-events/{event_id}": S.VIEWER,
    "GET /automations/v2/runs/{run_id}/webhook-events": S.VIEWER,
    "GET /global/health": Open.HEALTH,
    "GET /global/workspace": S.VIEWER,
    "GET /openapi.json": S.VIEWER,
    "GET /scheduler/metrics": S.VIEWER,
}
