"""The output of a node as the wire contract shows it (run-lifecycle 4.6.1).

The rows keep what a body returned, how it was read, what was missing and what people did. This puts
them together; a node that left nothing to tell has no record.
"""

from collections.abc import Mapping
from typing import Any, Final

from tandem.domain.disposition import UNMARKED
from tandem.domain.execution import ExecutionProfile
from tandem.domain.graph import PlanNode
from tandem.domain.json import JsonObject, JsonValue, decode, plain
from tandem.domain.lifecycle import NodeState
from tandem.domain.node import Node
from tandem.domain.output_contract import Validator
from tandem.domain.output_status import reads_status
from tandem.domain.profile import repair_budget
from tandem.domain.reading import COMPLETED_WITH_WARNINGS, SKIPPED
from tandem.domain.run import Attempt, AttemptEnd, NodeRun
from tandem.domain.verdict import verdict_of
from tandem.domain.write_scope import is_code

N = NodeState
SUMMARY_CHARS_MAX: Final = 200
NEEDS_REPAIR: Final = "needs_repair"
VERIFY_FAILED: Final = "verify_failed"

_VALIDATOR_OF_KIND: Final = {
    "brief": Validator.RESEARCH_BRIEF,
    "review": Validator.REVIEW_DECISION,
    "structured_json": Validator.STRUCTURED_JSON,
}
_CLASS_OF_WORK: Final = {Validator.CODE_PATCH: "code", Validator.RESEARCH_BRIEF: "research"}
_OUTCOMES: Final = {"completed": "passed", COMPLETED_WITH_WARNINGS: "accepted_with_warnings"}
_NOTHING: Final[JsonObject] = {}


