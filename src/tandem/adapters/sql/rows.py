"""Records to rows and back. Large or nested values are JSON text in one column."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from tandem.domain.artifact import NodeArtifact
from tandem.domain.change import Change
from tandem.domain.errors import ROW_UNREADABLE, StoreError
from tandem.domain.execution import ExecutionProfile
from tandem.domain.firing import Firing
from tandem.domain.ids import NodeId, RunId, attempt_id
from tandem.domain.run import Attempt, Gate, LifecycleEvent, NodeRun, PolicyState, Run, Wait
from tandem.domain.stored_automation import AutomationRecord, StoredAutomation
from tandem.domain.usage import NOTHING, Spent, Usage
from tandem.ports.store import EngineRow

Row = tuple[Any, ...]
T = TypeVar("T")

NODE_BITS = 20
ATTEMPT_BITS = 12
_encode = msgspec.json.encode
_JSON_COLUMNS = (
    "inputs",
    "runtime_context",
    "trigger_context",
    "labels",
    "last_failure",
    "output_ref",
    "repair",
    "failure",
    "decisions",
    "ref",
    "provenance",
    "rework_targets",
    "policy_state",
    "reviewed_artifact",
    "handling",
    "reading",
    "unmet",
    "learnings",
    "learning_summary",
    "allowance",
    "usage",
)
_JSON_COLUMNS_OF: dict[type, tuple[str, ...]] = {}
_NAMES = ("run_id", "automation_id", "run_no", "node_no")
"""Columns by which people know whose row it is."""
_HASH_COLUMNS = ("event_hash", "record_hash")
_UNTOUCHED = PolicyState()


def node_run_id(run_no: int, node_no: int) -> int:
    """Return the key of a node run."""
    return run_no << NODE_BITS | node_no


def attempt_no(run_no: int, node_no: int, number: int) -> int:
    """Return the key of an attempt."""
    return node_run_id(run_no, node_no) << ATTEMPT_BITS | number


def _json(value: object) -> str | None:
    return _encode(value).decode() if value else None


def run_row(run: Run) -> Row:
    """Return the values of `insert_run`."""
    return (
        run.run_id,
        run.tenant,
        run.automation_id,
        run.name,
        run.definition_digest,
        run.definition_version,
        run.automation_version,
        run.trigger_type,
        run.trigger_reason,
        run.requested_execution_profile,
        run.effective_execution_profile.value,
        None if run.runtime_context is None else _encode(run.runtime_context).decode(),
        run.status.value,
        run.last_change_id,
        run.owner,
        run.event_seq,
        run.created_at_ms,
        run.updated_at_ms,
        run.started_at_ms,
        run.finished_at_ms,
        run.due_at_ms,
        run.detail,
        _encode(run.inputs).decode(),
        run.workspace,
        run.nodes_total,
        run.started_by,
        run.queued_at_ms,
        run.lock_path,
        run.concurrency_key,
        run.concurrency_limit,
        _encode(run.labels).decode(),
        _hash(run.event_hash),
        run.consumed_handoff_id,
        run.runtime_clock.value,
        None if run.trigger_context is None else _encode(run.trigger_context).decode(),
    )


def _hash(text: str) -> bytes | None:
    return bytes.fromhex(text) if text else None


def advance_row(change: Change) -> Row:
    """Return the values of `advance_run`."""
    run = change.run
    return (
        change.change_id,
        run.updated_at_ms,
        run.event_seq,
        run.detail,
        run.nodes_completed,
        _hash(run.event_hash),
        run.run_no,
        change.builds_on,
        change.epoch_before,
    )


def move_row(change: Change) -> Row:
    """Return the values of `move_run`."""
    run = change.run
    return (
        change.change_id,
        run.updated_at_ms,
        run.event_seq,
        run.detail,
        run.nodes_completed,
        _hash(run.event_hash),
        run.status,
        run.epoch,
        run.engine_id,
        run.owner,
        run.cleanup,
        run.started_at_ms,
        run.finished_at_ms,
        run.due_at_ms,
        run.queued_at_ms,
        run.queue_reason,
        run.resource_key,
        run.rate_limited_provider,
        run.parked,
        run.stop_kind,
        run.stop_reason,
        run.pause_reason,
        run.resume_reason,
        _json(run.last_failure),
        run.interruptions,
        run.auto_resumes,
        run.reaped_at_ms,
        run.pause_mode,
        run.prompt_tokens,
        run.completion_tokens,
        run.total_tokens,
        run.cost_nano_usd,
        run.tool_calls,
        run.active_ms,
        run.active_since_ms,
        _json(run.allowance),
        run.run_no,
        change.builds_on,
        change.epoch_before,
    )


def node_row(run_no: int, node: NodeRun) -> Row:
    """Return the values of `put_node_run`."""
    return (
        run_no << NODE_BITS | node.node_no,
        node.state,
        node.attempts,
        node.attempts_used,
        node.repairs_used,
        node.interruptions,
        node.gates,
        node.due_at_ms,
        node.started_at_ms,
        node.finished_at_ms,
        node.output,
        _json(node.output_ref) if node.output_ref else None,
        _json(node.repair) if node.repair else None,
        _json(node.failure) if node.failure else None,
        _json(node.handling) if node.handling else None,
        _json(node.reading) if node.reading else None,
    )


def repin_row(run: Run) -> Row:
    """Return the values of `repin_run`."""
    return (
        run.definition_digest,
        _encode(run.inputs).decode(),
        run.concurrency_key,
        run.concurrency_limit,
        run.run_no,
    )


def start_row(run_no: int, attempt: Attempt) -> Row:
    """Return the values of `start_attempt`."""
    return (
        attempt_no(run_no, attempt.node_no, attempt.number),
        attempt.epoch,
        attempt.engine_id,
        attempt.started_at_ms,
    )


def end_row(run_no: int, attempt: Attempt) -> Row:
    """Return the values of `end_attempt`."""
    return (
        attempt.ended_at_ms,
        attempt.outcome,
        attempt.failure_class,
        attempt.message,
        attempt.detail,
        attempt.exit_code,
        _json(attempt.unmet),
        attempt.is_repair_charged or None,
        attempt_no(run_no, attempt.node_no, attempt.number),
    )


def meter_row(run_no: int, spent: Spent) -> Row:
    """Return the values of `meter_attempt`."""
    return (_json(spent.usage), attempt_no(run_no, spent.node_no, spent.number))


def usage_of(row: Mapping[str, Any]) -> Usage:
    """Read what an attempt has spent; nothing is not written down."""
    text = row["usage"]
    return NOTHING if text is None else msgspec.json.decode(text, type=Usage)


def gate_row(run_no: int, gate: Gate) -> Row:
    """Return the values of `put_gate`."""
    return (
        gate.gate_id,
        run_no,
        gate.node_no,
        gate.node_id,
        gate.instance,
        gate.purpose.value,
        gate.title,
        gate.instructions,
        _encode(gate.decisions).decode(),
        _json(gate.rework_targets),
        gate.requested_at_ms,
        gate.requested_by,
        gate.expires_at_ms,
        gate.on_expiry,
        gate.escalate_to,
        gate.remind_every_ms,
        gate.stale_after_ms,
        _policy_state(gate.policy_state),
        _json(gate.reviewed_artifact),
        gate.guard_denials,
        gate.status.value,
        gate.decision,
        gate.reason,
        gate.decided_by,
        gate.decided_at_ms,
        int(gate.four_eyes),
    )


def artifact_row(run_no: int, left: NodeArtifact) -> Row:
    """Return the values of `add_artifact`."""
    return (
        run_no,
        left.node_no,
        left.attempt,
        _encode(left.ref).decode(),
        left.ref.digest,
        left.contract,
        left.inputs_digest,
        left.validity.value,
        _encode(left.provenance).decode(),
        left.registered_at_ms,
    )


def wait_row(run_no: int, wait: Wait) -> Row:
    """Return the values of `put_wait`."""
    return (
        wait.wait_id,
        run_no,
        wait.node_no,
        wait.node_id,
        wait.kind,
        wait.due_at_ms,
        wait.registered_at_ms,
        wait.signal_key,
        wait.accepts_since_ms,
        wait.timeout_at_ms,
        wait.on_timeout,
        wait.escalate_to,
        wait.remind_every_ms,
        _policy_state(wait.policy_state),
        wait.status.value,
        wait.idempotency_key,
        wait.ended_at_ms,
    )


def _policy_state(state: PolicyState) -> str | None:
    return None if state == _UNTOUCHED else _json(state)


def event_row(run: Run, run_no: int, event: LifecycleEvent) -> Row:
    """Return the values of `add_event`; `run` is as the change of the event left it."""
    return (
        run_no,
        event.seq,
        event.event,
        event.recorded_at_ms,
        event.change_id,
        event.node_id,
        event.attempt,
        event.reason,
        event.stop_kind,
        _json(event.metadata) if event.metadata else None,
        bytes.fromhex(event.record_hash) or None,
        run.status,
    )


def _json_columns(kind: type) -> tuple[str, ...]:
    """Return those columns of a record that hold JSON text; asked for every row, so kept."""
    known = _JSON_COLUMNS_OF.get(kind)
    if known is None:
        names = kind.__struct_fields__  # type: ignore[attr-defined] # every record is a struct
        known = _JSON_COLUMNS_OF[kind] = tuple(n for n in _JSON_COLUMNS if n in names)
    return known


def _record(kind: type[T], values: dict[str, Any]) -> T:
    """Read a row.

    Raises:
        StoreError: it holds what it cannot hold, because the file was damaged or edited, say.
    """
    try:
        return _converted(kind, values)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        of = next((f" of {name} {values[name]}" for name in _NAMES if name in values), "")
        raise StoreError(
            f"a {kind.__name__} row{of} cannot be read: {error}; the file was damaged, or edited: "
            "go back to a backup (`tandem db backup` makes them)",
            code=ROW_UNREADABLE,
        ) from error


def _converted(kind: type[T], values: dict[str, Any]) -> T:
    for name in _json_columns(kind):
        text = values.get(name)
        if isinstance(text, str):
            values[name] = msgspec.json.decode(text)
    for name in _HASH_COLUMNS:
        raw = values.get(name)
        if isinstance(raw, bytes):
            values[name] = raw.hex()
    present = {name: value for name, value in values.items() if value is not None}
    return msgspec.convert(present, kind, builtin_types=(bytes,))


def run_of(row: Mapping[str, Any]) -> Run:
    """Read the row of a run."""
    return _record(Run, dict(row))


def engine_row(engine: EngineRow) -> Row:
    """Return the values of `put_engine`."""
    values = msgspec.structs.asdict(engine)
    return tuple({**values, "labels": _encode(engine.labels).decode()}.values())


def engine_of(row: Mapping[str, Any]) -> EngineRow:
    """Read the row of an engine."""
    values = dict(row)
    values["labels"] = msgspec.json.decode(values["labels"])
    return msgspec.convert(values, EngineRow, strict=False)


def node_of(row: Mapping[str, Any]) -> NodeRun:
    """Read the row of a node run."""
    values = dict(row)
    values["node_no"] = values.pop("node_run_id") & ((1 << NODE_BITS) - 1)
    return _record(NodeRun, values)


def attempt_of(
    row: Mapping[str, Any], run_id: RunId, node_ids: Sequence[NodeId] | Mapping[int, NodeId]
) -> Attempt:
    """Read the row of an attempt."""
    values = dict(row)
    values["is_repair_charged"] = bool(values["is_repair_charged"])
    key = values.pop("attempt_no")
    values["number"] = key & ((1 << ATTEMPT_BITS) - 1)
    values["node_no"] = key >> ATTEMPT_BITS & ((1 << NODE_BITS) - 1)
    values["attempt_id"] = attempt_id(run_id, node_ids[values["node_no"]], values["number"])
    return _record(Attempt, values)


def gate_of(row: Mapping[str, Any]) -> Gate:
    """Read the row of a gate."""
    return _record(Gate, {**row, "four_eyes": bool(row["four_eyes"])})


def artifact_of(row: Mapping[str, Any]) -> NodeArtifact:
    """Read the row of an artifact."""
    return _record(NodeArtifact, dict(row))


def wait_of(row: Mapping[str, Any]) -> Wait:
    """Read the row of a wait."""
    return _record(Wait, dict(row))


def event_of(row: Mapping[str, Any], profile: ExecutionProfile | None) -> LifecycleEvent:
    """Read the row of a lifecycle event of a run with this profile; without one as it is stored.

    Its metadata always name the profile (run-lifecycle 1.3). It is the same for all events of a
    run, so it is kept once, with the run.
    """
    values = dict(row)
    metadata = {} if values["metadata"] is None else msgspec.json.decode(values["metadata"])
    if profile is not None:
        metadata.setdefault("effective_execution_profile", profile.value)
    values["metadata"] = metadata
    return _record(LifecycleEvent, values)


def automation_row(row: StoredAutomation) -> dict[str, Any]:
    """Return the values of `insert_automation` and `update_automation`, by name."""
    values: dict[str, Any] = msgspec.to_builtins(row)
    return values


def record_row(automation_no: int, record: AutomationRecord) -> Row:
    """Return the values of `add_automation_event`."""
    return (automation_no, *msgspec.to_builtins(record).values())


def automation_of(row: Mapping[str, Any]) -> StoredAutomation:
    """Read the row of an automation."""
    return _record(StoredAutomation, {**row, "is_watching": bool(row["is_watching"])})


def firing_row(automation_no: int, firing: Firing) -> dict[str, Any]:
    """Return the values of `add_firing` and `refuse_firing`, by name."""
    values: dict[str, Any] = msgspec.to_builtins(firing)
    return {**values, "automation_no": automation_no}


def firing_of(row: Mapping[str, Any]) -> Firing:
    """Read the record of an occurrence."""
    return _record(Firing, dict(row))


def record_of(row: Mapping[str, Any]) -> AutomationRecord:
    """Read the row of what happened to an automation."""
    return _record(AutomationRecord, dict(row))
