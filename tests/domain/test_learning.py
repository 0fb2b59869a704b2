"""What ended runs teach: facts, metrics, candidates, applying, observing, telling."""

from typing import Any

import msgspec
import pytest

from tandem.domain.automation import Automation
from tandem.domain.candidate import (
    CANDIDATE_TRANSITIONS,
    LISTED_MAX,
    Candidate,
    CandidateKind,
    CandidateStatus,
    LearningSummary,
    Metrics,
    ReviewAction,
    hash_parts,
    merge,
    review_candidate,
)
from tandem.domain.command import NoteEnd
from tandem.domain.decision import decide
from tandem.domain.errors import Refused
from tandem.domain.facts import (
    NodeCounts,
    OutputNote,
    RunFacts,
    facts_of,
    lacks_plan_bundle,
    metrics_of,
    normalized,
)
from tandem.domain.graph import Plan
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    NodeId,
    RunId,
)
from tandem.domain.learning import (
    TOLD_MAX,
    LearningPolicy,
    Lesson,
    ids_to_find,
    learn,
    lines_for,
    observe,
    refusal_to_apply,
    tell,
)
from tandem.domain.lifecycle import RunEvent, RunState, StopKind
from tandem.domain.run import Failure, Run
from tandem.testing.builders import automation, fresh_view, python_node

S, K, C, A = RunState, CandidateKind, CandidateStatus, ReviewAction
CONTRACT = {"kind": "report", "validator": "structured_json"}
NODES = (python_node("a", stage_kind="review", output_contract=CONTRACT), python_node("b", "a"))
AUTOMATION = automation(*NODES)
PLAN = Plan(AUTOMATION, DefinitionDigest("sha256:0"))
YES = LearningPolicy(auto_apply=True, min_confidence=0.5)


def a_run(number: int = 1, status: RunState = S.COMPLETED, **fields: Any) -> Run:
    values = {"started_at_ms": 100, "finished_at_ms": 100 + number * 10, "run_no": number}
    row = fresh_view(*NODES).run
    run_id = RunId(f"run{number}")
    return msgspec.structs.replace(row, run_id=run_id, status=status, **(values | fields))


def failed(number: int = 1, reason: str = "Disk  full!", node: str = "a") -> Run:
    failure = Failure(node_id=NodeId(node), reason=reason, failed_at_ms=1)
    return a_run(number, S.FAILED, last_failure=failure)


def facts(run: Run, *notes: OutputNote, **counts: Any) -> RunFacts:
    return facts_of(run, PLAN, NodeCounts(**counts), notes)


def lesson(run: Run, *window: RunFacts, known: Any = (), **how: Any) -> Lesson:
    own = facts(run, OutputNote(node_no=0, summary=how.pop("summary", "all fine")))
    return learn(
        run,
        own,
        [own, *window],
        {candidate.candidate_id: candidate for candidate in known},
        automation=how.pop("of", AUTOMATION),
        summary=LearningSummary(),
        policy=how.pop("policy", LearningPolicy()),
        now_ms=1_000,
    )


def kinds(found: Lesson) -> list[CandidateKind]:
    return [candidate.kind for candidate in found.candidates]


# Facts and metrics


def test_reasons_are_compared_without_case_and_signs() -> None:
    assert normalized("  Disk_full: /tmp/ÄX (5%) ") == "disk full tmp äx 5"


