"""The automation document: the graph of nodes, its agents, its schedule and its limits.

The fields are those of definitions 1 and 7 and design 6.1. The models check shapes and types;
what the parts say about each other is checked in `validation`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from tandem.domain.action import Action, AgentAction, CommandAction, HttpAction
from tandem.domain.duration import DurationMs, PositiveDurationMs
from tandem.domain.json import canonical

PARALLEL_DEFAULT: Final = 16
"""Nodes of one run that run at once when the document says nothing."""
PARALLEL_MAX: Final = 1_000
ATTEMPTS_DEFAULT: Final = 3
ATTEMPTS_RESEARCH: Final = 5
"""Attempts of an agent node that must use named tools or writes a research brief."""
ATTEMPTS_MAX: Final = 10
REPAIR_BUDGET_DEFAULT: Final = 5
GATE_DECISIONS_DEFAULT: Final = ("approve", "rework", "cancel")
METADATA_GATE_DECISIONS: Final = ("Approve", "Reject")

CONTRACT_RETRYABLE_CLASSES: Final = (
    "artifact_contract_unmet",
    "contract_miss",
    "execution_error",
    "missing_config",
    "provider_terminal",
    "provider_transient",
    "tool_resolution",
    "tool_resolution_failed",
    "validation_error",
    "wait_wakeup",
    "webhook_delivery",
    "outbox_send",
)
"""The failure classes that the published contract retries when a policy names none."""


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True
    )


# The schedule


class AutomationStatus(StrEnum):
    """Whether an automation may start runs by itself."""

    ACTIVE = "active"
    PAUSED = "paused"
    DRAFT = "draft"


class ScheduleType(StrEnum):
    """What makes a schedule fire."""

    MANUAL = "manual"
    INTERVAL = "interval"
    CRON = "cron"


class SkipMisfires(_Model):
    """Firings that were missed are not made up for."""

    type: Literal["skip"] = "skip"


class RunOnceAfterMisfires(_Model):
    """However many firings were missed, one run makes up for them."""

    type: Literal["run_once"] = "run_once"


class CatchUpMisfires(_Model):
    """Each missed firing gets its run, up to `max_runs` of them."""

    type: Literal["catch_up"] = "catch_up"
    max_runs: int = Field(ge=0)


MisfirePolicy = Annotated[
    SkipMisfires | RunOnceAfterMisfires | CatchUpMisfires, Field(discriminator="type")
]


class Schedule(_Model):
    """When runs start by themselves. `timezone` is an IANA name."""

    type: ScheduleType = ScheduleType.MANUAL
    cron_expression: str | None = None
    interval_seconds: int | None = Field(default=None, gt=0)
    timezone: str = "UTC"
    misfire_policy: MisfirePolicy = Field(default_factory=SkipMisfires)


# Agents and what they may touch


class ToolPolicy(_Model):
    """Tools that may be used, and tools that may not; the denylist wins."""

    allowlist: tuple[str, ...] = ()
    denylist: tuple[str, ...] = ()


class CurrentActor(_Model):
    """The connection acts as whoever started the run."""

    type: Literal["current_actor"] = "current_actor"


class ServicePrincipal(_Model):
    """The connection acts as a service account."""

    type: Literal["service_principal"] = "service_principal"
    principal_id: str


class AutomationPrincipal(_Model):
    """The connection acts as an automation."""

    type: Literal["automation_principal"] = "automation_principal"
    automation_id: str


class SharedConnection(_Model):
    """The connection is one that somebody shared."""

    type: Literal["shared_connection"] = "shared_connection"
    grant_id: str


RunAs = Annotated[
    CurrentActor | ServicePrincipal | AutomationPrincipal | SharedConnection,
    Field(discriminator="type"),
]


class McpConnection(_Model):
    """A grant to use one server through one connection."""

    server: str
    connection_id: str | None = None
    connection_generation: int | None = Field(default=None, ge=0)
    run_as: RunAs | None = None


class McpPolicy(_Model):
    """MCP servers and tools that may be used. `allowed_tools` absent means no restriction."""

    allowed_servers: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] | None = None
    allowed_connections: tuple[McpConnection, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        """Every server that may be used, sorted: those named and those of the connections."""
        return tuple(sorted({*self.allowed_servers, *(c.server for c in self.allowed_connections)}))


class AgentProfile(_Model):
    """Who performs a node: model, skills, tools."""

    agent_id: str
    display_name: str = Field(default_factory=lambda data: str(data["agent_id"]))
    template_id: str | None = None
    avatar_url: str | None = None
    model_policy: JsonValue = None
    skills: tuple[str, ...] = ()
    tool_policy: ToolPolicy = Field(default_factory=ToolPolicy)
    mcp_policy: McpPolicy = Field(default_factory=McpPolicy)
    approval_policy: str | None = None


# Knowledge


class KnowledgeReuse(StrEnum):
    """When stored knowledge is looked up."""

    DISABLED = "disabled"
    PREFLIGHT = "preflight"
    ON_DEMAND = "on_demand"


class TrustFloor(StrEnum):
    """How far knowledge must have come to be read."""

    WORKING = "working"
    PROMOTED = "promoted"
    APPROVED_DEFAULT = "approved_default"


class KnowledgeScope(StrEnum):
    """How widely a knowledge space is shared."""

    RUN = "run"
    PROJECT = "project"
    GLOBAL = "global"


class KnowledgeSpace(_Model):
    """A place that knowledge is read from or promoted to."""

    scope: KnowledgeScope = KnowledgeScope.PROJECT
    project_id: str | None = None
    namespace: str | None = None
    space_id: str | None = None


class KnowledgeBinding(_Model):
    """What a node may reuse of what was learnt before."""

    enabled: bool = True
    reuse_mode: KnowledgeReuse = KnowledgeReuse.PREFLIGHT
    trust_floor: TrustFloor = TrustFloor.PROMOTED
    read_spaces: tuple[KnowledgeSpace, ...] = ()
    promote_spaces: tuple[KnowledgeSpace, ...] = ()
    namespace: str | None = None
    subject: str | None = None
    freshness_ms: DurationMs | None = None


# Gates and waits


class TimeoutAction(StrEnum):
    """What happens when nobody came in time."""

    CANCEL = "cancel"
    ESCALATE = "escalate"
    REMIND = "remind"
    RESUME = "resume"


class ExpiryPolicy(_Model):
    """When a gate expires and what follows."""

    expires_after_ms: DurationMs | None = None
    on_expiry: TimeoutAction | None = None
    escalate_to: str | None = None
    remind_every_ms: DurationMs | None = None


class Gate(_Model):
    """A person's approval. Without `required` it only adds details to an approval node."""

    required: bool = False
    decisions: tuple[str, ...] = ()
    rework_targets: tuple[str, ...] = ()
    instructions: str | None = None
    expiry_policy: ExpiryPolicy | None = None


