"""What is recorded of a run: its own row, its node runs, attempts, gates, waits and events."""

from enum import StrEnum
from typing import Any, Final

import msgspec

from tandem.domain.artifact import ArtifactRef
from tandem.domain.candidate import Learning, LearningSummary
from tandem.domain.execution import ExecutionProfile
from tandem.domain.ids import (
    AttemptId,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    EngineId,
    GateId,
    NodeId,
    RunId,
    TenantId,
    WaitId,
)
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind
from tandem.domain.reading import Reading
from tandem.domain.trigger import TriggerType
from tandem.domain.usage import Usage


class QueueReason(StrEnum):
    """Why a queued run is not claimed yet (design section 5); checked in this order.

    `capacity` and `no_engine` are told when somebody asks, they are never stored.
    """

    RETRY_BACKOFF = "retry_backoff"
    AUTOMATION_PAUSED = "automation_paused"
    REVIEW_REQUIRED = "review_required"
    RATE_LIMIT = "rate_limit"
    WORKSPACE_LOCK = "workspace_lock"
    CONCURRENCY = "concurrency"
    CAPACITY = "capacity"
    NO_ENGINE = "no_engine"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What made a run or a node fail (run-lifecycle 1.3)."""

    node_id: NodeId
    reason: str
    failed_at_ms: int
    failure_kind: str = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class RuntimeClock(StrEnum):
    """What counts as the runtime of a run; chosen when it is created."""

    ACTIVE = "active"
    """The time in which an engine drives it."""
    WALL = "wall"
    """All time since it was first claimed, as the original counts it."""


class Allowance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits that an operator gave to one run in place of those of its definition.

    `resumes` says that a run which comes to rest because of its budget goes on by itself once
    that is not reached any more.
    """

    max_total_runtime_ms: int | None = None
    max_total_tokens: int | None = None
    max_total_cost_usd: float | None = None
    max_total_tool_calls: int | None = None
    resumes: bool = False


