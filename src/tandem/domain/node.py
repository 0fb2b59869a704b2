"""One step of an automation: what happens there, and after what (definitions 1.4)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from pydantic import Field, JsonValue, model_validator

from tandem.domain.action import Action, AgentAction, CommandAction, HttpAction
from tandem.domain.agent import McpPolicy, ToolPolicy
from tandem.domain.document import DocumentPart
from tandem.domain.duration import PositiveDurationMs
from tandem.domain.gate_definition import ExpiryPolicy, Gate, TimeoutAction
from tandem.domain.knowledge import KnowledgeBinding
from tandem.domain.output_contract import OutputContract, Validator
from tandem.domain.retry_policy import RetryPolicy
from tandem.domain.wait_definition import (
    ApprovalWait,
    ExternalConditionWait,
    TimerWait,
    Wait,
    WaitTimeout,
    WebhookWait,
)

ATTEMPTS_DEFAULT: Final = 3
ATTEMPTS_RESEARCH: Final = 5
"""Attempts of an agent node that must use named tools or writes a research brief."""
ATTEMPTS_MAX: Final = 10
REPAIR_BUDGET_DEFAULT: Final = 5
GATE_DECISIONS_DEFAULT: Final = ("approve", "rework", "cancel")
METADATA_GATE_DECISIONS: Final = ("Approve", "Reject")


class StageKind(StrEnum):
    """What part a node plays in its automation."""

    ORCHESTRATOR = "orchestrator"
    WORKSTREAM = "workstream"
    REVIEW = "review"
    TEST = "test"
    APPROVAL = "approval"


class NodeKind(StrEnum):
    """What happens at a node."""

    AGENT = "agent"
    COMMAND = "command"
    PYTHON = "python"
    HTTP = "http"
    APPROVAL = "approval"
    WAIT = "wait"


class Effects(StrEnum):
    """What a node's body changes: nothing, files of the workspace, or the world outside."""

    NONE = "none"
    WORKSPACE = "workspace"
    EXTERNAL = "external"


class ExecutorKind(StrEnum):
    """Where bodies run."""

    LOCAL = "local"
    RAY = "ray"


class Resources(DocumentPart):
    """What a body needs. `labels` are labels that its engine or machine must have."""

    cpus: float | None = Field(default=None, ge=0)
    gpus: float | None = Field(default=None, ge=0)
    memory_mb: int | None = Field(default=None, gt=0)
    labels: tuple[str, ...] = ()


class InputRef(DocumentPart):
    """The output of another node under a name of this one's."""

    from_step_id: str
    alias: str


class ForEach(DocumentPart):
    """One node run per item of a list: the list itself, or a reference to one."""

    items: JsonValue
    max_items: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _items_are_a_list_or_text(self) -> "ForEach":
        if not isinstance(self.items, str | list):
            raise ValueError("`items` must be a list or a reference such as ${inputs.names}")
        return self