class LiteralBinding(_Model):
    """A value written in the document."""

    source: Literal["literal"] = "literal"
    value: JsonValue = None


class NodeOutputBinding(_Model):
    """A value taken from the stored output record of a node by JSON pointer."""

    source: Literal["node_output"] = "node_output"
    node_id: str
    json_pointer: str | None = None


Binding = Annotated[LiteralBinding | NodeOutputBinding, Field(discriminator="source")]


class WaitTimeout(_Model):
    """How long a wait may last and what follows then."""

    expires_after_ms: DurationMs
    on_timeout: TimeoutAction = TimeoutAction.CANCEL
    escalate_to: str | None = None
    remind_every_ms: DurationMs | None = None


class TimerWait(_Model):
    """Waits for a span (`delay_ms`) or until a moment (`wake_at`, ms since the epoch)."""

    kind: Literal["timer"] = "timer"
    delay_ms: DurationMs | None = None
    wake_at: Binding | None = None
    timeout: WaitTimeout | None = None


class ApprovalWait(_Model):
    """Waits for a person's decision."""

    kind: Literal["approval"] = "approval"
    decisions: tuple[str, ...] = ()
    expires_after_ms: DurationMs | None = None
    timeout: WaitTimeout | None = None


class CorrelationField(StrEnum):
    """The field of a webhook event that is compared."""

    PROVIDER_EVENT_ID = "provider_event_id"
    IDEMPOTENCY_KEY = "idempotency_key"
    BODY_DIGEST = "body_digest"


class Correlation(_Model):
    """Which event of a webhook a wait is waiting for."""

    field: CorrelationField
    value: Binding


