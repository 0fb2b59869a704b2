"""Engine events: what listeners are told of a transition, made from its durable record.

The shape is that of the event stream (http-api.md 2.2, 2.5): `properties` always name the run, the
automation, the state and the tenant, ids in both spellings, so that any filter works.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tandem.domain.json import JsonObject, encode
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.run import Failure, LifecycleEvent, Run
from tandem.domain.tenant import context_json
from tandem.domain.trigger import DRY_RUN_SUFFIX, is_dry_run
from tandem.domain.vocabulary import WORDS

SCHEMA_VERSION: Final = 1
WIRE_BYTES_MAX: Final = 64 * 1024
"""A larger event is told with references in place of its largest members."""
DELIVERY: Final = "automation.v2.webhook.delivery"
"""The name under which the creation of a run by a delivery is told, too."""
DELETED: Final = "automation.v2.run.deleted"
"""What only those hear who follow the run; its records are gone."""
_TEXT_KEPT: Final = 1_000
_SMALL_BYTES: Final = 256
"""What is smaller is kept: a reference is no shorter."""

_FAILURES = frozenset(
    {
        RunEvent.RUN_FAILED,
        RunEvent.RUN_BLOCKED,
        RunEvent.RUN_FAILED_PANIC,
        RunEvent.RUN_BLOCKED_CORRUPT,
        RunEvent.RUN_FAILED_STARTUP,
        RunEvent.RUN_FAILED_ACTIVATION,
        RunEvent.RUN_FAILED_SERVER_RESTART,
        RunEvent.RUN_FAILED_SHUTDOWN,
        RunEvent.RUN_FAILED_STALE,
    }
)


_ERROR_KINDS: Final = {
    "validation_error": "validation_error",
    "verification_failed": "validation_error",
    "artifact_contract_unmet": "validation_error",
    "output_schema_invalid": "validation_error",
    "missing_required_artifact_path": "validation_error",
    "missing_config": "missing_config",
}


class EngineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One published event. The same record always gives the same `event_id`."""

    event_id: str
    type: str
    occurred_at_ms: int
    cursor: int
    properties: JsonObject


def engine_events(
    run: Run, event: LifecycleEvent, *, status: RunState | None = None
) -> tuple[EngineEvent, ...]:
    """Return what is published for one lifecycle event of `run`, the canonical name first.

    Args:
        run: its row, at the change that recorded the event or later.
        event: the record; its `cursor` is 0 until it is stored.
        status: of the run after that change; by default that of the row.
    """
    word = WORDS[event.event]
    is_delivery = event.event is RunEvent.RUN_CREATED and "delivery_id" in event.metadata
    names = (word.published, *word.older, *((DELIVERY,) if is_delivery else ()))
    properties = _properties(run, event, status or run.status)
    return tuple(
        EngineEvent(
            event_id=f"{run.run_id}:{event.seq}" + (f":{place}" if place else ""),
            type=name,
            occurred_at_ms=event.recorded_at_ms,
            cursor=event.cursor,
            properties=properties,
        )
        for place, name in enumerate(names)
    )


def deletion_event(run: Run, *, seen_at_ms: int) -> EngineEvent:
    """Return what those who follow a run are told when it is not there any more.

    It is of no record: those are gone with the run, and this has no cursor to go on from.
    """
    properties = {
        **_identity(run, run.status),
        "lifecycle_event": "run_deleted",
        "seq": run.event_seq + 1,
    }
    return EngineEvent(
        event_id=f"{run.run_id}:deleted",
        type=DELETED,
        occurred_at_ms=seen_at_ms,
        cursor=0,
        properties=properties,
    )


def wire_event(event: EngineEvent) -> bytes:
    """Return an event as the JSON object that streams carry (http-api 2.2).

    It is always whole JSON: what makes it larger than `WIRE_BYTES_MAX` is replaced, the largest
    members first, texts by their beginning and all else by a reference to the run.
    """
    content = encode(_envelope(event, event.properties))
    if len(content) <= WIRE_BYTES_MAX:
        return content
    properties = dict(event.properties)
    sizes = [(len(encode(value)), name) for name, value in properties.items()]
    excess = len(content) - WIRE_BYTES_MAX
    for size, name in sorted((each for each in sizes if each[0] >= _SMALL_BYTES), reverse=True):
        properties[name] = _reference(event, properties[name], size)
        excess -= size - len(encode(properties[name]))
        if excess <= 0:
            break
    return encode(_envelope(event, properties))


