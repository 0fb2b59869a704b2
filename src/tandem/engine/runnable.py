"""What of an automation this engine cannot run. A promise is refused, never silently broken."""

from collections.abc import Iterator

from tandem.domain.automation import Automation
from tandem.domain.errors import Problem
from tandem.domain.gate_definition import TimeoutAction
from tandem.domain.node import ExecutorKind, Node, NodeKind
from tandem.domain.wait_definition import LiteralBinding, TimerWait

_EXPIRIES = (None, TimeoutAction.CANCEL, TimeoutAction.RESUME)


def unrunnable(automation: Automation) -> list[Problem]:
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
        for code, path, message, hint in _obstacles(automation, node)
    ]


def _obstacles(automation: Automation, node: Node) -> Iterator[tuple[str, str, str, str]]:
    """Yield code, path below the node, message and hint."""
    if node.kind is NodeKind.AGENT:
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
    yield from _wait_obstacles(node)
    gate = node.effective_gate
    expiry = gate.expiry_policy if gate is not None else None
    if expiry is not None and (expiry.on_expiry not in _EXPIRIES or expiry.remind_every_ms):
        yield (
            "expiry_not_available",
            ".gate.expiry_policy",
            "asks for reminders or escalation, which this version does not send",
            "use `on_expiry: cancel` or `resume`, without `remind_every_ms`",
        )


def _wait_obstacles(node: Node) -> Iterator[tuple[str, str, str, str]]:
    wait = node.wait
    if wait is None:
        return
    if wait.kind in ("webhook", "external_condition"):
        yield (
            "wait_not_available",
            ".wait.kind",
            f"waits for a {wait.kind}, which only a server can receive",
            "use a timer or an approval",
        )
    if isinstance(wait, TimerWait):
        if wait.wake_at is not None and not isinstance(wait.wake_at, LiteralBinding):
            yield (
                "wake_at_not_available",
                ".wait.wake_at",
                "takes its moment from another node, which this version cannot",
                "use a literal moment or `delay_ms`",
            )
        if wait.timeout is not None:
            yield (
                "wait_timeout_not_available",
                ".wait.timeout",
                "gives a timer a timeout, which this version does not act on",
                "leave it out: a timer ends by itself",
            )