class WebhookWait(_Model):
    """Waits for an event at a webhook trigger."""

    kind: Literal["webhook"] = "webhook"
    trigger_id: str
    provider: str | None = None
    provider_event_kind: str | None = None
    correlation: Correlation
    timeout: WaitTimeout


class ExternalConditionWait(_Model):
    """Waits until somebody reports the condition with this key."""

    kind: Literal["external_condition"] = "external_condition"
    condition_key: Binding
    timeout: WaitTimeout
    payload_schema: JsonValue = None


Wait = Annotated[
    TimerWait | ApprovalWait | WebhookWait | ExternalConditionWait, Field(discriminator="kind")
]


# What a node's output must look like


class Validator(StrEnum):
    """Which set of checks an output gets."""

    CODE_PATCH = "code_patch"
    RESEARCH_BRIEF = "research_brief"
    REVIEW_DECISION = "review_decision"
    STRUCTURED_JSON = "structured_json"
    GENERIC_ARTIFACT = "generic_artifact"
    STANDUP_UPDATE = "standup_update"


class RequiredToolCall(_Model):
    """A tool call that an attempt must have made."""

    tool: str
    args: JsonValue = None
    evidence_key: str | None = None
    required_success: bool = True


class Enforcement(_Model):
    """What must be there for an output to count, and what happens when it is not."""

    validation_profile: str | None = None
    required_tools: tuple[str, ...] = ()
    required_tool_calls: tuple[RequiredToolCall, ...] = ()
    required_evidence: tuple[str, ...] = ()
    required_sections: tuple[str, ...] = ()
    prewrite_gates: tuple[str, ...] = ()
    retry_on_missing: tuple[str, ...] = ()
    terminal_on: tuple[str, ...] = ()
    repair_budget: int | None = Field(default=None, ge=0)
    session_text_recovery: str | None = None


class Verification(_Model):
    """A command that judges the output: exit code 0 accepts it."""

    argv: tuple[str, ...] = Field(min_length=1)
    timeout_ms: PositiveDurationMs | None = None


def _contract_kind(data: Mapping[str, object]) -> str:
    return "generic_artifact" if data["output_schema"] is None else "structured_json"


class OutputContract(_Model):
    """What a node's output must look like to count.

    The document's key `schema` is `output_schema` here, because pydantic has a `schema` of its
    own. `required_files` are relative to the workspace.
    """

    output_schema: JsonValue = Field(default=None, alias="schema")
    kind: str = Field(default_factory=_contract_kind, min_length=1)
    validator: Validator | None = None
    enforcement: Enforcement | None = None
    summary_guidance: str | None = None
    required_files: tuple[str, ...] = ()
    required_sections: tuple[str, ...] = ()
    verification: Verification | None = None

    @property
    def sections(self) -> tuple[str, ...]:
        """All required sections, those of `enforcement` included, each once, in order."""
        enforced = self.enforcement.required_sections if self.enforcement else ()
        return tuple(dict.fromkeys((*self.required_sections, *enforced)))


# Trying again


class BackoffStrategy(StrEnum):
    """How the delay between attempts grows."""

    NONE = "none"
    FIXED = "fixed"
    EXPONENTIAL = "exponential"


class Backoff(_Model):
    """How long to wait before the next attempt; `max_delay_ms` 0 means no cap of its own."""

    strategy: BackoffStrategy = BackoffStrategy.NONE
    initial_delay_ms: DurationMs = 0
    max_delay_ms: DurationMs = 0
    multiplier: float = 2.0
    jitter_ms: DurationMs | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_aliases(cls, data: object) -> object:
        return _renamed(data, BACKOFF_ALIASES)


class TerminalMode(StrEnum):
    """What follows when the attempts are used up."""

    FAIL_RUN = "fail_run"
    PAUSE_FOR_REVIEW = "pause_for_review"
    DEAD_LETTER = "dead_letter"


class TerminalBehavior(_Model):
    """What follows when the attempts are used up."""

    mode: TerminalMode = TerminalMode.FAIL_RUN
    dead_letter: JsonValue = None


class ManualOverride(_Model):
    """Whether a person may grant more attempts."""

    enabled: bool = False
    requires_reason: bool = True