class Node(DocumentPart):
    """One step of an automation. What it does is `kind`.

    For an agent `timeout_ms` is the time without activity; for every other action it is the
    absolute limit of one attempt, and `idle_timeout_ms` the time without activity.
    """

    node_id: str
    agent_id: str | None = None
    objective: str = ""
    knowledge: KnowledgeBinding | None = None
    depends_on: tuple[str, ...] = ()
    input_refs: tuple[InputRef, ...] = ()
    output_contract: OutputContract | None = None
    tool_policy: ToolPolicy | None = None
    mcp_policy: McpPolicy | None = None
    retry_policy: RetryPolicy | None = None
    timeout_ms: PositiveDurationMs | None = None
    max_tool_calls: int | None = Field(default=None, ge=0)
    stage_kind: StageKind | None = None
    gate: Gate | None = None
    wait: Wait | None = None
    metadata: JsonValue = None
    action: Action | None = None
    effects: Effects | None = None
    effects_probe: tuple[str, ...] | None = Field(default=None, min_length=1)
    executor: ExecutorKind | None = None
    resources: Resources | None = None
    for_each: ForEach | None = None
    idle_timeout_ms: PositiveDurationMs | None = None
    sandbox: bool | None = None

    @property
    def is_approval(self) -> bool:
        """Whether a person decides here and no body ever runs (definitions 1.5)."""
        return (
            self.stage_kind is StageKind.APPROVAL
            or isinstance(self.effective_wait, ApprovalWait)
            or self._metadata_asks_for_approval
        )

    @property
    def effective_wait(
        self,
    ) -> TimerWait | ApprovalWait | WebhookWait | ExternalConditionWait | None:
        """The node's `wait`, else a required gate seen as an approval wait (definitions 1.6)."""
        if self.wait is not None:
            return self.wait
        if self.gate is None or not self.gate.required:
            return None
        return ApprovalWait(
            decisions=self.gate.decisions, timeout=_gate_timeout(self.gate.expiry_policy)
        )

    @property
    def effective_gate(self) -> Gate | None:
        """The details of an approval node's gate, `None` for every other node.

        The first of the approval wait, `gate` and the metadata counts. There are always
        decisions, and instructions fall back to the objective.
        """
        if not self.is_approval:
            return None
        if isinstance(self.wait, ApprovalWait):
            gate = Gate(decisions=self.wait.decisions, expiry_policy=_wait_expiry(self.wait))
        elif self.gate is not None:
            gate = self.gate
        else:
            gate = self._metadata_gate()
        return gate.model_copy(
            update={
                "required": True,
                "decisions": gate.decisions or GATE_DECISIONS_DEFAULT,
                "instructions": gate.instructions or self.objective or None,
            }
        )

    @property
    def kind(self) -> NodeKind:
        """What happens at this node."""
        if self.is_approval:
            return NodeKind.APPROVAL
        if self.wait is not None:
            return NodeKind.WAIT
        return NodeKind(self.action.kind) if self.action else NodeKind.AGENT

    @property
    def effective_effects(self) -> Effects:
        """What the body changes: `effects`, else the default of the node's kind (design 6.1)."""
        if self.effects is not None:
            return self.effects
        if self.is_approval or self.wait is not None:
            return Effects.NONE
        match self.action:
            case None | AgentAction() | CommandAction():
                return Effects.WORKSPACE
            case HttpAction(method=method):
                return Effects.NONE if method in _SAFE_METHODS else Effects.EXTERNAL
            case _:
                return Effects.NONE

    @property
    def max_attempts(self) -> int:
        """How many attempts the node gets in all, 1 to 10."""
        policy = self.retry_policy
        if policy is not None and policy.max_attempts is not None:
            return min(max(policy.max_attempts, 1), ATTEMPTS_MAX)
        if self.effective_effects is Effects.EXTERNAL:
            return 1
        return ATTEMPTS_RESEARCH if self._is_research else ATTEMPTS_DEFAULT

    @property
    def repair_budget(self) -> int:
        """How many attempts may be spent on repairing an output that misses its contract."""
        contract = self.output_contract
        enforcement = contract.enforcement if contract else None
        budget = enforcement.repair_budget if enforcement else None
        return min(REPAIR_BUDGET_DEFAULT if budget is None else budget, self.max_attempts - 1)

    @property
    def _is_research(self) -> bool:
        contract = self.output_contract
        if contract is None or self.kind is not NodeKind.AGENT:
            return False
        if contract.validator is None and contract.kind == "brief":
            return True
        enforcement = contract.enforcement
        return contract.validator is Validator.RESEARCH_BRIEF or bool(
            enforcement and enforcement.required_tools
        )

    @property
    def _metadata_asks_for_approval(self) -> bool:
        metadata = _mapping(self.metadata)
        return (
            metadata.get("approval") is not None
            or metadata.get("stage_kind") == "approval"
            or _mapping(metadata.get("builder")).get("task_kind") == "human_decision_gate"
        )

    def _metadata_gate(self) -> Gate:
        approval = _mapping(_mapping(self.metadata).get("approval"))
        expiry = approval.get("expiry_policy", approval.get("gate_expiry_policy"))
        instructions = approval.get("instructions")
        return Gate(
            decisions=_texts(approval.get("decisions", approval.get("allowed_decisions")))
            or METADATA_GATE_DECISIONS,
            rework_targets=_texts(approval.get("rework_targets")),
            instructions=instructions if isinstance(instructions, str) else None,
            expiry_policy=None if expiry is None else ExpiryPolicy.model_validate(expiry),
        )


_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _gate_timeout(expiry: ExpiryPolicy | None) -> WaitTimeout | None:
    if expiry is None or expiry.expires_after_ms is None:
        return None
    return WaitTimeout(
        expires_after_ms=expiry.expires_after_ms,
        on_timeout=expiry.on_expiry or TimeoutAction.CANCEL,
        escalate_to=expiry.escalate_to,
        remind_every_ms=expiry.remind_every_ms,
    )


def _wait_expiry(wait: ApprovalWait) -> ExpiryPolicy | None:
    if wait.timeout is not None:
        return ExpiryPolicy(
            expires_after_ms=wait.timeout.expires_after_ms,
            on_expiry=wait.timeout.on_timeout,
            escalate_to=wait.timeout.escalate_to,
            remind_every_ms=wait.timeout.remind_every_ms,
        )
    if wait.expires_after_ms is None:
        return None
    return ExpiryPolicy(expires_after_ms=wait.expires_after_ms, on_expiry=TimeoutAction.CANCEL)