def _reference(event: EngineEvent, value: Any, size_bytes: int) -> Any:
    if isinstance(value, str) and len(value) > 2 * _TEXT_KEPT:
        return f"{value[:_TEXT_KEPT]}…"
    see = f"/automations/v2/runs/{event.properties['run_id']}"
    return {"omitted": True, "size_bytes": size_bytes, "see": see}


def _envelope(event: EngineEvent, properties: JsonObject) -> JsonObject:
    told = event.properties
    envelope = {
        "event_id": event.event_id,
        "seq": told["seq"],
        "schema_version": SCHEMA_VERSION,
        "occurred_at_ms": event.occurred_at_ms,
        "run_id": told["run_id"],
        "tenant_context": told["tenantContext"],
    }
    if "node_id" in told:
        envelope["node_id"] = told["node_id"]
    return {
        "type": event.type,
        "properties": properties,
        "runID": told["run_id"],
        "envelope": envelope,
    }


def _identity(run: Run, status: RunState) -> dict[str, Any]:
    return {
        "automationID": run.automation_id,
        "automation_id": run.automation_id,
        "runID": run.run_id,
        "run_id": run.run_id,
        "tenantContext": context_json(run.tenant, actor_id=run.started_by),
        "status": status.value,
    }


def _properties(run: Run, event: LifecycleEvent, status: RunState) -> JsonObject:
    properties: dict[str, Any] = {
        **_identity(run, status),
        "lifecycle_event": event.event.value,
        "seq": event.seq,
        "effective_execution_profile": run.effective_execution_profile.value,
    }
    if event.event is RunEvent.RUN_CREATED:
        properties |= _creation_properties(run, status) | _delivery_properties(event.metadata)
    if event.node_id is not None:
        properties["nodeID"] = properties["node_id"] = event.node_id
    optional = {
        "attempt": event.attempt,
        "reason": event.reason,
        "stop_kind": event.stop_kind,
        # Later it tells of something else.
        "detail": run.detail if run.last_change_id == event.change_id else "",
    }
    properties |= {name: value for name, value in optional.items() if value}
    failure = run.last_failure
    # A run that was recovered may have failed on another node since.
    is_of_it = failure is not None and failure.failed_at_ms <= event.recorded_at_ms
    if event.event in _FAILURES and failure is not None and is_of_it:
        properties |= _failure_properties(run, failure)
    for name, value in event.metadata.items():
        properties.setdefault(name, value)
    return properties


def _creation_properties(run: Run, status: RunState) -> dict[str, Any]:
    """Return what the creation of a run tells (http-api 2.5): the run by reference, its trigger."""
    told: dict[str, Any] = {
        "triggerType": run.trigger_type.removesuffix(DRY_RUN_SUFFIX),
        "dryRun": is_dry_run(run.trigger_type),
        "run": {
            "run_id": run.run_id,
            "automation_id": run.automation_id,
            "name": run.name,
            "status": status.value,
            "trigger_type": run.trigger_type,
            "trigger_reason": run.trigger_reason,
            "automation_version": run.automation_version,
            "created_at_ms": run.created_at_ms,
        },
    }
    if run.trigger_reason:
        told["triggerReason"] = run.trigger_reason
    return told


def _delivery_properties(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of the delivery that started a run; its ids in both spellings."""
    if "delivery_id" not in told:
        return {}
    ids = {"deliveryID": told["delivery_id"], "triggerID": told["trigger_id"]}
    return {**ids, "deliveryStatus": "accepted"}


def _failure_properties(run: Run, failure: Failure) -> dict[str, Any]:
    """Return what a failure event tells of the node that failed (run-lifecycle 4.11)."""
    told = failure.metadata
    verdicts = told.get("attempt_verdict_chain", [])
    return {
        "workflow_name": run.name,
        "nodeID": failure.node_id,
        "node_id": failure.node_id,
        "task_id": failure.node_id,
        "stage_id": failure.node_id,
        "error": failure.reason,
        "error_kind": _ERROR_KINDS.get(failure.failure_kind, "unknown"),
        "failure_kind": failure.failure_kind,
        "attempt_review_chain": [verdict["attempt_review"] for verdict in verdicts],
        **{name: value for name, value in told.items() if value is not None},
    }
