"""The shapes of what answers carry, for the OpenAPI document.

They describe and make nothing: records are put together by the domain. The tests hold every answer
that they get against them. A key that has no shape here may hold any JSON.
"""

from typing import Any, Final, Literal

import msgspec

from tandem.domain.gate_definition import TimeoutAction
from tandem.domain.lifecycle import RunState, StopKind

_Absent = msgspec.UnsetType
_ABSENT = msgspec.UNSET


class LifecycleRecord(msgspec.Struct, kw_only=True):
    """One transition of a run, in the order of `seq`; the names are in docs/reference/events.md."""

    seq: int
    event: str
    recorded_at_ms: int
    reason: str | _Absent = _ABSENT
    stop_kind: StopKind | _Absent = _ABSENT
    metadata: dict[str, Any] | _Absent = _ABSENT


class FailureRecord(msgspec.Struct, kw_only=True):
    """Why a node, or the run itself, failed last."""

    node_id: str
    reason: str
    failed_at_ms: int
    failure_kind: str | _Absent = _ABSENT
    metadata: dict[str, Any] | _Absent = _ABSENT


class ExpiryRecord(msgspec.Struct, kw_only=True):
    """When a gate expires, and what follows."""

    expires_after_ms: int | _Absent | None = _ABSENT
    expires_at_ms: int | _Absent | None = _ABSENT
    on_expiry: TimeoutAction
    escalate_to: str | _Absent | None = _ABSENT
    remind_every_ms: int | _Absent | None = _ABSENT


class PendingGate(msgspec.Struct, kw_only=True):
    """A gate that waits for a person; a decision may name its `approval_request_id`."""

    approval_request_id: str
    transition_id: str
    node_id: str
    title: str
    instructions: str | _Absent | None = _ABSENT
    decisions: list[str]
    rework_targets: list[str]
    requested_at_ms: int
    requested_by: str | _Absent | None = _ABSENT
    upstream_node_ids: list[str]
    expiry_policy: ExpiryRecord
    metadata: dict[str, Any]


class GateRecord(msgspec.Struct, kw_only=True):
    """A decision at a gate, or one that was refused because it was meant for another asking."""

    node_id: str
    decision: str
    reason: str | _Absent | None = _ABSENT
    decided_at_ms: int | _Absent | None = _ABSENT
    decided_by: str | _Absent | None = _ABSENT
    metadata: dict[str, Any]


class Checkpoint(msgspec.Struct, kw_only=True):
    """How far a run has come."""

    completed_nodes: list[str]
    pending_nodes: list[str]
    node_outputs: dict[str, dict[str, Any]]
    node_attempts: dict[str, int]
    node_attempt_verdicts: dict[str, list[dict[str, Any]]]
    blocked_nodes: list[str]
    awaiting_gate: PendingGate | _Absent = _ABSENT
    gate_history: list[GateRecord]
    lifecycle_history: list[LifecycleRecord]
    last_failure: FailureRecord | _Absent = _ABSENT


class _RunNames(msgspec.Struct, kw_only=True):
    run_id: str
    automation_id: str
    name: str
    tenant_context: dict[str, Any]
    trigger_type: str
    trigger_reason: str | _Absent = _ABSENT
    status: RunState
    created_at_ms: int
    updated_at_ms: int
    started_at_ms: int | _Absent = _ABSENT
    finished_at_ms: int | _Absent = _ABSENT
    scheduler: dict[str, Any] | _Absent = _ABSENT
    """Why a queued run waits."""
    workflow_definition_version: str | _Absent = _ABSENT
    workflow_definition_snapshot_hash: str
    execution_claim_epoch: int
    pause_reason: str | _Absent = _ABSENT
    resume_reason: str | _Absent = _ABSENT
    detail: str | _Absent = _ABSENT
    stop_kind: StopKind | _Absent = _ABSENT
    stop_reason: str | _Absent = _ABSENT
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated_cost_usd: float
    effective_execution_profile: str
    requested_execution_profile: str | _Absent = _ABSENT
    contextRunID: str  # noqa: N815 # the contract's
    linked_context_run_id: str
    automation_version: int | _Absent = _ABSENT
    started_by: str | _Absent = _ABSENT
    nodes_total: int
    nodes_completed: int
    workspace: str | _Absent = _ABSENT
    parked: str | _Absent = _ABSENT
    due_at_ms: int | _Absent = _ABSENT
    cleanup_engine_id: str | _Absent = _ABSENT
    forked_from: str | _Absent = _ABSENT
    forked_from_node: str | _Absent = _ABSENT
    event_seq: int
    last_activity_at_ms: int
    lastActivityAtMs: int  # noqa: N815 # the contract's
    stored_status: RunState | _Absent = _ABSENT
    """The true status, where the compatibility view shows another."""


class RunSummary(_RunNames, kw_only=True):
    """What a list shows of a run; its checkpoint has the last failure only."""

    view: Literal["summary"]
    checkpoint: dict[str, Any]


class Run(_RunNames, kw_only=True):
    """A run with everything that is known of it."""

    active_session_ids: list[str]
    latest_session_id: str | _Absent = _ABSENT
    active_instance_ids: list[str]
    checkpoint: Checkpoint
    runtime_context: dict[str, Any] | _Absent = _ABSENT
    automation_snapshot: dict[str, Any] | _Absent = _ABSENT
    """The version that the run executes; absent when it cannot be read."""
    execution_claim: dict[str, Any] | _Absent = _ABSENT
    learning_summary: dict[str, Any] | _Absent = _ABSENT
    inputs: dict[str, Any]
    open_gates: list[str]
    open_waits: list[dict[str, Any]]
    blockedNodeIDs: list[str]  # noqa: N815 # the contract's
    needsRepairNodeIDs: list[str]  # noqa: N815 # the contract's
    nodeRepairGuidance: dict[str, dict[str, Any]]  # noqa: N815 # the contract's
    nodeAttemptEvidence: dict[str, dict[str, Any]]  # noqa: N815 # the contract's


class AutomationRecord(msgspec.Struct, kw_only=True):
    """A stored automation: its newest version, and what changes without a new one."""

    automation_id: str
    name: str
    status: str
    created_at_ms: int
    updated_at_ms: int
    creator_id: str
    version: int | _Absent = _ABSENT
    """Absent where the document is not stored, as in the answer to a dry run."""
    definition_digest: str | _Absent = _ABSENT
    agents: list[dict[str, Any]]
    flow: dict[str, Any]
    execution: dict[str, Any]
    metadata: Any = None
    pause_reason: str | _Absent = _ABSENT
    paused_by: str | _Absent = _ABSENT
    paused_at_ms: int | _Absent = _ABSENT


_SCALARS: Final[dict[str, Any]] = {
    "ok": bool,
    "count": int,
    "runID": str,
    "run_id": str,
    "automationID": str,
    "automation_id": str | None,
    "node_id": str,
    "contextRunID": str,
    "linked_context_run_id": str,
    "cursor": str | int | None,
}
_OBJECTS: Final[dict[str, Any]] = {"run": Run, "automation": AutomationRecord}
_LISTS: Final[dict[str, Any]] = {"runs": list[RunSummary]}
_TYPES: Final = {**_SCALARS, **_OBJECTS, **_LISTS}
_REF: Final = "#/components/schemas/{name}"


def shapes() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of each key of answers that has one, and the components they refer to."""
    found, components = msgspec.json.schema_components(_TYPES.values(), ref_template=_REF)
    return dict(zip(_TYPES, found, strict=True)), components
