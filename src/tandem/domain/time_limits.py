"""How long an attempt may take: by the node's own limits, and by those of its kind."""

from tandem.domain.automation import NodeKind
from tandem.domain.graph import PlanNode

Limits = tuple[int | None, int | None]

AGENT_IDLE_MS = 600_000
"""How long an agent may show no activity when its node says nothing (run-lifecycle 4.5)."""


def limits_of(plan_node: PlanNode) -> Limits:
    """Return the idle and the absolute limit of an attempt, in milliseconds (design 6.1)."""
    node = plan_node.node
    if plan_node.kind is NodeKind.AGENT:
        idle = node.timeout_ms or AGENT_IDLE_MS
        return idle, max(3 * idle, idle + 60_000)
    return node.idle_timeout_ms, node.timeout_ms