def test_metrics_are_those_of_the_contract() -> None:
    window = [
        facts(a_run(1), nodes_attempted=2, attempts=2),
        facts(
            a_run(2),
            OutputNote(node_no=0, validator_outcome="accepted_with_warnings"),
            nodes_attempted=2,
            attempts=4,
            has_gate_history=True,
        ),
        facts(failed(3), nodes_attempted=1, attempts=3, needs_repair=True),
        facts(a_run(4, S.CANCELLED, stop_kind=StopKind.OPERATOR_STOPPED, started_at_ms=None)),
    ]
    assert metrics_of(window, now_ms=9) == Metrics(
        sample_size=4,
        completion_rate=0.5,
        validation_pass_rate=0.25,
        mean_attempts_per_node=9 / 5,
        repairable_failure_rate=0.25,
        median_wall_clock_ms=20,
        human_intervention_count=2,
        computed_at_ms=9,
    )
    assert metrics_of(window[:2], now_ms=9).median_wall_clock_ms == 20  # the upper one
    assert metrics_of([], now_ms=9) == Metrics(computed_at_ms=9)
    assert metrics_of(window[3:], now_ms=9).median_wall_clock_ms == 0


def test_signature_is_that_of_node_family_and_reason() -> None:
    one, other = facts(failed(1)).signature, facts(failed(2, "disk FULL")).signature
    assert one is not None
    assert one == other
    assert (one.family, one.node_kind) == ("structured_json", "review")
    assert one.digest == hash_parts("simulated", "a", "structured_json", "disk full")
    second = facts(failed(1, node="b")).signature
    assert second is not None
    assert (second.family, second.node_kind) == ("unknown", None)
    gone = facts(failed(1, node="runtime_context")).signature
    assert gone is not None
    assert gone.family == "unknown"
    assert facts(a_run(1, S.CANCELLED)).signature is None
    assert facts(a_run(1, S.FAILED, finished_at_ms=None, updated_at_ms=3)).finished_at_ms == 3


def test_memory_is_two_summaries_or_the_detail() -> None:
    notes = [
        OutputNote(node_no=0, summary="x"),
        OutputNote(node_no=1),
        *2 * [OutputNote(node_no=1, summary="y")],
    ]
    assert facts(a_run(), *notes).memory == "a: x; b: y"
    assert facts(a_run(detail="done")).memory == "done"
    assert facts(failed()).memory == ""


# Candidates


def test_a_passing_run_proposes_a_memory() -> None:
    found = lesson(a_run())
    (candidate,) = found.candidates
    assert (candidate.kind, candidate.confidence) == (K.MEMORY_FACT, 0.65)
    assert (candidate.summary, candidate.status) == ("a: all fine", C.PROPOSED)
    assert candidate.candidate_id.startswith("wflearn-")
    assert found.summary.generated_candidate_ids == (candidate.candidate_id,)
    assert found.summary.post_run_metrics is not None
    again = facts(a_run(), OutputNote(node_no=0, summary="all fine"))
    assert ids_to_find(a_run(), again) == (candidate.candidate_id,)
    assert ids_to_find(a_run(), facts(a_run(detail=""))) == ()


def test_the_same_failure_twice_proposes_hint_and_patch_and_a_third_time_a_graph() -> None:
    assert kinds(lesson(failed(1))) == []
    again = lesson(failed(2), facts(failed(1)), facts(failed(9, "other")), facts(a_run(8)))
    assert kinds(again) == [K.REPAIR_HINT, K.PROMPT_PATCH]
    assert {c.confidence for c in again.candidates} == {0.70, 0.75}
    assert again.candidates[0].run_ids == ("run2", "run1")
    third = lesson(failed(3), facts(failed(2)), facts(failed(1)))
    assert kinds(third) == [K.REPAIR_HINT, K.PROMPT_PATCH, K.GRAPH_PATCH]
    assert third.candidates[2].needs_plan_bundle
    ids = {candidate.candidate_id for candidate in third.candidates}
    assert set(ids_to_find(failed(3), facts(failed(3)))) == ids


@pytest.mark.parametrize(
    ("status", "node"), [(C.APPROVED, "a"), (C.PROPOSED, "a"), (C.APPLIED, "b")]
)
def test_a_patch_that_still_fails_proposes_a_graph_the_second_time(
    status: CandidateStatus, node: str
) -> None:
    patch = a_candidate(K.PROMPT_PATCH, status=status, node_id=NodeId(node))
    found = lesson(failed(2), facts(failed(1)), known=[patch])
    assert (K.GRAPH_PATCH in kinds(found)) is (status is C.APPROVED)


