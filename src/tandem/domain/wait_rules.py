"""What a wait and a gate must satisfy (definitions 1.6); the codes are those of the contract."""

from collections.abc import Container, Iterator, Sequence
from typing import Final, assert_never

from tandem.domain.errors import Problem
from tandem.domain.gate_definition import TimeoutAction
from tandem.domain.node import Node
from tandem.domain.schema_check import InvalidSchema, compile_schema
from tandem.domain.wait_definition import (
    ApprovalWait,
    Binding,
    ExternalConditionWait,
    LiteralBinding,
    NodeOutputBinding,
    TimerWait,
    WaitTimeout,
    WebhookWait,
)

_EXECUTION_FIELDS: Final = (
    "tool_policy",
    "mcp_policy",
    "retry_policy",
    "timeout_ms",
    "max_tool_calls",
    "idle_timeout_ms",
)


class WaitRules:
    """Checks the wait of one node.

    `path` is the node's place in the document and `known` holds the ids of all nodes.
    """

    def __init__(self, node: Node, *, path: str, known: Container[str]) -> None:
        self._node = node
        self._path = path
        self._known = known

    def problems(self) -> Iterator[Problem]:
        """Yield every rule that the node's wait, or its required gate seen as one, breaks."""
        node = self._node
        if node.wait is None:
            yield from self._gate_problems()
            return
        if node.gate is not None:
            yield self._problem("wait_gate_conflict", "a node has `wait` or `gate`, not both", "")
        if node.action is not None:
            yield self._problem(
                "wait_with_action", "a node that waits runs nothing, but has an action", ".action"
            )
        for name in _EXECUTION_FIELDS:
            if getattr(node, name) is not None:
                yield self._problem(
                    "wait_node_has_execution_policy",
                    f"`{name}` has no meaning beside `wait`, where nothing is executed",
                    f".{name}",
                )
        match node.wait:
            case TimerWait():
                yield from self._timer_problems(node.wait)
            case ApprovalWait():
                yield from self._approval_problems(node.wait)
            case WebhookWait():
                yield from self._webhook_problems(node.wait)
            case ExternalConditionWait():
                yield from self._condition_problems(node.wait)
            case _:
                assert_never(node.wait)

    def _gate_problems(self) -> Iterator[Problem]:
        gate = self._node.gate
        if gate is None or not gate.required:
            return
        # Without decisions of its own a gate offers approve, rework and cancel.
        if gate.decisions:
            yield from self._decision_problems(gate.decisions, ".gate.decisions")
        expiry = gate.expiry_policy
        if expiry is not None:
            yield from self._span_problems(
                ".gate.expiry_policy",
                expires_after_ms=expiry.expires_after_ms,
                remind_every_ms=expiry.remind_every_ms,
                escalates=expiry.on_expiry is TimeoutAction.ESCALATE,
                escalate_to=expiry.escalate_to,
            )

    def _timer_problems(self, wait: TimerWait) -> Iterator[Problem]:
        if (wait.delay_ms is None) == (wait.wake_at is None):
            yield self._problem(
                "timer_wake_conflict", "a timer needs exactly one of `delay_ms` and `wake_at`"
            )
        if wait.delay_ms == 0:
            yield self._problem(
                "timer_delay_invalid", "`delay_ms` must be more than 0", ".wait.delay_ms"
            )
        if isinstance(wait.wake_at, LiteralBinding) and not _is_moment(wait.wake_at.value):
            yield self._problem(
                "timer_wake_at_invalid",
                "a literal `wake_at` is a positive whole number of milliseconds since 1970",
                ".wait.wake_at.value",
            )
        if wait.wake_at is not None:
            yield from self._reference_problems(wait.wake_at, ".wait.wake_at")
        if wait.timeout is not None:
            yield from self._timeout_problems(wait.timeout)

    def _approval_problems(self, wait: ApprovalWait) -> Iterator[Problem]:
        yield from self._decision_problems(wait.decisions, ".wait.decisions")
        if wait.expires_after_ms == 0:
            yield self._problem(
                "approval_expiry_invalid",
                "`expires_after_ms` must be more than 0",
                ".wait.expires_after_ms",
            )
        if wait.timeout is None:
            return
        if wait.expires_after_ms is not None:
            yield self._problem(
                "approval_timeout_conflict",
                "an approval has `expires_after_ms` or `timeout`, not both",
                ".wait.expires_after_ms",
            )
        if wait.timeout.on_timeout is TimeoutAction.RESUME:
            yield self._problem(
                "approval_timeout_resume_forbidden",
                "silence is no approval: `on_timeout: resume` is not allowed here",
                ".wait.timeout.on_timeout",
            )
        yield from self._timeout_problems(wait.timeout)

    def _webhook_problems(self, wait: WebhookWait) -> Iterator[Problem]:
        if not wait.trigger_id.strip():
            yield self._problem(
                "webhook_trigger_invalid", "`trigger_id` is blank", ".wait.trigger_id"
            )
        value = wait.correlation.value
        if _is_empty(value):
            yield self._problem(
                "webhook_correlation_invalid",
                "the value to compare with is null or names no node",
                ".wait.correlation.value",
            )
        yield from self._reference_problems(value, ".wait.correlation.value")
        yield from self._timeout_problems(wait.timeout)

    def _condition_problems(self, wait: ExternalConditionWait) -> Iterator[Problem]:
        if _is_empty(wait.condition_key):
            yield self._problem(
                "external_condition_invalid",
                "`condition_key` is null or names no node",
                ".wait.condition_key",
            )
        yield from self._reference_problems(wait.condition_key, ".wait.condition_key")
        yield from self._timeout_problems(wait.timeout)
        if wait.payload_schema is not None:
            try:
                compile_schema(wait.payload_schema)
            except InvalidSchema as error:
                yield self._problem("schema_invalid", str(error), ".wait.payload_schema")

    def _decision_problems(self, decisions: Sequence[str], where: str) -> Iterator[Problem]:
        texts = [decision.strip().casefold() for decision in decisions]
        if not texts:
            message = "an approval needs at least one decision"
        elif not all(texts):
            message = "a decision is blank"
        elif len(set(texts)) < len(texts):
            message = "a decision is listed twice"
        else:
            return
        yield self._problem("approval_decisions_invalid", message, where)

    def _timeout_problems(self, timeout: WaitTimeout) -> Iterator[Problem]:
        return self._span_problems(
            ".wait.timeout",
            expires_after_ms=timeout.expires_after_ms,
            remind_every_ms=timeout.remind_every_ms,
            escalates=timeout.on_timeout is TimeoutAction.ESCALATE,
            escalate_to=timeout.escalate_to,
        )

    def _span_problems(
        self,
        where: str,
        *,
        expires_after_ms: int | None,
        remind_every_ms: int | None,
        escalates: bool,
        escalate_to: str | None,
    ) -> Iterator[Problem]:
        code = "wait_timeout_invalid"
        if expires_after_ms == 0:
            yield self._problem(
                code, "`expires_after_ms` must be more than 0", f"{where}.expires_after_ms"
            )
        if remind_every_ms == 0:
            yield self._problem(
                code, "`remind_every_ms` must be more than 0", f"{where}.remind_every_ms"
            )
        if escalates and not (escalate_to or "").strip():
            yield self._problem(code, "`escalate` needs `escalate_to`", where)

    def _reference_problems(self, binding: Binding, where: str) -> Iterator[Problem]:
        if not isinstance(binding, NodeOutputBinding) or not binding.node_id.strip():
            return
        named = f"`{binding.node_id}`"
        if binding.node_id not in self._known:
            yield self._problem(
                "wait_binding_unknown_node", f"there is no node {named}", f"{where}.node_id"
            )
        elif binding.node_id not in self._node.depends_on:
            yield self._problem(
                "wait_binding_not_dependency",
                f"the wait uses the output of {named}, but does not depend on it",
                f"{where}.node_id",
                hint=f"add {named} to `depends_on`",
            )
        if binding.json_pointer and not binding.json_pointer.startswith("/"):
            yield self._problem(
                "wait_binding_invalid_json_pointer",
                "a JSON pointer is empty or starts with `/`",
                f"{where}.json_pointer",
            )

    def _problem(self, code: str, message: str, where: str = ".wait", *, hint: str = "") -> Problem:
        return Problem(
            code=code,
            message=message,
            path=f"{self._path}{where}",
            hint=hint,
            node_id=self._node.node_id,
        )


def _is_moment(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_empty(binding: Binding) -> bool:
    if isinstance(binding, LiteralBinding):
        return binding.value is None
    return not binding.node_id.strip()
