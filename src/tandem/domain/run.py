"""What is recorded of a run: its own row, its node runs, attempts, gates, waits and events."""

from enum import StrEnum
from typing import Any

import msgspec

from tandem.domain.artifact import ArtifactRef
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


class QueueReason(StrEnum):
    """Why a queued run is not claimed yet."""

    RETRY_BACKOFF = "retry_backoff"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What made a run or a node fail (run-lifecycle 1.3)."""

    node_id: NodeId
    reason: str
    failed_at_ms: int
    failure_kind: str = ""


class Run(msgspec.Struct, kw_only=True):
    """The small hot row of a run. The driver of a run changes its own copy in place.

    `due_at_ms` is when an engine has to look at the run again: to claim it while it is queued, to
    wake it while it is parked. `owner` is the engine that created the run for itself; while that
    engine lives nobody else claims it. `cleanup` is the engine whose processes may still be alive
    after the run was stopped. `event_seq` is the number of the newest lifecycle event, `event_hash`
    its hash. `archived_at_ms` is when all that belongs to an old run was packed.
    """

    run_no: int = 0
    run_id: RunId
    tenant: TenantId
    automation_id: AutomationId
    name: str = ""
    definition_digest: DefinitionDigest
    trigger_type: str = "manual"
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
    queue_reason: QueueReason | None = None
    parked: str = ""
    """What wakes a paused run that waits for time; empty when a person paused it."""
    detail: str = ""
    stop_kind: StopKind | None = None
    stop_reason: str = ""
    pause_reason: str = ""
    resume_reason: str = ""
    last_failure: Failure | None = None
    inputs: dict[str, Any] = msgspec.field(default_factory=dict)
    workspace: str = ""
    nodes_total: int = 0
    nodes_completed: int = 0
    event_hash: str = ""
    archived_at_ms: int | None = None


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


class AttemptEnd(StrEnum):
    """How an attempt ended, as its row says it."""

    SUCCEEDED = "succeeded"
    NEEDS_REPAIR = "needs_repair"
    FAILED = "failed"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try at a node run, numbered from 1; `outcome` is None while it runs."""

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


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One asking of one gate. A gate that is reached again is a new row with a new id."""

    gate_id: GateId
    node_no: int
    node_id: NodeId
    instance: int
    purpose: GatePurpose = GatePurpose.APPROVAL
    title: str
    instructions: str = ""
    decisions: tuple[str, ...]
    requested_at_ms: int
    expires_at_ms: int | None = None
    on_expiry: str = "cancel"
    status: GateStatus = GateStatus.OPEN
    decision: str = ""
    reason: str = ""
    decided_by: str = ""
    decided_at_ms: int | None = None


class WaitStatus(StrEnum):
    """Where a wait is."""

    WAITING = "waiting"
    WOKEN = "woken"
    CANCELLED = "cancelled"


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One wait for time; `due_at_ms` is when it wakes."""

    wait_id: WaitId
    node_no: int
    node_id: NodeId
    kind: str
    due_at_ms: int
    registered_at_ms: int
    status: WaitStatus = WaitStatus.WAITING
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