class Run(msgspec.Struct, kw_only=True):
    """The small hot row of a run. The driver of a run changes its own copy in place.

    `due_at_ms` is when an engine has to look at the run again: to claim it while it is queued, to
    wake it while it is parked. `owner` is the engine that created the run for itself; while that
    engine lives nobody else claims it. `cleanup` is the engine whose processes may still be alive
    after the run, or some of its attempts, were stopped. `event_seq` is the number of the newest
    lifecycle event, `event_hash` its hash. `archived_at_ms` is when all that belongs to an old run
    was packed.

    `queued_at_ms` is since when the run waits in the queue. A queued run without `due_at_ms` waits
    until `resource_key` is free. `lock_path` is the workspace that it has to itself while it is
    driven, `labels` are what its engine must have.
    `activity_at_ms` is when the engine that drives the run last said that a body of it is alive;
    it is written beside the lease, never by a change. `interruptions` counts the engines that died
    with the run since a node of it completed, `auto_resumes` how often it was resumed without a
    person, `reaped_at_ms` is when it was last found stale.
    `learnings` is what the run was told when it was claimed, `learning_summary` what was learned of
    it; both are written beside the changes, never by one.
    `prompt_tokens` to `tool_calls` are the sums over its attempts and never go back; the money is
    in billionths of a dollar. `active_ms` is how long it was driven before `active_since_ms`, which
    is None while nobody drives it.
    """

    run_no: int = 0
    run_id: RunId
    tenant: TenantId
    automation_id: AutomationId
    name: str = ""
    definition_digest: DefinitionDigest
    definition_version: str = ""
    """What its author calls the version; the digest says what is executed."""
    automation_version: int | None = None
    """The number of the stored version; None for a run of a file that is not stored."""
    trigger_type: str = TriggerType.MANUAL
    trigger_reason: str = ""
    consumed_handoff_id: str = ""
    """The handoff that started it."""
    requested_execution_profile: ExecutionProfile | None = None
    effective_execution_profile: ExecutionProfile = ExecutionProfile.STRICT
    runtime_context: dict[str, Any] | None = None
    """The context that was given with the run; that of its definition is not copied here."""
    trigger_context: dict[str, Any] | None = None
    """What is kept of the trigger that started it: `automation_webhook` for a delivery."""
    started_by: str = ""
    """Who asked for the run; empty when nobody is known."""
    status: RunState = RunState.QUEUED
    last_change_id: ChangeId
    epoch: int = 0
    engine_id: EngineId | None = None
    owner: EngineId | None = None
    cleanup: EngineId | None = None
    event_seq: int = 0
    created_at_ms: int
    updated_at_ms: int
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    due_at_ms: int | None = None
    queued_at_ms: int | None = None
    queue_reason: QueueReason | None = None
    resource_key: str = ""
    rate_limited_provider: str = ""
    pause_mode: str = ""
    """`now` while a run is pausing whose attempts are to be stopped instead of let to their end."""
    forked_from: RunId | None = None
    forked_from_node: NodeId | None = None
    """The run whose outputs this one began with, and the node from which it went its own way."""
    parked: str = ""
    """What wakes a paused run that waits for time or a signal; empty when a person paused it."""
    detail: str = ""
    stop_kind: StopKind | None = None
    stop_reason: str = ""
    pause_reason: str = ""
    resume_reason: str = ""
    last_failure: Failure | None = None
    inputs: dict[str, Any] = msgspec.field(default_factory=dict)
    workspace: str = ""
    lock_path: str = ""
    concurrency_key: str = ""
    concurrency_limit: int = 0
    labels: tuple[str, ...] = ()
    nodes_total: int = 0
    nodes_completed: int = 0
    event_hash: str = ""
    archived_at_ms: int | None = None
    activity_at_ms: int | None = None
    interruptions: int = 0
    auto_resumes: int = 0
    reaped_at_ms: int | None = None
    learnings: tuple[Learning, ...] = ()
    learning_summary: LearningSummary | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost_nano_usd: int = 0
    tool_calls: int = 0
    active_ms: int = 0
    active_since_ms: int | None = None
    runtime_clock: RuntimeClock = RuntimeClock.ACTIVE
    allowance: Allowance | None = None

    @property
    def usage(self) -> Usage:
        """What its attempts have spent."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=self.total_tokens,
            cost_nano_usd=self.cost_nano_usd,
            tool_calls=self.tool_calls,
        )


class Handling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people did with a node run.

    `by_hand` says that its output came from a person: `skipped` or `output_set`. `disposition` is
    what a person thinks of the output (`domain.disposition`). `dispatches` counts how often a node
    with outside effects was sent out again after its run had ended, last at `dispatched_at_ms`.
    `passed_over` says that the run was taken up for another node while this one had failed, so that
    it does not keep others from starting.
    """

    by_hand: str = ""
    disposition: str = ""
    dispatches: int = 0
    dispatched_at_ms: int = 0
    passed_over: bool = False


class NodeRun(msgspec.Struct, frozen=True, kw_only=True):
    """One node within one run. A node that never started has no row.

    `attempts` numbers the attempts and never goes back; `attempts_used` counts those that the
    retry policy charges and is reset with the node. `output` is JSON text when it is small,
    `output_ref` names the artifact when it is not. `repair` is what the next attempt must mend.
    """

    node_no: int
    state: NodeState = NodeState.PENDING
    attempts: int = 0
    attempts_used: int = 0
    repairs_used: int = 0
    interruptions: int = 0
    gates: int = 0
    due_at_ms: int | None = None
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    output: bytes | None = None
    output_ref: ArtifactRef | None = None
    repair: tuple[str, ...] = ()
    failure: Failure | None = None
    handling: Handling | None = None
    reading: Reading | None = None
    """How the output was read; None for a plain success."""


class AttemptEnd(StrEnum):
    """How an attempt ended, as its row says it."""

    SUCCEEDED = "succeeded"
    NEEDS_REPAIR = "needs_repair"
    BLOCKED = "blocked"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try at a node run, numbered from 1; `outcome` is None while it runs.

    `unmet` are the codes of what its output missed. `is_repair_charged` says that the next attempt
    is a repair, which the repair budget pays.
    """

    attempt_id: AttemptId
    node_no: int
    number: int
    epoch: int
    engine_id: EngineId
    started_at_ms: int
    ended_at_ms: int | None = None
    outcome: AttemptEnd | None = None
    failure_class: str = ""
    message: str = ""
    detail: str = ""
    exit_code: int | None = None
    unmet: tuple[str, ...] = ()
    is_repair_charged: bool = False
    usage: Usage | None = None
    """What it has spent, as far as that was told; written beside its start and end."""

    @property
    def is_charged(self) -> bool:
        """Whether it used up one of the node's attempts; what was cut off did not."""
        return self.outcome not in (AttemptEnd.STOPPED, AttemptEnd.INTERRUPTED)


