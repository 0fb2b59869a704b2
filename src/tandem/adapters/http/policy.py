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
    "GET /healthz": Open.HEALTH,
    "GET /readyz": Open.HEALTH,
    "GET /metrics": S.VIEWER,
    "GET /global/workspace": S.VIEWER,
    "GET /openapi.json": S.VIEWER,
    "GET /scheduler/metrics": S.VIEWER,
    # Tokens
    "GET /tokens": S.ADMIN,
    "POST /tokens": S.ADMIN,
    "POST /tokens/{token_id}/revoke": S.ADMIN,
    "GET /audit": S.ADMIN,
    # Events
    "GET /event": S.VIEWER,
    "GET /global/event": S.VIEWER,
    "GET /automations/v2/events": S.VIEWER,
    "GET /run/{run_id}/events": S.VIEWER,
    "GET /api/run/{run_id}/events": S.VIEWER,
    "GET /runs/{run_id}/events": S.VIEWER,
    # Automations
    "GET /automations/v2": S.VIEWER,
    "POST /automations/v2": S.EDITOR,
    "GET /automations/v2/{automation_id}": S.VIEWER,
    "PATCH /automations/v2/{automation_id}": S.EDITOR,
    "PUT /automations/v2/{automation_id}": S.EDITOR,
    "DELETE /automations/v2/{automation_id}": S.EDITOR,
    "GET /automations/v2/{automation_id}/versions/{version}": S.VIEWER,
    "GET /automations/v2/{automation_id}/records": S.VIEWER,
    "GET /automations/v2/{automation_id}/firings": S.VIEWER,
    "POST /automations/v2/{automation_id}/share": S.EDITOR,
    "POST /automations/v2/{automation_id}/pause": S.OPERATOR,
    "POST /automations/v2/{automation_id}/resume": S.OPERATOR,
    "POST /automations/v2/{automation_id}/run_now": S.OPERATOR,
    # Runs
    "GET /automations/v2/runs": S.VIEWER,
    "GET /automations/v2/{automation_id}/runs": S.VIEWER,
    "GET /automations/v2/runs/{run_id}": S.VIEWER,
    "DELETE /automations/v2/runs/{run_id}": S.ADMIN,
    "POST /automations/v2/runs/{run_id}/pause": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/resume": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/cancel": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/recover": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/repair": S.EDITOR,
    "POST /automations/v2/runs/{run_id}/redeliver": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/fork": S.OPERATOR,
    "GET /automations/v2/runs/{run_id}/rows": S.VIEWER,
    "GET /automations/v2/runs/{run_id}/preview": S.VIEWER,
    "GET /automations/v2/runs/{run_id}/why": S.VIEWER,
    "GET /automations/v2/runs/{run_id}/history": S.VIEWER,
    "GET /automations/v2/runs/{run_id}/verify": S.VIEWER,
    "POST /automations/v2/runs/{run_id}/gate": S.APPROVER,
    "POST /automations/v2/runs/bulk": S.OPERATOR,
    "GET /automations/v2/runs/{run_id}/artifacts": S.VIEWER,
    "GET /automations/v2/runs/{run_id}/artifacts/{digest}": S.VIEWER,
    "GET /automations/v2/graduation/summary": S.VIEWER,
    "GET /approvals/pending": S.VIEWER,
    # Budgets
    "GET /automations/v2/runs/{run_id}/usage": S.VIEWER,
    "POST /automations/v2/runs/{run_id}/allow": S.OPERATOR,
    # Backlogs and handoffs
    "GET /automations/v2/runs/{run_id}/backlog/tasks": S.VIEWER,
    "POST /automations/v2/runs/{run_id}/backlog/tasks/{task_id}/claim": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/backlog/tasks/{task_id}/requeue": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/backlog/tasks/{task_id}/complete": S.OPERATOR,
    "GET /automations/v2/{automation_id}/handoffs": S.VIEWER,
    "POST /automations/v2/{automation_id}/handoffs/{handoff_id}/approve": S.OPERATOR,
    # Waits
    "GET /automations/v2/waits": S.VIEWER,
    "POST /automations/v2/runs/{run_id}/waits/{node_id}/resolve": S.OPERATOR,
    "POST /automations/v2/signals": S.OPERATOR,
    # Nodes of runs
    "GET /automations/v2/runs/{run_id}/tasks/{node_id}/reset_preview": S.VIEWER,
    "POST /automations/v2/runs/{run_id}/tasks/{node_id}/retry": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/tasks/{node_id}/requeue": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/tasks/{node_id}/continue": S.OPERATOR,
    "POST /automations/v2/runs/{run_id}/tasks/{node_id}/skip": S.OPERATOR,
    "GET /automations/v2/runs/{run_id}/tasks/{node_id}/output": S.VIEWER,
    "POST /automations/v2/runs/{run_id}/tasks/{node_id}/output": S.OPERATOR,
    "PATCH /automations/v2/runs/{run_id}/tasks/{node_id}/disposition": S.OPERATOR,
}

DEFINING: Final = frozenset(name for name, needed in POLICY.items() if needed is S.EDITOR) - {
    "POST /automations/v2/runs/{run_id}/repair"
}
"""Routes that change definitions or their triggers; a repair changes one run, unless it saves."""
