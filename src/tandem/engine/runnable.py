"""What of an automation this engine cannot run. A promise is refused, never silently broken."""

from collections.abc import Iterator

from tandem.domain.automation import Automation
from tandem.domain.errors import Problem
from tandem.domain.node import ExecutorKind, Node, NodeKind


def unrunnable(automation: Automation, *, has_agents: bool = False) -> list[Problem]:
    """Return what of this automation the engine cannot run, each with what to do about it."""
    return [
        Problem(
            code=code,
            node_id=node.node_id,
            path=f"flow.nodes[{index}]{path}",
            message=f"node `{node.node_id}` {message}",
            hint=hint,
        )
        for index, node in enumerate(automation.flow.nodes)
        for code, path, message, hint in _obstacles(automation, node, has_agents=has_agents)
    ]


def _obstacles(
    automation: Automation, node: Node, *, has_agents: bool
) -> Iterator[tuple[str, str, str, str]]:
    """Yield code, path below the node, message and hint."""
    if node.kind is NodeKind.AGENT and not has_agents:
        yield (
            "agents_not_installed",
            "",
            "needs a model session, and agents are not installed",
            "install them with: pip install 'tandem-engine[agents]'",
        )
    if node.sandbox:
        yield (
            "sandbox_not_available",
            ".sandbox",
            "asks for a sandbox, which this version does not have",
            "it would run with all rights of the engine; leave `sandbox` out if that is fine",
        )
    if automation.executor_of(node) is not ExecutorKind.LOCAL:
        yield (
            "executor_not_available",
            ".executor",
            "asks for a cluster, which this version does not know",
            "use `executor: local`",
        )
