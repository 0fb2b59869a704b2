"""An automation as the wire contract shows it (http-api 3.1, 3.2): its document, and its row.

Always canonical snake_case. What the contract always emits is there, also where the document is
silent; the row says what changes without a new version.
"""

from collections.abc import Mapping
from typing import Any, Final

from tandem.domain.automation import Automation
from tandem.domain.execution import PARALLEL_DEFAULT
from tandem.domain.knowledge import KnowledgeBinding
from tandem.domain.run import Run
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.tenant import TenantSource, context_json, context_of

_DEFAULT_KNOWLEDGE: Final = KnowledgeBinding()
_TENANT_KEY: Final = "tenant_context"


def spec_record(automation: Automation) -> dict[str, Any]:
    """Return a document as it is emitted; nothing in it is shared with others."""
    return emitted(automation.model_dump(mode="json", by_alias=True, exclude_none=True))


def emitted(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a canonical document as it is emitted; it is changed in place."""
    knowledge = _DEFAULT_KNOWLEDGE.model_dump(mode="json", exclude_none=True)
    spec.setdefault("knowledge", knowledge)
    spec.setdefault("execution", {}).setdefault("max_parallel_agents", PARALLEL_DEFAULT)
    spec.setdefault("creator_id", "unknown")
    for node in spec["flow"]["nodes"]:
        node.setdefault("knowledge", knowledge)
    if not spec["watch_conditions"]:
        del spec["watch_conditions"]
    return spec


def snapshot_record(spec: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Return the version that a run executes, with the profile that counts for it.

    What started the run stands in its metadata, as untrusted as it came.
    """
    profile = run.effective_execution_profile.value
    snapshot = {**spec, "execution": {**spec["execution"], "profile": profile}}
    if run.trigger_context is not None:
        metadata = spec.get("metadata")
        own = metadata if isinstance(metadata, Mapping) else {}
        snapshot["metadata"] = {**own, **run.trigger_context}
    return snapshot


def automation_record(spec: Mapping[str, Any], row: StoredAutomation) -> dict[str, Any]:
    """Return a stored automation; `spec` is what `spec_record` made of its current version."""
    record = {
        **spec,
        "status": row.status.value,
        "created_at_ms": row.created_at_ms,
        "updated_at_ms": row.updated_at_ms,
        "creator_id": row.creator_id or spec["creator_id"],
        "version": row.version,
        "definition_digest": row.definition_digest,
    }
    metadata = _metadata(spec.get("metadata"), row)
    if metadata is not None:
        record["metadata"] = metadata
    if row.paused_at_ms is not None:
        record["pause_reason"] = row.pause_reason
        record["paused_by"] = row.paused_by
        record["paused_at_ms"] = row.paused_at_ms
    return record


def automation_summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list with `view=summary` shows of an automation; nulls are kept."""
    kept = {name: record.get(name) for name in _SUMMARY}
    counts = {"agent_count": len(record["agents"]), "node_count": len(record["flow"]["nodes"])}
    return kept | counts


_SUMMARY: Final = (
    "automation_id",
    "name",
    "description",
    "status",
    "schedule",
    "execution",
    "output_targets",
    "created_at_ms",
    "updated_at_ms",
    "creator_id",
    "workspace_root",
    "metadata",
    "next_fire_at_ms",
    "last_fired_at_ms",
    "version",
    "definition_digest",
    "pause_reason",
    "paused_by",
    "paused_at_ms",
)


def _metadata(metadata: object, row: StoredAutomation) -> object:
    """Return the metadata with the tenant of the row: no document can choose another."""
    context = context_of(row.tenant)
    is_local = context.source is TenantSource.LOCAL_IMPLICIT
    if metadata is None and not is_local:
        metadata = {}
    if not isinstance(metadata, Mapping) or (is_local and _TENANT_KEY not in metadata):
        return metadata
    return {**metadata, _TENANT_KEY: context_json(row.tenant)}