def test_a_definition_with_a_plan_bundle_needs_none() -> None:
    document = AUTOMATION.model_dump(mode="json", by_alias=True, exclude_none=True)
    bundled = Automation.model_validate(document | {"metadata": {"plan_package_bundle": {"p": 1}}})
    assert lacks_plan_bundle(AUTOMATION)
    assert not lacks_plan_bundle(bundled)


def test_what_is_found_again_is_merged_and_keeps_its_status() -> None:
    (first,) = lesson(a_run(1)).candidates
    approved = msgspec.structs.replace(first, status=C.APPROVED, confidence=0.9)
    (merged,) = lesson(a_run(2), known=[approved]).candidates
    assert (merged.status, merged.confidence) == (C.APPROVED, 0.9)
    assert merged.run_ids == ("run1", "run2")
    assert lesson(a_run(2), known=[merged]).candidates == ()  # a second pass changes nothing
    many = msgspec.structs.replace(first, run_ids=tuple(RunId(f"r{n}") for n in range(60)))
    assert len(merge(many, first).run_ids) == LISTED_MAX


def a_candidate(kind: CandidateKind = K.MEMORY_FACT, **fields: Any) -> Candidate:
    values: dict[str, Any] = {
        "candidate_id": "wflearn-1",
        "tenant": LOCAL_TENANT,
        "workflow_id": AutomationId("simulated"),
        "source_run_id": RunId("run0"),
        "kind": kind,
        "confidence": 0.65,
        "summary": "it\nis so",
        "fingerprint": "f",
        "created_at_ms": 0,
        "updated_at_ms": 0,
    }
    return Candidate(**(values | fields))


@pytest.mark.parametrize("status", CandidateStatus)
@pytest.mark.parametrize("action", ReviewAction)
def test_every_decision_is_allowed_or_refused_by_the_table(
    status: CandidateStatus, action: ReviewAction
) -> None:
    metrics = Metrics(sample_size=3)

    def decided() -> Candidate:
        candidate = a_candidate(status=status, baseline_before=None)
        return review_candidate(candidate, action, metrics=metrics, by="ada", note="n", now_ms=5)

    after = CANDIDATE_TRANSITIONS.get((status, action))
    if after is None:
        with pytest.raises(Refused, match=status.value):
            decided()
        return
    found = decided()
    assert (found.status, found.reviewed_by, found.updated_at_ms) == (after, "ada", 5)
    assert found.baseline_before == (metrics if after is C.APPLIED else None)


# Applying and observing

SAMPLE = Metrics(sample_size=5, human_intervention_count=1)


@pytest.mark.parametrize(
    ("candidate", "policy", "metrics", "why"),
    [
        (a_candidate(K.GRAPH_PATCH), YES, SAMPLE, "structural_change_requires_human"),
        (a_candidate(needs_plan_bundle=True), YES, SAMPLE, "structural_change_requires_human"),
        (a_candidate(), LearningPolicy(), SAMPLE, "auto_apply_disabled"),
        (a_candidate(), LearningPolicy(auto_apply=True), SAMPLE, "insufficient_confidence"),
        (a_candidate(), YES, Metrics(sample_size=4), "insufficient_evidence"),
        (a_candidate(), YES, SAMPLE, "active_human_steering"),
        (a_candidate(), YES, Metrics(sample_size=5), None),
    ],
)
def test_nothing_is_applied_without_a_person_unless_all_agrees(
    candidate: Candidate, policy: LearningPolicy, metrics: Metrics, why: str | None
) -> None:
    assert refusal_to_apply(candidate, policy, metrics) == why