BACKOFF_ALIASES: Final[Mapping[str, str]] = {
    "delay_ms": "initial_delay_ms",
    "delayMs": "initial_delay_ms",
    "initialDelayMs": "initial_delay_ms",
    "maxDelayMs": "max_delay_ms",
    "jitterMs": "jitter_ms",
}
RETRY_ALIASES: Final[Mapping[str, str]] = {
    "maxAttempts": "max_attempts",
    "retry_on": "retryable_failure_classes",
    "retryOn": "retryable_failure_classes",
    "retryableFailureClasses": "retryable_failure_classes",
    "maxElapsedMs": "max_elapsed_ms",
    "terminalBehavior": "terminal_behavior",
    "manualOverride": "manual_override",
}
INLINE_BACKOFF_KEYS: Final = frozenset({*Backoff.model_fields, *BACKOFF_ALIASES})
"""Keys of the backoff that a retry policy may carry itself."""


def _renamed(data: object, aliases: Mapping[str, str]) -> object:
    if not isinstance(data, dict):
        return data
    renamed: dict[object, object] = {}
    for key, value in data.items():
        name = aliases.get(key, key) if isinstance(key, str) else key
        if name in renamed:
            raise ValueError(f"`{name}` is given twice, once under another of its names")
        renamed[name] = value
    return renamed


