"""What a body says of itself in its output, and what the engine makes of it (run-lifecycle 4.6.2).

Ordinary JSON may hold a key `status` that is none of the engine's business. It is read only where
the contract of a node asks for it: at agent nodes, at reviews, and where the document says so with
`metadata.reads_output_status: true`. What is read decides at once: an output that says `failed`,
or something unknown, never counts as completed (W-07), and one with warnings always does (W-06).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from tandem.domain.automation import Node, NodeKind, StageKind, Validator
from tandem.domain.free_json import object_at
from tandem.domain.json import JsonObject, JsonValue, decode
from tandem.domain.outcome import (
    REVIEW_NOT_APPROVED,
    SEMANTIC_BLOCKED,
    Blocked,
    Failed,
    FailureClass,
    NeedsRepair,
    Outcome,
    Succeeded,
)
from tandem.domain.reading import COMPLETED_WITH_WARNINGS, SKIPPED, Reading
from tandem.domain.work import has_work, is_triage_gate

SUCCESSES: Final = frozenset(
    {
        "completed",
        "complete",
        "completed_with_limitations",
        "succeeded",
        "success",
        "passed",
        "ok",
        "done",
        "accepted_with_warnings",
        COMPLETED_WITH_WARNINGS,
        SKIPPED,
    }
)
"""Every status with which an output counts (definitions 2.6, run-lifecycle 4.7)."""
_WARNED: Final = frozenset({COMPLETED_WITH_WARNINGS, "accepted_with_warnings"})
_NO_OBJECT: Final[JsonObject] = {}


class Read(msgspec.Struct, frozen=True):
    """The outcome as it counts, and what is kept of how it was read."""

    outcome: Outcome
    reading: Reading | None = None


def is_review(node: Node) -> bool:
    """Say whether a node judges the work of the nodes before it."""
    contract = node.output_contract
    if contract is not None and contract.validator is not None:
        return contract.validator is Validator.REVIEW_DECISION
    return node.stage_kind is StageKind.REVIEW or (
        contract is not None and contract.kind == "review"
    )


def reads_status(node: Node) -> bool:
    """Say whether the contract of this node asks its body for a status."""
    wanted = object_at(node.metadata).get("reads_output_status")
    return wanted is True or node.kind is NodeKind.AGENT or is_review(node)


def read_output(node: Node, outcome: Succeeded) -> Read:
    """Read what a body that ended well says of itself."""
    said = _said(outcome.output)
    triage = is_triage_gate(node) and not has_work(outcome.output)
    if not reads_status(node):
        return Read(outcome, Reading(has_work=False) if triage else None)
    status = _word(said.get("status"))
    refused = _refusal(node, said, status, outcome)
    if refused is not None:
        return Read(refused)
    warnings = _texts(said.get("warnings")) if status in _WARNED else ()
    reading = Reading(
        status=status if status in (COMPLETED_WITH_WARNINGS, SKIPPED) else "completed",
        has_work=not triage,
        warnings=warnings or ((_reason(said, "no reason given"),) if status in _WARNED else ()),
    )
    return Read(outcome, None if reading == Reading() else reading)


def _refusal(node: Node, said: JsonObject, status: str, outcome: Succeeded) -> Outcome | None:
    output, unmet = outcome.output, _texts(said.get("unmetRequirements"))
    reason = _reason(said, f"the output says `{status}` and no reason")
    match status:
        case "verify_failed":
            kind = FailureClass.VERIFICATION_FAILED
            return NeedsRepair(reasons=(reason,), unmet=unmet, output=output, failure_class=kind)
        case "blocked":
            kind_of_block = REVIEW_NOT_APPROVED if said.get("approved") is False else ""
            return Blocked(
                kind=kind_of_block or _word(said.get("blocked_reason_code")) or SEMANTIC_BLOCKED,
                reason=reason,
                output=output,
                unmet=unmet,
            )
    if is_review(node) and said.get("approved") is False:
        text = _reason(said, "the review does not approve and gives no reason")
        return Blocked(kind=REVIEW_NOT_APPROVED, reason=text, output=output, unmet=unmet)
    match status:
        case "failed":
            return Failed(failure_class=FailureClass.EXECUTION_ERROR, message=reason)
        case "needs_repair":
            return NeedsRepair(reasons=unmet or (reason,), unmet=unmet, output=output)
    if status and status not in SUCCESSES:
        text = f"the output has the status `{status}`, which says neither success nor failure"
        return NeedsRepair(reasons=(text,), unmet=("artifact_status_not_terminal",), output=output)
    return _without_decision(node, said, output)


def _without_decision(node: Node, said: JsonObject, output: JsonValue) -> Outcome | None:
    contract = node.output_contract
    decides = contract is not None and contract.validator is Validator.REVIEW_DECISION
    if not decides or isinstance(said.get("approved"), bool):
        return None
    text = "a review has to say `approved`: true or false"
    return NeedsRepair(reasons=(text,), unmet=("structured_handoff_missing",), output=output)


def _said(output: JsonValue) -> JsonObject:
    """Return the object that a body answered with, also when it came as text."""
    if isinstance(output, Mapping):
        return output
    if isinstance(output, str) and output.lstrip().startswith("{"):
        try:
            found = decode(output)
        except msgspec.DecodeError:
            return _NO_OBJECT
        return found if isinstance(found, Mapping) else _NO_OBJECT
    return _NO_OBJECT


def _word(value: JsonValue) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _reason(said: JsonObject, otherwise: str) -> str:
    for name in ("reason", "blocked_reason", "summary"):
        text = said.get(name)
        if isinstance(text, str) and text.strip():
            return text.strip()
    return otherwise
