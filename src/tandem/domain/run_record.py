"""The record of a run as the wire contract shows it, a view of the rows (design 4.2, http-api 3.1).

Names and the rule that absent fields are left out are those of run-lifecycle 1.1; fields of ours
stand beside them. `run_record` is the whole record, `summary_record` what lists show: the row
alone, never outputs or histories.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tandem.domain.automation_record import snapshot_record
from tandem.domain.checkpoint_record import (
    Settled,
    blocked_nodes,
    checkpoint_record,
    failure_record,
    settled_nodes,
)
from tandem.domain.json import plain
from tandem.domain.lifecycle import DRIVEN, RunEvent, RunState
from tandem.domain.node_output_record import (
    NEEDS_REPAIR,
    evidence_of,
    reason_of,
    repairs_left,
    unmet_of,
    without_nothing,
)
from tandem.domain.run import LifecycleEvent, NodeRun, QueueReason, Run
from tandem.domain.run_picture import RunPicture
from tandem.domain.tenant import context_json

S = RunState
CONTEXT_PREFIX: Final = "automation-v2-"
_BOOKKEEPING: Final = frozenset({RunEvent.RUN_CLAIMED, RunEvent.RUN_CLAIM_EXPIRED})
"""Events that are no activity of the run (run-lifecycle 1.6)."""
_TOLD: Final = frozenset({NEEDS_REPAIR, "blocked", "failed", "verify_failed"})

COMPAT_STATUSES: Final[Mapping[str, str]] = {
    S.AWAITING_APPROVAL.value: S.PAUSED.value,
    S.BLOCKED.value: S.FAILED.value,
}
"""What clients of version 0.7 are shown for statuses that they do not know (http-api D1)."""


def context_run_id(run: Run) -> str:
    """Return the id under which the run is known to those who look for its context."""
    return f"{CONTEXT_PREFIX}{run.run_id}"


def usage_of(run: Run) -> dict[str, Any]:
    """Return what the run has used of models so far."""
    return {
        "prompt_tokens": run.usage.prompt_tokens,
        "completion_tokens": run.usage.completion_tokens,
        "total_tokens": run.usage.total_tokens,
        "estimated_cost_usd": run.usage.cost_usd,
    }


def run_record(picture: RunPicture, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the whole record of a run.

    Args:
        picture: what the rows say.
        spec: what `spec_record` made of the version that it executes; None when that is unreadable.
    """
    view, sessions = picture.view, picture.sessions
    run = view.run
    settled = settled_nodes(picture)
    snapshot = None if spec is None else snapshot_record(spec, run)
    return (
        _named(run)
        | without_nothing(
            {
                "active_session_ids": list(sessions.active_session_ids),
                "latest_session_id": sessions.latest_session_id,
                "active_instance_ids": list(sessions.active_instance_ids),
                "checkpoint": checkpoint_record(picture, settled),
                "runtime_context": view.runtime_context,
                "automation_snapshot": snapshot,
                "execution_claim": _claim(picture),
                "scheduler": _scheduler(picture),
                "learning_summary": _learning(run),
                "inputs": run.inputs,
                "open_gates": [gate.gate_id for gate in view.gates.values()],
                "open_waits": [without_nothing(plain(wait)) for wait in view.waits.values()],
            }
        )
        | _told(run)
        | _derived(picture, settled)
    )


def summary_record(run: Run) -> dict[str, Any]:
    """Return what a list shows of a run; its checkpoint has the last failure only."""
    failure = failure_record(run.last_failure) or {}
    failure.pop("metadata", None)
    moment = max(run.updated_at_ms, run.activity_at_ms or 0)
    return (
        _named(run)
        | {"view": "summary", "checkpoint": {"last_failure": failure} if failure else {}}
        | without_nothing({"scheduler": _queued(run)})
        | _told(run)
        | {"last_activity_at_ms": moment, "lastActivityAtMs": moment}
    )


