"""The verdict on one attempt: what it was to do, what came of it, what is next (run-lifecycle 4.8).

It is made from the row of the attempt when somebody asks, so that an attempt costs nothing more.
The `consumes_…` flags are true: they say what the engine charged (W-24).
"""

from typing import Final

from tandem.domain.graph import PlanNode
from tandem.domain.json import JsonObject
from tandem.domain.outcome import FailureClass
from tandem.domain.run import Attempt, AttemptEnd

_CLASSES: Final = {
    FailureClass.PROVIDER_TRANSIENT: "provider_transient",
    FailureClass.PROVIDER_TERMINAL: "provider_terminal",
    FailureClass.MISSING_CONFIG: "tool_resolution",
    FailureClass.TIMED_OUT: "tool_execution",
    FailureClass.EXECUTION_ERROR: "tool_execution",
    FailureClass.OUTPUT_TOO_LARGE: "artifact_validation",
    FailureClass.VALIDATION_ERROR: "artifact_validation",
    FailureClass.VERIFICATION_FAILED: "artifact_validation",
}
_PROGRESS: Final = {
    AttemptEnd.SUCCEEDED: ("complete", 100),
    AttemptEnd.NEEDS_REPAIR: ("substantial", 60),
    AttemptEnd.BLOCKED: ("partial", 40),
}


def verdict_of(plan_node: PlanNode, attempt: Attempt) -> JsonObject:
    """Return the verdict on an attempt that has ended."""
    is_done = attempt.outcome is AttemptEnd.SUCCEEDED
    unmet = list(attempt.unmet)
    reasons = [line for line in attempt.detail.splitlines() if line.strip()]
    needed = [] if is_done else (unmet or reasons or [attempt.message or "a successful attempt"])
    label, score = _PROGRESS.get(attempt.outcome or AttemptEnd.FAILED, ("none", 0))
    failed = _failure_class(attempt)
    moves = _next_moves(attempt)
    return {
        "version": 1,
        "node_id": plan_node.node_id,
        "attempt": attempt.number,
        "outcome": attempt.outcome.value if attempt.outcome else "running",
        "failure_class": failed,
        "consumes_model_attempt_budget": attempt.is_charged,
        "consumes_repair_budget": attempt.is_repair_charged,
        "expected": _expected(plan_node),
        "observed": {
            "outcome": attempt.outcome.value if attempt.outcome else "running",
            "exit_code": attempt.exit_code,
        },
        "unmet_requirements": unmet,
        "required_next_actions": moves,
        "provider_error": attempt.message if (failed or "").startswith("provider") else None,
        "validation_reason": attempt.message if failed == "artifact_validation" else None,
        "attempt_review": {
            "tone": "calm_teammate_v1",
            "progress_label": label,
            "progress_score": score,
            "completed_correctly": ["the output meets its contract"] if is_done else [],
            "still_needed": needed,
            "why_it_matters": "" if is_done else "nodes after this one need its output",
            "next_moves": moves,
        },
        "created_at_ms": attempt.ended_at_ms,
    }


def _failure_class(attempt: Attempt) -> str | None:
    if attempt.outcome is AttemptEnd.SUCCEEDED:
        return None
    if "missing_artifact_path" in attempt.unmet:
        return "workspace_write_missing"
    return _CLASSES.get(attempt.failure_class, "contract_miss")  # type: ignore[call-overload,no-any-return] # a StrEnum or its text


def _expected(plan_node: PlanNode) -> JsonObject:
    contract = plan_node.node.output_contract
    if contract is None:
        return {}
    return {
        "contract_kind": contract.kind,
        "required_files": list(contract.required_files),
        "required_sections": list(contract.sections),
        "schema": contract.output_schema is not None,
    }


def _next_moves(attempt: Attempt) -> list[str]:
    match attempt.outcome:
        case AttemptEnd.NEEDS_REPAIR:
            return [f"mend: {line}" for line in attempt.detail.splitlines() if line.strip()]
        case AttemptEnd.BLOCKED:
            return ["change what the node depends on, then recover the run"]
        case AttemptEnd.FAILED:
            return ["find out why the body failed; recover the run to try again"]
        case AttemptEnd.STOPPED | AttemptEnd.INTERRUPTED:
            return ["nothing: the attempt does not count and is made again"]
        case _:
            return []
