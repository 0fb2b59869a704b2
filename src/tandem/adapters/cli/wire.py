"""The records of the wire contract, read back into what the commands work with."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from tandem.domain.errors import Refused
from tandem.domain.gates import GATE_ALIASES
from tandem.domain.ids import (
    AutomationId,
    GateId,
    NodeId,
    RunId,
    TenantId,
)
from tandem.domain.json import canonical
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Gate, GatePurpose, LifecycleEvent, Run
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.tenant import TenantContext
from tandem.domain.token import Token
from tandem.ports.store import OpenGate

T = TypeVar("T")

_SAME = (
    "run_id",
    "automation_id",
    "name",
    "trigger_type",
    "trigger_reason",
    "status",
    "created_at_ms",
    "updated_at_ms",
    "started_at_ms",
    "finished_at_ms",
    "pause_reason",
    "resume_reason",
    "detail",
    "stop_kind",
    "stop_reason",
    "effective_execution_profile",
    "requested_execution_profile",
    "automation_version",
    "started_by",
    "nodes_total",
    "nodes_completed",
    "workspace",
    "parked",
    "due_at_ms",
    "forked_from",
    "forked_from_node",
    "event_seq",
    "inputs",
)
_RENAMED = {
    "workflow_definition_version": "definition_version",
    "workflow_definition_snapshot_hash": "definition_digest",
    "execution_claim_epoch": "epoch",
    "cleanup_engine_id": "cleanup",
}


_MORE = (
    "version",
    "definition_digest",
    "pause_reason",
    "paused_by",
    "paused_at_ms",
    "next_fire_at_ms",
    "last_fired_at_ms",
)


def read(value: object, kind: type[T]) -> T:
    """Return a part of an answer as what it is.

    Raises:
        Refused: it has another shape: the server speaks another version.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Refused(
            f"an answer of the server cannot be read ({error}); the versions of server and command "
            "line differ too much",
            code="answer_unreadable",
        ) from error


def part(answer: Any, name: str) -> Any:
    """Return a part of an answer.

    Raises:
        Refused: the answer has no such part: the server speaks another version.
    """
    if not isinstance(answer, Mapping) or name not in answer:
        raise Refused(
            f"an answer of the server has no `{name}`; the versions of server and command line "
            "differ too much",
            code="answer_unreadable",
        )
    return answer[name]


def run_of(record: Mapping[str, Any]) -> Run:
    """Return the row of a run from its record or its summary.

    What only engines need is not told, and empty: numbers, change ids, the parts of admission.
    """
    given = {name: record[name] for name in _SAME if record.get(name) is not None}
    given |= {ours: record[name] for name, ours in _RENAMED.items() if record.get(name) is not None}
    queued = record.get("scheduler") or {}
    for name in ("queue_reason", "resource_key", "rate_limited_provider", "queued_at_ms"):
        if queued.get(name) is not None:
            given[name] = queued[name]
    claim = record.get("execution_claim") or {}
    if claim.get("claimant_id"):
        given["engine_id"] = claim["claimant_id"]
    checkpoint = record.get("checkpoint") or {}
    if checkpoint.get("last_failure"):
        given["last_failure"] = checkpoint["last_failure"]
    context = read(record.get("tenant_context"), TenantContext)
    return read({"tenant": context.tenant, "last_change_id": "", **given}, Run)


def event_of(record: Mapping[str, Any]) -> LifecycleEvent:
    """Return a lifecycle event from its record, whose metadata hold node and attempt."""
    metadata = dict(record.get("metadata") or {})
    named = {name: metadata.pop(name) for name in ("node_id", "attempt") if name in metadata}
    return read({"change_id": "", **record, **named, "metadata": metadata}, LifecycleEvent)


def stored_of(record: Mapping[str, Any]) -> StoredAutomation:
    """Return the row of a stored automation from its record or its summary."""
    names = ("automation_id", "name", "status", "created_at_ms", "updated_at_ms", "creator_id")
    given = {name: record[name] for name in names if name in record}
    given |= {name: record[name] for name in _MORE if record.get(name) is not None}
    if record.get("schedule"):
        given["schedule"] = canonical(record["schedule"]).decode()
    metadata = record.get("metadata")
    context = metadata.get("tenant_context") if isinstance(metadata, dict) else None
    tenant = read(context, TenantContext).tenant if context else TenantId("local")
    missing = {"version": 0, "definition_digest": "", "last_change_id": "", "tenant": tenant}
    return read({**missing, **given}, StoredAutomation)


def token_of(record: Mapping[str, Any]) -> Token:
    """Return a token from its record, which never tells its digest."""
    return read({**record, "digest": ""}, Token)


def gate_of(approval: Mapping[str, Any]) -> OpenGate:
    """Return an open gate from the inbox of approvals."""
    payload = approval.get("surface_payload") or {}
    policy = payload.get("expiry_policy") or {}
    asks = approval.get("instructions") or approval.get("action_preview_markdown") or ""
    try:
        return OpenGate(
            run_id=RunId(approval["run_id"]),
            automation_id=AutomationId(payload.get("automation_id", "")),
            name=approval.get("workflow_name", ""),
            run_status=RunState.AWAITING_APPROVAL,
            started_by=approval.get("requested_by") or "",
            gate=Gate(
                gate_id=GateId(approval["request_id"]),
                node_no=0,
                node_id=NodeId(approval["node_id"]),
                instance=0,
                purpose=GatePurpose(approval.get("action_kind", "approval")),
                title=asks,
                instructions=asks,
                decisions=tuple(GATE_ALIASES.get(w, w) for w in approval.get("decisions") or ()),
                rework_targets=tuple(approval.get("rework_targets") or ()),
                requested_at_ms=approval["requested_at_ms"],
                requested_by=approval.get("requested_by") or "",
                expires_at_ms=approval.get("expires_at_ms"),
                on_expiry=policy.get("on_expiry", "cancel"),
                escalate_to=policy.get("escalate_to") or "",
            ),
        )
    except (KeyError, ValueError) as error:
        raise Refused(
            f"an approval of the server cannot be read ({error!r})", code="answer_unreadable"
        ) from error