def without_nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is there: the contract leaves out what is absent."""
    return {name: value for name, value in values.items() if value is not None}


def validator_of(node: Node) -> Validator:
    """Return the checks that the output of a node gets (run-lifecycle 1.4)."""
    contract = node.output_contract
    if contract is not None and contract.validator is not None:
        return contract.validator
    if is_code(node):
        return Validator.CODE_PATCH
    kind = contract.kind if contract is not None else ""
    return _VALIDATOR_OF_KIND.get(kind, Validator.GENERIC_ARTIFACT)


def output_status(node: NodeRun, newest: Attempt | None) -> str | None:
    """Return the status of what a node left, in the words of run-lifecycle 4.6.2; None for nothing.

    `newest` is the newest attempt of the node that has ended. What stands behind a block or a
    failure of another node has left nothing.
    """
    failure = node.failure
    match node.state:
        case N.COMPLETED:
            return node.reading.status if node.reading is not None else "completed"
        case N.BLOCKED | N.FAILED if failure is not None:
            if failure.failure_kind == "verification_failed":
                return VERIFY_FAILED
            return node.state.value
        case N.PENDING | N.BACKOFF | N.RUNNING:
            return NEEDS_REPAIR if failure is not None or _missed(node, newest) else None
        case _:
            return None


def _missed(node: NodeRun, newest: Attempt | None) -> bool:
    """Say whether an attempt since the last reset ended without a valid output."""
    ended = node.attempts_used - (node.state is N.RUNNING)
    return (
        ended > 0
        and newest is not None
        and newest.outcome in (AttemptEnd.FAILED, AttemptEnd.NEEDS_REPAIR)
    )


def output_record(
    plan_node: PlanNode,
    node: NodeRun,
    newest: Attempt | None,
    *,
    status: str,
    profile: ExecutionProfile,
    shows_content: bool,
) -> dict[str, Any]:
    """Return the record of an output whose status is known.

    Args:
        plan_node: the node.
        node: its row.
        newest: its newest attempt that has ended.
        status: what `output_status` said.
        profile: that of the run.
        shows_content: false when only the size of the output is to be told.
    """
    content = _content(node, shows_content=shows_content)
    said = content if isinstance(content, Mapping) else _NOTHING
    is_ours = plan_node.is_parked or status == SKIPPED
    if is_ours:
        content = said.get("content", content)
    contract = plan_node.node.output_contract
    kind = said.get("contract_kind") if is_ours else None
    validator = validator_of(plan_node.node)
    reason = reason_of(node, newest, status)
    failure = node.failure
    approved = said.get("approved") if reads_status(plan_node.node) else None
    return {"content": content} | without_nothing(
        {
            "contract_kind": kind or (contract.kind if contract is not None else "text_summary"),
            "validator_kind": None if plan_node.is_parked else validator.value,
            "validator_summary": _validation(plan_node, node, newest, status, profile),
            "summary": _summary(plan_node, status, reason, said, content),
            "created_at_ms": _created_at_ms(node, newest),
            "node_id": plan_node.node_id,
            "status": status,
            "blocked_reason": reason,
            "approved": approved if isinstance(approved, bool) else None,
            "workflow_class": _CLASS_OF_WORK.get(validator, "artifact"),
            "failure_kind": _failure_kind(node, newest, status),
            "blocker_category": failure.failure_kind or None if failure is not None else None,
            "attempt_evidence": None if newest is None else evidence_of(newest),
            "attempt_verdict": None if newest is None else verdict_of(plan_node, newest),
            "artifact_validation": _artifact_validation(plan_node, node, newest, status, profile),
            "provenance": _provenance(node),
        }
    )


def evidence_of(attempt: Attempt) -> dict[str, Any]:
    """Return what is known of an attempt, for whoever looks for its traces."""
    return without_nothing(
        {
            "attempt": attempt.number,
            "attempt_id": attempt.attempt_id,
            "engine_id": attempt.engine_id,
            "started_at_ms": attempt.started_at_ms,
            "ended_at_ms": attempt.ended_at_ms,
            "outcome": attempt.outcome.value if attempt.outcome is not None else "running",
            "exit_code": attempt.exit_code,
            "failure_class": attempt.failure_class or None,
            "message": attempt.message or None,
        }
    )


def reason_of(node: NodeRun, newest: Attempt | None, status: str) -> str | None:
    """Return why an output does not count, None for one that does."""
    if node.state is N.COMPLETED:
        return None
    if node.failure is not None:
        return node.failure.reason
    return (newest.message if newest is not None else "") or f"the output is `{status}`"


def unmet_of(node: NodeRun, newest: Attempt | None) -> list[str]:
    """Return the codes, or else the words, of what an output misses."""
    codes = list(newest.unmet) if newest is not None else []
    return codes or list(node.repair)


def repairs_left(plan_node: PlanNode, node: NodeRun, profile: ExecutionProfile) -> int:
    """Return how many repairs the node may still have."""
    return max(repair_budget(plan_node.node, profile) - node.repairs_used, 0)


def _content(node: NodeRun, *, shows_content: bool) -> JsonValue:
    """Return the output: a small one itself, a large one as the reference of its artifact."""
    if node.output_ref is not None:
        return {"artifact": plain(node.output_ref)}
    if node.output is None:
        return None
    if not shows_content:
        return {"omitted": {"size_bytes": len(node.output)}}
    return decode(node.output)


def _summary(
    plan_node: PlanNode, status: str, reason: str | None, said: JsonObject, content: JsonValue
) -> str:
    told = said.get("summary")
    for text in (told, reason, content):
        if isinstance(text, str) and text.strip():
            return text.strip()[:SUMMARY_CHARS_MAX]
    return f"node `{plan_node.node_id}` is {status.replace('_', ' ')}"


def _created_at_ms(node: NodeRun, newest: Attempt | None) -> int:
    ended_at_ms = newest.ended_at_ms if newest is not None else None
    if node.state is N.COMPLETED and node.finished_at_ms is not None:
        return node.finished_at_ms
    return ended_at_ms or (node.failure.failed_at_ms if node.failure is not None else 0)


def _failure_kind(node: NodeRun, newest: Attempt | None, status: str) -> str | None:
    if node.state is N.COMPLETED:
        return None
    if status == "failed":
        return "run_failed"
    if node.failure is not None and node.failure.failure_kind:
        return node.failure.failure_kind
    was_cut = newest is not None and newest.outcome is AttemptEnd.FAILED
    return "execution_failed" if was_cut else "artifact_contract_unmet"


def _validation(
    plan_node: PlanNode,
    node: NodeRun,
    newest: Attempt | None,
    status: str,
    profile: ExecutionProfile,
) -> dict[str, Any] | None:
    """Return the summary of the judgement; a plain success without a contract was not judged."""
    reading = node.reading
    if plan_node.node.output_contract is None and status == "completed" and reading is None:
        return None
    done = node.state is N.COMPLETED
    warnings = list(reading.warnings) if reading is not None else []
    relaxation = reading.relaxation if reading is not None else None
    left = repairs_left(plan_node, node, profile)
    return without_nothing(
        {
            "kind": validator_of(plan_node.node).value,
            "outcome": relaxation.effective_outcome
            if relaxation is not None
            else _OUTCOMES.get(status, status),
            "reason": reason_of(node, newest, status),
            "unmet_requirements": [] if done else unmet_of(node, newest),
            "warning_requirements": warnings,
            "warning_count": len(warnings),
            "repair_attempted": node.repairs_used > 0,
            "repair_attempt": node.repairs_used,
            "repair_attempts_remaining": left,
            "repair_succeeded": done and node.repairs_used > 0,
            "repair_exhausted": _is_exhausted(node, status, left),
        }
    )


def _is_exhausted(node: NodeRun, status: str, left: int) -> bool:
    return status == "blocked" and node.repairs_used > 0 and left == 0


def _artifact_validation(
    plan_node: PlanNode,
    node: NodeRun,
    newest: Attempt | None,
    status: str,
    profile: ExecutionProfile,
) -> dict[str, Any] | None:
    """Return what was let pass, what is missing, and what a person thinks of the output."""
    found: dict[str, Any] = {}
    relaxation = node.reading.relaxation if node.reading is not None else None
    if relaxation is not None:
        found |= plain(relaxation)
    if status in (NEEDS_REPAIR, "blocked", VERIFY_FAILED):
        found["unmet_requirements"] = unmet_of(node, newest)
        left = repairs_left(plan_node, node, profile)
        found["repair_exhausted"] = _is_exhausted(node, status, left)
    disposition = node.handling.disposition if node.handling is not None else ""
    if disposition or found:
        found["human_disposition"] = disposition or UNMARKED
    return found or None


def _provenance(node: NodeRun) -> dict[str, Any] | None:
    """Return what made the output other than an attempt of a body in the ordinary way."""
    reading, handling = node.reading, node.handling
    found: dict[str, Any] = {}
    if handling is not None:
        if handling.by_hand:
            found["by_hand"] = handling.by_hand
        if handling.dispatches:
            found["dispatches"] = handling.dispatches
            found["dispatched_at_ms"] = handling.dispatched_at_ms
    if reading is not None and (reading.experimental or reading.tainted_inputs):
        found["experimental"] = reading.experimental
        found["tainted_inputs"] = list(reading.tainted_inputs)
    return found or None
