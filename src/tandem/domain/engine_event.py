"""Engine events: what listeners are told of a transition, made from its durable record.

The shape is that of the event stream (http-api.md 2.2, 2.5): `properties` always name the run, the
automation, the state and the tenant, ids in both spellings, so that any filter works.
"""

from typing import Any, Final

import msgspec

from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import Failure, LifecycleEvent, Run
from tandem.domain.tenant import context_json
from tandem.domain.vocabulary import WORDS

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


def engine_events(run: Run, event: LifecycleEvent) -> tuple[EngineEvent, ...]:
    """Return what is published for one lifecycle event of `run`, the canonical name first.

    `run` is its row after the change that recorded the event; `cursor` is 0 until it is stored.
    """
    word = WORDS[event.event]
    properties = _properties(run, event)
    return tuple(
        EngineEvent(
            event_id=f"{run.run_id}:{event.seq}" + (f":{place}" if place else ""),
            type=name,
            occurred_at_ms=event.recorded_at_ms,
            cursor=event.cursor,
            properties=properties,
        )
        for place, name in enumerate((word.published, *word.older))
    )


def _properties(run: Run, event: LifecycleEvent) -> JsonObject:
    properties: dict[str, Any] = {
        "automationID": run.automation_id,
        "automation_id": run.automation_id,
        "runID": run.run_id,
        "run_id": run.run_id,
        "tenantContext": context_json(run.tenant, actor_id=run.started_by),
        "status": run.status.value,
        "lifecycle_event": event.event.value,
        "seq": event.seq,
        "effective_execution_profile": run.effective_execution_profile.value,
    }
    if event.event is RunEvent.RUN_CREATED:
        properties["triggerType"] = run.trigger_type
    if event.node_id is not None:
        properties["nodeID"] = properties["node_id"] = event.node_id
    optional = {
        "attempt": event.attempt,
        "reason": event.reason,
        "stop_kind": event.stop_kind,
        "detail": run.detail,
    }
    properties |= {name: value for name, value in optional.items() if value}
    if event.event in _FAILURES and run.last_failure is not None:
        properties |= _failure_properties(run, run.last_failure)
    for name, value in event.metadata.items():
        properties.setdefault(name, value)
    return properties


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