def test_what_may_be_is_applied_once_with_the_metrics_of_now() -> None:
    window = [facts(a_run(number)) for number in range(2, 7)]
    found = lesson(a_run(1), *window, policy=YES)
    (candidate,) = found.candidates
    assert candidate.status is C.APPLIED
    assert candidate.baseline_before == found.summary.post_run_metrics
    assert found.auto_applied == (candidate.candidate_id,)
    assert lesson(a_run(2), *window, known=[candidate], policy=YES).auto_applied == ()


GOOD = Metrics(sample_size=9, completion_rate=1, validation_pass_rate=1, computed_at_ms=50)


@pytest.mark.parametrize(
    ("status", "ends", "now", "after"),
    [
        (C.APPLIED, 3, {"completion_rate": 0.5, "validation_pass_rate": 1}, C.REGRESSED),
        (C.APPLIED, 3, {"completion_rate": 1, "validation_pass_rate": 0.5}, C.REGRESSED),
        (C.APPLIED, 3, {"completion_rate": 1, "validation_pass_rate": 1}, C.APPLIED),
        (C.APPLIED, 2, {"completion_rate": 0, "validation_pass_rate": 0}, C.APPLIED),
        (C.APPROVED, 3, {"completion_rate": 0, "validation_pass_rate": 0}, C.APPROVED),
    ],
)
def test_what_was_applied_regresses_when_runs_got_worse(
    status: CandidateStatus, ends: int, now: dict[str, float], after: CandidateStatus
) -> None:
    metrics = Metrics(sample_size=9, computed_at_ms=99, **now)  # type: ignore[arg-type] # rates
    window = [facts(a_run(number)) for number in range(1, ends + 1)]
    before = a_candidate(status=status, baseline_before=GOOD)
    found = observe(before, metrics, window, LearningPolicy())
    assert found.status is after
    assert found.latest_observed_metrics == metrics


@pytest.mark.parametrize(
    "candidate", [a_candidate(baseline_before=GOOD), a_candidate(status=C.APPLIED)]
)
def test_without_a_baseline_or_an_approval_nothing_is_observed(candidate: Candidate) -> None:
    assert observe(candidate, GOOD, [], LearningPolicy()) == candidate


# Telling


def test_a_claimed_run_is_told_of_six_and_keeps_what_it_was_told_before() -> None:
    run = a_run(learning_summary=LearningSummary(injected_learning_ids=("before",)))
    told = [a_candidate(candidate_id=f"w{number}") for number in range(8)]
    found = tell(run, told)
    assert found is not None
    learnings, summary = found
    assert [learning.candidate_id for learning in learnings] == [f"w{n}" for n in range(TOLD_MAX)]
    assert summary.injected_learning_ids == ("before", *(f"w{n}" for n in range(TOLD_MAX)))
    assert summary.approved_learning_ids_considered == tuple(f"w{n}" for n in range(8))
    assert tell(a_run(), told[:1]) is not None
    assert tell(run, []) is None


def test_an_attempt_is_told_what_is_for_its_node_or_for_all() -> None:
    found = tell(a_run(), [a_candidate(), a_candidate(K.REPAIR_HINT, node_id=NodeId("a"))])
    assert found is not None
    assert lines_for(found[0], NodeId("a")) == ("memory_fact: it is so", "repair_hint: it is so")
    assert lines_for(found[0], NodeId("b")) == ("memory_fact: it is so",)


# What is recorded of the run


def test_what_an_end_led_to_is_recorded_and_moves_nothing() -> None:
    view = fresh_view(*NODES)
    note = NoteEnd(auto_applied=("w1", "w2"), review_request_id="lifecycle-review-c1")
    change = decide(view, note, change_id=ChangeId("c2"), now_ms=5)
    assert [event.event for event in change.events] == [
        *2 * [RunEvent.LEARNING_AUTO_APPLIED],
        RunEvent.REVIEW_REQUESTED,
    ]
    assert change.run.status is S.QUEUED
    only = decide(view, NoteEnd(auto_applied=("w1",)), change_id=ChangeId("c2"), now_ms=5)
    assert [event.metadata for event in only.events] == [{"candidate_id": "w1"}]
