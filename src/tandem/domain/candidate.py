"""Candidates: what was learned from the runs of an automation, proposed until somebody decides.

Shapes and states are those of definitions.md section 10.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Final, TypeVar

import msgspec

from tandem.domain.errors import Refused
from tandem.domain.ids import AutomationId, NodeId, RunId, TenantId

T = TypeVar("T")

LISTED_MAX: Final = 50
"""So many run ids, artifacts and pieces of evidence a candidate keeps: the newest."""
SUMMARY_CHARS_MAX: Final = 2_000


class CandidateKind(StrEnum):
    """What a candidate would change."""

    MEMORY_FACT = "memory_fact"
    REPAIR_HINT = "repair_hint"
    PROMPT_PATCH = "prompt_patch"
    GRAPH_PATCH = "graph_patch"


class CandidateStatus(StrEnum):
    """Where a candidate is."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    APPLIED = "applied"
    SUPERSEDED = "superseded"
    REGRESSED = "regressed"


class ReviewAction(StrEnum):
    """What a reviewer, or the policy, does with a candidate."""

    APPROVE = "approve"
    REJECT = "reject"
    APPLIED = "applied"
    SUPERSEDE = "supersede"
    REGRESS = "regress"


C, A = CandidateStatus, ReviewAction

CONFIDENCE: Final[Mapping[CandidateKind, float]] = {
    CandidateKind.MEMORY_FACT: 0.65,
    CandidateKind.REPAIR_HINT: 0.70,
    CandidateKind.PROMPT_PATCH: 0.75,
    CandidateKind.GRAPH_PATCH: 0.80,
}
TOLD: Final = frozenset({C.APPROVED, C.APPLIED})
"""Candidates that runs are told of."""

CANDIDATE_TRANSITIONS: Final[Mapping[tuple[CandidateStatus, ReviewAction], CandidateStatus]] = {
    (C.PROPOSED, A.APPROVE): C.APPROVED,
    (C.PROPOSED, A.REJECT): C.REJECTED,
    (C.PROPOSED, A.APPLIED): C.APPLIED,
    (C.PROPOSED, A.SUPERSEDE): C.SUPERSEDED,
    (C.APPROVED, A.REJECT): C.REJECTED,
    (C.APPROVED, A.APPLIED): C.APPLIED,
    (C.APPROVED, A.SUPERSEDE): C.SUPERSEDED,
    (C.REJECTED, A.APPROVE): C.APPROVED,
    (C.APPLIED, A.REGRESS): C.REGRESSED,
    (C.APPLIED, A.REJECT): C.REJECTED,
    (C.APPLIED, A.SUPERSEDE): C.SUPERSEDED,
    (C.REGRESSED, A.APPROVE): C.APPROVED,
    (C.REGRESSED, A.REJECT): C.REJECTED,
    (C.REGRESSED, A.APPLIED): C.APPLIED,
    (C.REGRESSED, A.SUPERSEDE): C.SUPERSEDED,
}


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """How the newest runs of an automation went; rates from 0 to 1, spans in milliseconds."""

    sample_size: int = 0
    completion_rate: float = 0.0
    validation_pass_rate: float = 0.0
    mean_attempts_per_node: float = 0.0
    repairable_failure_rate: float = 0.0
    median_wall_clock_ms: int = 0
    human_intervention_count: int = 0
    computed_at_ms: int = 0


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate. `workflow_id` is the automation; lists keep the newest entries."""

    candidate_id: str
    tenant: TenantId
    workflow_id: AutomationId
    project_id: str = ""
    source_run_id: RunId
    kind: CandidateKind
    status: CandidateStatus = C.PROPOSED
    confidence: float
    summary: str
    fingerprint: str
    node_id: NodeId | None = None
    node_kind: str | None = None
    validator_family: str | None = None
    evidence_refs: tuple[str, ...] = ()
    artifact_refs: tuple[str, ...] = ()
    needs_plan_bundle: bool = False
    baseline_before: Metrics | None = None
    latest_observed_metrics: Metrics | None = None
    run_ids: tuple[RunId, ...] = ()
    reviewed_by: str = ""
    review_note: str = ""
    created_at_ms: int
    updated_at_ms: int


class LearningSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the record of a run says of learning (run-lifecycle 1.3)."""

    generated_candidate_ids: tuple[str, ...] = ()
    injected_learning_ids: tuple[str, ...] = ()
    approved_learning_ids_considered: tuple[str, ...] = ()
    post_run_metrics: Metrics | None = None


class Learning(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a run is told; without `node_id` it is for all of its nodes."""

    candidate_id: str
    kind: CandidateKind
    text: str
    node_id: NodeId | None = None


def hash_parts(*parts: str) -> str:
    """Return the SHA-256 in hex over the parts, each followed by a zero byte."""
    digest = sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def candidate_id(
    tenant: TenantId, workflow_id: AutomationId, kind: CandidateKind, fingerprint: str
) -> str:
    """Return the id of a candidate: the same finding has the same id, however often it is found."""
    digest = hash_parts(tenant, workflow_id, kind, fingerprint)
    parts = digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]
    return f"wflearn-{'-'.join(parts)}"


def merge(known: Candidate, found: Candidate) -> Candidate:
    """Return a known candidate with what a new run says: newest summary, highest confidence.

    What is missing is filled, lists are joined, the status and everything decided is kept.
    """
    return msgspec.structs.replace(
        known,
        summary=found.summary or known.summary,
        confidence=max(known.confidence, found.confidence),
        node_id=known.node_id or found.node_id,
        node_kind=known.node_kind or found.node_kind,
        validator_family=known.validator_family or found.validator_family,
        evidence_refs=_joined(known.evidence_refs, found.evidence_refs),
        artifact_refs=_joined(known.artifact_refs, found.artifact_refs),
        run_ids=_joined(known.run_ids, found.run_ids),
        updated_at_ms=found.updated_at_ms,
    )


def _joined(known: Iterable[T], found: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*known, *found)))[-LISTED_MAX:]


def review_candidate(
    candidate: Candidate,
    action: ReviewAction,
    *,
    metrics: Metrics,
    by: str,
    note: str,
    now_ms: int,
) -> Candidate:
    """Return the candidate after a decision; one that is applied keeps `metrics` as its baseline.

    Raises:
        Refused: its status does not allow it.
    """
    after = CANDIDATE_TRANSITIONS.get((candidate.status, action))
    if after is None:
        allowed = [a.value for status, a in CANDIDATE_TRANSITIONS if status is candidate.status]
        raise Refused(
            f"candidate {candidate.candidate_id} is {candidate.status.value}, so `{action.value}` "
            f"does not apply; allowed: {', '.join(allowed) or 'nothing'}",
            code="candidate_status",
        )
    return msgspec.structs.replace(
        candidate,
        status=after,
        baseline_before=metrics if after is C.APPLIED else candidate.baseline_before,
        latest_observed_metrics=None if after is C.APPLIED else candidate.latest_observed_metrics,
        reviewed_by=by,
        review_note=note,
        updated_at_ms=now_ms,
    )