class GatePurpose(StrEnum):
    """Why a person is asked."""

    APPROVAL = "approval"
    OUTCOME_UNKNOWN = "outcome_unknown"
    """An attempt with outside effects was interrupted: was it done?"""


class GateStatus(StrEnum):
    """Where a gate is."""

    OPEN = "open"
    DECIDED = "decided"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class PolicyState(msgspec.Struct, frozen=True, kw_only=True):
    """What time has done to an open gate or wait so far (run-lifecycle T84, T85, T87)."""

    escalated_at_ms: int | None = None
    escalated_to: str = ""
    reminder_count: int = 0
    last_reminded_at_ms: int | None = None
    expired_reminder: bool = False
    """A reminder was sent after the expiry."""
    stale_at_ms: int | None = None
    """When it was marked as stale."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One asking of one gate. A gate that is reached again is a new row with a new id.

    `requested_by` is who started the run. `reviewed_artifact` is evidence of what was looked at:
    path, digest, source node, verified. `guard_denials` counts decisions meant for another asking.
    With `four_eyes` whoever started the run may not approve.
    """

    gate_id: GateId
    node_no: int
    node_id: NodeId
    instance: int
    purpose: GatePurpose = GatePurpose.APPROVAL
    title: str
    instructions: str = ""
    decisions: tuple[str, ...]
    rework_targets: tuple[str, ...] = ()
    requested_at_ms: int
    requested_by: str = ""
    expires_at_ms: int | None = None
    on_expiry: str = "cancel"
    escalate_to: str = ""
    remind_every_ms: int | None = None
    stale_after_ms: int | None = None
    policy_state: PolicyState = PolicyState()
    reviewed_artifact: dict[str, Any] | None = None
    guard_denials: int = 0
    four_eyes: bool = False
    status: GateStatus = GateStatus.OPEN
    decision: str = ""
    reason: str = ""
    decided_by: str = ""
    decided_at_ms: int | None = None

    @property
    def transition_id(self) -> str:
        """The id of the transition that a decision makes; another asking has another one."""
        return f"{self.gate_id}:decision"


class WaitStatus(StrEnum):
    """Where a wait is (run-lifecycle 6.1).

    `claimed` of the contract does not exist here: a wait is woken in the transaction that finds
    it due, so nobody can die in between.
    """

    WAITING = "waiting"
    ESCALATED = "escalated"
    """It timed out and somebody was told; it can still be woken."""
    WOKEN = "woken"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


OPEN_WAITS: Final = frozenset({WaitStatus.WAITING, WaitStatus.ESCALATED})


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One wait for a moment or a signal; a wait that is reached again is a new row.

    `due_at_ms` is when a timer wakes; a wait for a signal has `signal_key` instead, the key that
    the signal must carry, and `accepts_since_ms`: a signal that was accepted at or after it counts
    even if it came before the registration. `idempotency_key` is that of the signal that woke it.
    """

    wait_id: WaitId
    node_no: int
    node_id: NodeId
    kind: str
    due_at_ms: int | None = None
    registered_at_ms: int
    signal_key: str = ""
    accepts_since_ms: int = 0
    timeout_at_ms: int | None = None
    on_timeout: str = "cancel"
    escalate_to: str = ""
    remind_every_ms: int | None = None
    policy_state: PolicyState = PolicyState()
    status: WaitStatus = WaitStatus.WAITING
    idempotency_key: str = ""
    ended_at_ms: int | None = None


class LifecycleEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The durable record of one transition, numbered within its run.

    `record_hash` seals it to the event before it (`domain.receipts`); empty where it was stored
    before there was a chain. `cursor` is the store's global position, 0 until it is stored.
    """

    seq: int
    event: RunEvent
    recorded_at_ms: int
    change_id: ChangeId
    node_id: NodeId | None = None
    attempt: int | None = None
    reason: str = ""
    stop_kind: StopKind | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    record_hash: str = ""
    cursor: int = 0