def _normal_class(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


class RetryPolicy(_Model):
    """Which failures are tried again, how often and how soon (definitions 7).

    `max_attempts` counts all attempts; absent means the node's default. `retryable_failure_classes`
    absent means the engine's default; empty or with `*` in it means every class. Names of
    classes are kept in lower case with underscores.
    """

    version: int = 1
    max_attempts: int | None = None
    retryable_failure_classes: tuple[str, ...] | None = None
    backoff: Backoff = Field(default_factory=Backoff)
    max_elapsed_ms: DurationMs | None = None
    terminal_behavior: TerminalBehavior | None = None
    manual_override: ManualOverride | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_aliases(cls, data: object) -> object:
        renamed = _renamed(data, RETRY_ALIASES)
        if not isinstance(renamed, dict):
            return renamed
        inline = {k: v for k, v in renamed.items() if k in INLINE_BACKOFF_KEYS}
        policy = {k: v for k, v in renamed.items() if k not in INLINE_BACKOFF_KEYS}
        if inline and "backoff" in policy:
            raise ValueError(f"`{next(iter(inline))}` belongs inside `backoff`, which is given too")
        if inline:
            policy["backoff"] = inline
        classes = policy.get("retryable_failure_classes")
        if isinstance(classes, list | tuple):
            policy["retryable_failure_classes"] = tuple(
                _normal_class(name) if isinstance(name, str) else name for name in classes
            )
        return policy


# Nodes


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


class Resources(_Model):
    """What a body needs. `labels` are labels that its engine or machine must have."""

    cpus: float | None = Field(default=None, ge=0)
    gpus: float | None = Field(default=None, ge=0)
    memory_mb: int | None = Field(default=None, gt=0)
    labels: tuple[str, ...] = ()


class InputRef(_Model):
    """The output of another node under a name of this one's."""

    from_step_id: str
    alias: str


class ForEach(_Model):
    """One node run per item of a list: the list itself, or a reference to one."""

    items: JsonValue
    max_items: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _items_are_a_list_or_text(self) -> "ForEach":
        if not isinstance(self.items, str | list):
            raise ValueError("`items` must be a list or a reference such as ${inputs.names}")
        return self


class Node(_Model):
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


class Flow(_Model):
    """The graph."""

    nodes: tuple[Node, ...]


# The automation


class ExecutionProfile(StrEnum):
    """How strictly a run treats what is missing."""

    STRICT = "strict"
    GUIDED = "guided"
    YOLO = "yolo"


class WorkspaceUse(StrEnum):
    """How a run holds its workspace."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    NONE = "none"


class ExecutionPolicy(_Model):
    """Limits of one run. A limit that is reached pauses the run."""

    profile: ExecutionProfile | None = None
    max_parallel_agents: int | None = None
    max_total_runtime_ms: DurationMs | None = None
    max_total_tokens: int | None = Field(default=None, ge=0)
    max_total_cost_usd: float | None = Field(default=None, ge=0)
    max_total_tool_calls: int | None = Field(default=None, ge=0)
    workspace: WorkspaceUse | None = None


class Concurrency(_Model):
    """At most `limit` runs with the same `key` at once; the key may hold `${inputs.…}`."""

    key: str = Field(min_length=1)
    limit: int = 1


class ScopePolicy(_Model):
    """Paths below the workspace that may be read, written and watched; denied ones win."""

    readable_paths: tuple[str, ...] = ()
    writable_paths: tuple[str, ...] = ()
    denied_paths: tuple[str, ...] = ()
    watch_paths: tuple[str, ...] = ()


class WatchCondition(_Model):
    """Starts a run when another automation hands something over; an absent filter accepts all."""

    kind: Literal["handoff_available"] = "handoff_available"
    source_automation_id: str | None = None
    artifact_type: str | None = None


class HandoffConfig(_Model):
    """Where handoff files are, relative to the workspace."""

    inbox_dir: str = "shared/handoffs/inbox"
    approved_dir: str = "shared/handoffs/approved"
    archived_dir: str = "shared/handoffs/archived"
    auto_approve: bool = True


class Automation(_Model):
    """A named, versioned definition: agents, nodes, schedule and limits.

    `inputs` is kept as it was written; `tandem.domain.inputs` makes a JSON Schema of it.
    """

    automation_id: str
    name: str = Field(default_factory=lambda data: str(data["automation_id"]))
    description: str | None = None
    status: AutomationStatus = AutomationStatus.ACTIVE
    schedule: Schedule = Field(default_factory=Schedule)
    knowledge: KnowledgeBinding | None = None
    agents: tuple[AgentProfile, ...] = ()
    flow: Flow
    execution: ExecutionPolicy | None = None
    output_targets: tuple[str, ...] = ()
    created_at_ms: int = Field(default=0, ge=0)
    updated_at_ms: int = Field(default=0, ge=0)
    creator_id: str | None = None
    workspace_root: str | None = None
    metadata: JsonValue = None
    next_fire_at_ms: int | None = Field(default=None, ge=0)
    last_fired_at_ms: int | None = Field(default=None, ge=0)
    scope_policy: ScopePolicy | None = None
    watch_conditions: tuple[WatchCondition, ...] = ()
    handoff_config: HandoffConfig | None = None
    inputs: dict[str, JsonValue] | None = None
    concurrency: Concurrency | None = None
    executor: ExecutorKind = ExecutorKind.LOCAL
    resources: Resources | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes in the order of the document."""
        return self.flow.nodes

    @property
    def parallel_max(self) -> int:
        """How many nodes of one run may run at once, 1 to 1,000; 16 when the document is silent."""
        wanted = self.execution.max_parallel_agents if self.execution else None
        return PARALLEL_DEFAULT if wanted is None else min(max(wanted, 1), PARALLEL_MAX)

    @property
    def workspace_use(self) -> WorkspaceUse:
        """How a run holds its workspace; by default exclusively when a node may write files."""
        if self.execution is not None and self.execution.workspace is not None:
            return self.execution.workspace
        writers = (NodeKind.AGENT, NodeKind.COMMAND)
        if any(node.kind in writers for node in self.nodes):
            return WorkspaceUse.EXCLUSIVE
        if any(node.effective_effects is Effects.WORKSPACE for node in self.nodes):
            return WorkspaceUse.EXCLUSIVE
        return WorkspaceUse.NONE

    def executor_of(self, node: Node) -> ExecutorKind:
        """Where the bodies of `node` run: its own choice, else the automation's."""
        return node.executor or self.executor

    def resources_of(self, node: Node) -> Resources:
        """What the bodies of `node` need: its own list, else the automation's, else nothing."""
        return node.resources or self.resources or Resources()


def canonical_document(automation: Automation) -> bytes:
    """Write the automation as canonical JSON: sorted keys, every default spelled out, no nulls.

    Documents that mean the same have the same bytes, and what was pinned keeps its meaning when a
    later version changes a default. Nulls inside free JSON (metadata, schemas, arguments) stay.
    """
    return canonical(automation.model_dump(mode="json", by_alias=True, exclude_none=True))


def parse_document(document: bytes) -> Automation:
    """Read what `canonical_document` wrote.

    Raises:
        pydantic.ValidationError: the bytes are not such a document.
    """
    return Automation.model_validate_json(document)
