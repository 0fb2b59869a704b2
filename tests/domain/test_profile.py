"""What execution profiles let pass, and what they never do."""

import pytest

from tandem.domain.automation import Automation, ExecutionProfile, Node
from tandem.domain.outcome import Blocked
from tandem.domain.profile import (
    CRITICAL,
    RELAXABLE,
    class_of,
    profile_of,
    relax,
    relax_blocker,
    repair_budget,
)
from tandem.domain.reading import Reading, Relaxation
from tandem.testing.builders import automation, python_node
from tandem.testing.tale import Tale

STRICT, GUIDED, YOLO = ExecutionProfile.STRICT, ExecutionProfile.GUIDED, ExecutionProfile.YOLO
ONCE = {"retry_policy": {"max_attempts": 1}}


def test_the_profile_is_that_of_the_document_else_guided() -> None:
    assert profile_of(automation(profile="yolo")) is YOLO
    assert profile_of(automation()) is GUIDED
    silent = Automation.model_validate({"automation_id": "a", "flow": {"nodes": []}})
    assert profile_of(silent) is GUIDED


@pytest.mark.parametrize(
    ("profile", "declared", "attempts", "budget"),
    [
        (STRICT, 3, 10, 3),
        (GUIDED, 3, 10, 5),
        (YOLO, 3, 10, 6),
        (YOLO, 3, 4, 3),
        (GUIDED, 0, 10, 0),
        (GUIDED, None, 10, 8),
    ],
)
def test_repair_budget_grows_with_the_profile_up_to_the_attempts(
    profile: ExecutionProfile, declared: int | None, attempts: int, budget: int
) -> None:
    contract = {"enforcement": {"repair_budget": declared}}
    node = python_node("n", output_contract=contract, retry_policy={"max_attempts": attempts})

    assert repair_budget(Node.model_validate(node), profile) == budget


def test_strict_relaxes_nothing_and_each_profile_more_than_the_one_before() -> None:
    assert RELAXABLE[STRICT] < RELAXABLE[GUIDED] < RELAXABLE[YOLO]
    assert RELAXABLE[STRICT] == frozenset()
    assert not RELAXABLE[YOLO] & CRITICAL


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("section_missing", "missing_required_section"),
        ("weak_markdown", "weak_markdown_structure"),
        ("missing_artifact_path", "missing_required_artifact_path"),
        ("policy_denied", "tenant_policy_denied"),
        ("missing_optional_evidence", "missing_optional_evidence"),
        ("budget_exceeded", "budget_exceeded"),
        ("something else", None),
    ],
)
def test_requirements_are_classified(requirement: str, name: str | None) -> None:
    assert class_of(requirement) == name


@pytest.mark.parametrize(
    ("profile", "unmet", "denied"),
    [
        (STRICT, ("missing_section",), ()),
        (GUIDED, ("missing_artifact_path",), ()),
        (GUIDED, ("missing_section", "unheard_of"), ()),
        (YOLO, ("missing_section", "deterministic_verification_failed"), ()),
        (YOLO, ("required_source_paths_not_read",), ()),
        (GUIDED, ("missing_section",), ("missing_required_section",)),
        (YOLO, (), ()),
    ],
)
def test_one_requirement_that_may_not_pass_keeps_all(
    profile: ExecutionProfile, unmet: tuple[str, ...], denied: tuple[str, ...]
) -> None:
    assert relax(profile, unmet, denylist=denied) is None


def test_what_passes_is_told() -> None:
    assert relax(GUIDED, ("missing_section", "section_missing"), failure_kind="k") == Relaxation(
        relaxed_validator_classes=("missing_required_section",),
        effective_outcome="warning",
        original_status="needs_repair",
        original_failure_kind="k",
        execution_profile="guided",
    )
    yolo = relax(YOLO, ("missing_artifact_path",))
    assert yolo is not None
    assert (yolo.effective_outcome, yolo.status) == ("experimental", "completed")


@pytest.mark.parametrize(
    ("profile", "outcome", "denied", "passes"),
    [
        (YOLO, Blocked(kind="review_not_approved", reason=""), (), True),
        (YOLO, Blocked(kind="semantic_blocked", reason=""), (), True),
        (YOLO, Blocked(kind="semantic_blocked", reason=""), ("semantic_blocked",), False),
        (YOLO, Blocked(kind="provider_auth", reason=""), (), False),
        (YOLO, Blocked(kind="x", reason="", unmet=("policy_denied",)), (), False),
        (GUIDED, Blocked(kind="review_not_approved", reason=""), (), False),
    ],
)
def test_only_yolo_accepts_blockers_and_never_those_of_safety(
    profile: ExecutionProfile, outcome: Blocked, denied: tuple[str, ...], passes: bool
) -> None:
    found = relax_blocker(profile, outcome, denylist=denied)

    assert (found is not None) is passes
    if found is not None:
        assert found.yolo_review_relaxed is outcome.is_rejection
        assert found.yolo_non_safety_blocker_relaxed is not outcome.is_rejection


# In a run


def relaxation(profile: str) -> Relaxation:
    found = relax(ExecutionProfile(profile), ("missing_section",))
    assert found is not None
    return found


def test_a_relaxed_node_completes_with_warnings_and_so_does_its_run() -> None:
    tale = Tale(python_node("a", **ONCE), python_node("b", "a")).claim()

    tale.repair("a", relaxation=relaxation("guided"))

    assert tale.happened() == ["node_relaxed", "node_completed_with_warnings", "node_started"]
    reading = tale.node("a").reading
    assert reading is not None
    assert reading.status == "completed_with_warnings"
    assert reading.warnings == ("too short", "no title")
    tale.succeed("b")
    assert tale.run.status.value == "completed"
    assert tale.node("b").reading is None


def test_a_repair_comes_before_any_relaxation() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 2})).claim()

    tale.repair("a", relaxation=relaxation("guided"))
    assert tale.happened() == ["node_repair_requested", "node_started"]
    tale.repair("a", relaxation=relaxation("guided"))

    assert tale.run.status.value == "completed"


def test_an_experimental_output_taints_what_is_made_from_it() -> None:
    tale = Tale(
        python_node("a", **ONCE), python_node("b", "a"), python_node("c", "b"), profile="yolo"
    ).claim()

    tale.repair("a", relaxation=relaxation("yolo"))
    tale.succeed("b")
    tale.succeed("c", reading=Reading(warnings=("thin",)))

    for name, source in (("b", "a"), ("c", "b")):
        reading = tale.node(name).reading
        assert reading is not None
        assert reading.experimental
        assert reading.tainted_inputs == (source,)
    assert tale.happened() == ["node_completed_with_warnings", "run_completed"]


def test_yolo_accepts_a_rejecting_review() -> None:
    tale = Tale(python_node("a"), python_node("r", "a"), profile="yolo").claim()
    tale.succeed("a")
    rejected = Blocked(kind="review_not_approved", reason="no")

    tale.settle("r", rejected, relaxation=relax_blocker(YOLO, rejected))

    assert tale.run.status.value == "completed"
    assert "node_relaxed" in tale.happened()
