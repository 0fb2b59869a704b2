"""What one ended run teaches: candidates found or seen again, applied, observed, regressed.

Pure, and the same facts give the same lesson, so a pass that is made twice changes nothing.
Sources: run-lifecycle 9.1, definitions.md section 10.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.candidate import (
    CONFIDENCE,
    SUMMARY_CHARS_MAX,
    TOLD,
    Candidate,
    CandidateKind,
    CandidateStatus,
    Learning,
    LearningSummary,
    Metrics,
    ReviewAction,
    candidate_id,
    hash_parts,
    merge,
    review_candidate,
)
from tandem.domain.facts import RunFacts, lacks_plan_bundle, metrics_of
from tandem.domain.ids import AutomationId, NodeId, RunId, TenantId
from tandem.domain.run import Run

K, C = CandidateKind, CandidateStatus
HINT_RUNS: Final = 2
GRAPH_RUNS: Final = 3
TOLD_MAX: Final = 6
"""A run is told of so many candidates."""
TOLD_CHARS_MAX: Final = 500
POLICY_NAME: Final = "workflow_learning_auto_apply"


class LearningPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a candidate is applied without a person, and when it counts as regressed."""

    auto_apply: bool = False
    min_confidence: float = 0.8
    min_baseline_sample: int = 5
    max_human_intervention_rate: float = 0.0
    post_apply_min_sample: int = 3
    regression_margin: float = sys.float_info.epsilon


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass leaves: candidates that are new or changed, and the summary of the run."""

    candidates: tuple[Candidate, ...]
    auto_applied: tuple[str, ...]
    summary: LearningSummary


# Finding


def find_candidates(
    run: Run,
    facts: RunFacts,
    window: Iterable[RunFacts],
    *,
    automation: Automation,
    is_patched: bool,
    now_ms: int,
) -> Iterator[Candidate]:
    """Yield what this run gives reason to propose.

    Args:
        run: the run.
        facts: its facts.
        window: the facts of the newest runs, this one included.
        automation: the version that it executed.
        is_patched: a prompt patch for the node that failed was approved or applied before.
        now_ms: the moment of the pass.
    """
    finder = _Finder(run, now_ms)
    if facts.memory:
        suffix = hash_parts(run.automation_id, facts.memory)
        yield finder.candidate(K.MEMORY_FACT, facts.memory, suffix, runs=(run.run_id,))
    signature = facts.signature
    if signature is None:
        return
    alike = [
        other.run_id
        for other in window
        if other.signature is not None and other.signature.digest == signature.digest
    ]
    if len(alike) < HINT_RUNS:
        return
    node, times = signature.node_id, f"in {len(alike)} of the newest runs"
    said = run.last_failure.reason if run.last_failure is not None else signature.reason
    texts = {
        K.REPAIR_HINT: f"node `{node}` failed {times}: {said}",
        K.PROMPT_PATCH: f"tell node `{node}` how to avoid what failed {times}: {said}",
    }
    is_structural = len(alike) >= GRAPH_RUNS or is_patched
    if is_structural:
        texts[K.GRAPH_PATCH] = (
            f"change the steps around node `{node}`, which failed {times}: {said}"
        )
    for kind, text in texts.items():
        yield finder.candidate(
            kind,
            text,
            signature.digest,
            runs=tuple(alike),
            node_id=node,
            node_kind=signature.node_kind,
            validator_family=signature.family,
            needs_plan_bundle=kind is K.GRAPH_PATCH and lacks_plan_bundle(automation),
        )


class _Finder:
    """Makes candidates of one run."""

    def __init__(self, run: Run, now_ms: int) -> None:
        self._run = run
        self._now_ms = now_ms

    def candidate(
        self,
        kind: CandidateKind,
        summary: str,
        finding: str,
        *,
        runs: tuple[RunId, ...],
        node_id: NodeId | None = None,
        node_kind: str | None = None,
        validator_family: str | None = None,
        needs_plan_bundle: bool = False,
    ) -> Candidate:
        run = self._run
        fingerprint = hash_parts(run.automation_id, finding, kind.value)
        return Candidate(
            candidate_id=candidate_id(run.tenant, run.automation_id, kind, fingerprint),
            tenant=run.tenant,
            workflow_id=run.automation_id,
            source_run_id=run.run_id,
            kind=kind,
            confidence=CONFIDENCE[kind],
            summary=summary[:SUMMARY_CHARS_MAX],
            fingerprint=fingerprint,
            node_id=node_id,
            node_kind=node_kind,
            validator_family=validator_family,
            evidence_refs=(f"run:{run.run_id}",),
            needs_plan_bundle=needs_plan_bundle,
            run_ids=runs,
            created_at_ms=self._now_ms,
            updated_at_ms=self._now_ms,
        )


# Applying, observing


def refusal_to_apply(candidate: Candidate, policy: LearningPolicy, metrics: Metrics) -> str | None:
    """Return why a candidate is not applied without a person, None when it may be."""
    sample = metrics.sample_size
    if candidate.kind is K.GRAPH_PATCH or candidate.needs_plan_bundle:
        return "structural_change_requires_human"
    if not policy.auto_apply:
        return "auto_apply_disabled"
    if candidate.confidence < policy.min_confidence:
        return "insufficient_confidence"
    if sample < policy.min_baseline_sample:
        return "insufficient_evidence"
    if metrics.human_intervention_count / max(sample, 1) > policy.max_human_intervention_rate:
        return "active_human_steering"
    return None


def observe(
    candidate: Candidate,
    metrics: Metrics,
    window: Iterable[RunFacts],
    policy: LearningPolicy,
) -> Candidate:
    """Return a told candidate with the metrics of now; `regressed` when they fell too far."""
    baseline = candidate.baseline_before
    if candidate.status not in TOLD or baseline is None:
        return candidate
    seen = msgspec.structs.replace(candidate, latest_observed_metrics=metrics)
    since = sum(facts.finished_at_ms > baseline.computed_at_ms for facts in window)
    if candidate.status is not C.APPLIED or since < policy.post_apply_min_sample:
        return seen
    margin = policy.regression_margin
    fell = (
        baseline.completion_rate - metrics.completion_rate > margin
        or baseline.validation_pass_rate - metrics.validation_pass_rate > margin
    )
    if not fell:
        return seen
    return msgspec.structs.replace(seen, status=C.REGRESSED, updated_at_ms=metrics.computed_at_ms)


# One pass


def learn(
    run: Run,
    facts: RunFacts,
    window: Sequence[RunFacts],
    known: Mapping[str, Candidate],
    *,
    automation: Automation,
    summary: LearningSummary,
    policy: LearningPolicy,
    now_ms: int,
) -> Lesson:
    """Return what the end of a run teaches.

    Args:
        run: a run that has ended.
        facts: its facts.
        window: facts of the newest runs of the automation that ended, this one included.
        known: the candidates that matter: those that this run may find again, and all told ones.
        automation: the version that the run executed.
        summary: what the record of the run says already.
        policy: of applying without a person.
        now_ms: the moment of the pass.
    """
    metrics = metrics_of(window, now_ms=now_ms)
    after = dict(known)
    is_patched = facts.signature is not None and any(
        candidate.kind is K.PROMPT_PATCH
        and candidate.status in TOLD
        and candidate.node_id == facts.signature.node_id
        for candidate in known.values()
    )
    found = list(
        find_candidates(
            run, facts, window, automation=automation, is_patched=is_patched, now_ms=now_ms
        )
    )
    applied: list[str] = []
    for candidate in found:
        key = candidate.candidate_id
        before = after.get(key)
        merged = candidate if before is None else merge(before, candidate)
        if merged.status is C.PROPOSED and refusal_to_apply(merged, policy, metrics) is None:
            merged = review_candidate(
                merged,
                ReviewAction.APPLIED,
                metrics=metrics,
                by=POLICY_NAME,
                note="",
                now_ms=now_ms,
            )
            applied.append(key)
        after[key] = merged
    for key, candidate in after.items():
        after[key] = observe(candidate, metrics, window, policy)
    generated = (*summary.generated_candidate_ids, *(c.candidate_id for c in found))
    return Lesson(
        candidates=tuple(c for key, c in after.items() if known.get(key) != c),
        auto_applied=tuple(applied),
        summary=msgspec.structs.replace(
            summary,
            generated_candidate_ids=tuple(dict.fromkeys(generated)),
            post_run_metrics=metrics,
        ),
    )


def ids_to_find(run: Run, facts: RunFacts) -> tuple[str, ...]:
    """Return the ids of all candidates that this run could find."""
    findings: list[tuple[CandidateKind, str]] = []
    if facts.memory:
        findings.append((K.MEMORY_FACT, hash_parts(run.automation_id, facts.memory)))
    if facts.signature is not None:
        kinds = (K.REPAIR_HINT, K.PROMPT_PATCH, K.GRAPH_PATCH)
        findings += [(kind, facts.signature.digest) for kind in kinds]
    return tuple(_id_of(run.tenant, run.automation_id, kind, finding) for kind, finding in findings)


def _id_of(tenant: TenantId, automation_id: AutomationId, kind: CandidateKind, finding: str) -> str:
    return candidate_id(tenant, automation_id, kind, hash_parts(automation_id, finding, kind.value))


# Telling runs


def tell(
    run: Run, told: Sequence[Candidate]
) -> tuple[tuple[Learning, ...], LearningSummary] | None:
    """Return what a run that is claimed now is told, and its summary; None when that is nothing.

    Args:
        run: the run.
        told: approved and applied candidates of its automation, the most confident first.
    """
    if not told:
        return None
    chosen = told[:TOLD_MAX]
    summary = run.learning_summary or LearningSummary()
    considered = (*summary.approved_learning_ids_considered, *(c.candidate_id for c in told))
    injected = (*summary.injected_learning_ids, *(c.candidate_id for c in chosen))
    learnings = tuple(
        Learning(
            candidate_id=candidate.candidate_id,
            kind=candidate.kind,
            text=candidate.summary[:TOLD_CHARS_MAX],
            node_id=candidate.node_id,
        )
        for candidate in chosen
    )
    return learnings, msgspec.structs.replace(
        summary,
        approved_learning_ids_considered=tuple(dict.fromkeys(considered)),
        injected_learning_ids=tuple(dict.fromkeys(injected)),
    )


def lines_for(learnings: Iterable[Learning], node_id: NodeId) -> tuple[str, ...]:
    """Return what an attempt of this node is told, one line each."""
    return tuple(
        f"{learning.kind.value}: {' '.join(learning.text.split())}"
        for learning in learnings
        if learning.node_id in (None, node_id)
    )