def compat_view(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record for clients that know only the statuses of version 0.7.

    The truth stands in `stored_status`, `storedStatus` and `statusDerivedNote` (http-api D1).
    """
    stored = record["status"]
    shown = COMPAT_STATUSES.get(stored)
    if shown is None:
        return dict(record)
    note = f"the run is `{stored}`; clients of version 0.7 are shown `{shown}`"
    truth = {"stored_status": stored, "storedStatus": stored, "statusDerivedNote": note}
    return {**record, "status": shown, **truth}


# What the row says


def _named(run: Run) -> dict[str, Any]:
    return without_nothing(
        {
            "run_id": run.run_id,
            "automation_id": run.automation_id,
            "name": run.name,
            "tenant_context": context_json(run.tenant, actor_id=run.started_by),
            "trigger_type": run.trigger_type,
            "trigger_reason": run.trigger_reason or None,
            "status": run.status.value,
            "created_at_ms": run.created_at_ms,
            "updated_at_ms": run.updated_at_ms,
            "started_at_ms": run.started_at_ms,
            "finished_at_ms": run.finished_at_ms,
        }
    )


def _told(run: Run) -> dict[str, Any]:
    requested = run.requested_execution_profile
    return without_nothing(
        {
            "workflow_definition_version": run.definition_version or None,
            "workflow_definition_snapshot_hash": run.definition_digest,
            "execution_claim_epoch": run.epoch,
            "pause_reason": run.pause_reason or None,
            "resume_reason": run.resume_reason or None,
            "detail": run.detail or None,
            "stop_kind": run.stop_kind,
            "stop_reason": run.stop_reason or None,
            **usage_of(run),
            "effective_execution_profile": run.effective_execution_profile.value,
            "requested_execution_profile": requested.value if requested is not None else None,
            "contextRunID": context_run_id(run),
            "linked_context_run_id": context_run_id(run),
            "automation_version": run.automation_version,
            "started_by": run.started_by or None,
            "nodes_total": run.nodes_total,
            "nodes_completed": run.nodes_completed,
            "workspace": run.workspace or None,
            "parked": run.parked or None,
            "due_at_ms": run.due_at_ms,
            "cleanup_engine_id": run.cleanup,
            "forked_from": run.forked_from,
            "forked_from_node": run.forked_from_node,
            "event_seq": run.event_seq,
        }
    )


def _queued(run: Run) -> dict[str, Any] | None:
    """Return why a queued run waits, as its row says it; `capacity` is in no row."""
    if run.status is not S.QUEUED:
        return None
    return {
        "tenant_context": context_json(run.tenant, actor_id=run.started_by),
        "queue_reason": run.queue_reason,
        **without_nothing(
            {
                "resource_key": run.resource_key or None,
                "rate_limited_provider": run.rate_limited_provider or None,
            }
        ),
        "queued_at_ms": run.queued_at_ms or 0,
    }


def _learning(run: Run) -> dict[str, Any] | None:
    if run.learning_summary is None:
        return None
    return without_nothing(plain(run.learning_summary))


# What the other rows add


def _claim(picture: RunPicture) -> dict[str, Any] | None:
    """Return the claim under which an engine drives the run; its lease is that of its engine."""
    run, claim = picture.view.run, picture.claim
    if run.status not in DRIVEN or claim is None:
        return None
    return {
        "claim_id": claim.metadata.get("claim_id", ""),
        "claimant_id": run.engine_id,
        "claimed_at_ms": claim.recorded_at_ms,
        "lease_expires_at_ms": picture.lease_until_ms or 0,
        "lease_epoch": run.epoch,
    }


def _scheduler(picture: RunPicture) -> dict[str, Any] | None:
    view = picture.view
    found = _queued(view.run)
    if found is None or view.run.queue_reason is not QueueReason.RETRY_BACKOFF or not view.backoff:
        return found
    node = min((view.nodes[n] for n in view.backoff), key=lambda n: (n.due_at_ms or 0, n.node_no))
    return found | _retry(picture, node)


def _retry(picture: RunPicture, node: NodeRun) -> dict[str, Any]:
    """Return which node is tried again first, when, and why."""
    tried = [a for a in picture.attempts if a.node_no == node.node_no and a.ended_at_ms is not None]
    newest = tried[-1] if tried else None
    due_at_ms = node.due_at_ms or 0
    return without_nothing(
        {
            "retry_node_id": picture.view.plan.nodes[node.node_no].node_id,
            "retry_attempt": node.attempts + 1,
            "retry_after_ms": due_at_ms,
            "retry_backoff_ms": None if newest is None else due_at_ms - (newest.ended_at_ms or 0),
            "retry_reason": None if newest is None else newest.message or None,
        }
    )


def _derived(picture: RunPicture, settled: Sequence[Settled]) -> dict[str, Any]:
    moment = last_activity_at_ms(picture.view.run, picture.events)
    nodes = picture.view.plan.nodes
    return {
        "blockedNodeIDs": blocked_nodes(picture, settled),
        "last_activity_at_ms": moment,
        "lastActivityAtMs": moment,
        "needsRepairNodeIDs": sorted(
            each.plan_node.node_id for each in settled if each.status == NEEDS_REPAIR
        ),
        "nodeRepairGuidance": {
            each.plan_node.node_id: _guidance(picture.view.run, each)
            for each in settled
            if each.status in _TOLD
        },
        "nodeAttemptEvidence": {
            nodes[number].node_id: evidence_of(attempt)
            for number, attempt in {a.node_no: a for a in picture.attempts}.items()
        },
    }


def last_activity_at_ms(run: Run, events: Sequence[LifecycleEvent]) -> int:
    """Return the newest event that is more than a claim, or sign of life (run-lifecycle 1.6)."""
    moments = (e.recorded_at_ms for e in reversed(events) if e.event not in _BOOKKEEPING)
    newest = next(moments, None) or run.started_at_ms or run.created_at_ms
    return max(newest, run.activity_at_ms or 0)


def _guidance(run: Run, each: Settled) -> dict[str, Any]:
    """Return what is to be done about an output that does not count (http-api 3.1).

    Keys whose facts only sessions of models have are empty.
    """
    node, failure = each.node, each.node.failure
    kind = failure.failure_kind or None if failure is not None else None
    return {
        "status": each.status,
        "failureKind": kind,
        "reason": reason_of(node, each.newest, each.status),
        "unmetRequirements": unmet_of(node, each.newest),
        "blockingClassification": kind if each.status == "blocked" else None,
        "requiredNextToolActions": [],
        "validationBasis": None,
        "upstreamReadPaths": [],
        "requiredSourceReadPaths": [],
        "missingRequiredSourceReadPaths": [],
        "knowledgePreflight": None,
        "runtimeState": failure.metadata.get("runtime_state") if failure is not None else None,
        "runtimePause": run.pause_reason or None,
        "knowledgeReuseReason": None,
        "knowledgeSkipReason": None,
        "knowledgeFreshnessReason": None,
        "repairAttempt": node.repairs_used,
        "repairAttemptsRemaining": repairs_left(
            each.plan_node, node, run.effective_execution_profile
        ),
    }
