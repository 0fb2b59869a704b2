"""What a body says of itself in its output."""

from typing import Any

import pytest

from tandem.domain.automation import Node
from tandem.domain.outcome import Blocked, Failed, FailureClass, NeedsRepair, Succeeded
from tandem.domain.output_status import read_output, reads_status
from tandem.domain.reading import Reading
from tandem.testing.builders import python_node

READS = {"metadata": {"reads_output_status": True}}
REVIEW = {"stage_kind": "review"}


def read(output: Any, **fields: Any) -> Any:
    return read_output(
        Node.model_validate(python_node("n", **(fields or READS))), Succeeded(output=output)
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"metadata": {"reads_output_status": "yes"}}, False),
        (READS, True),
        (REVIEW, True),
        ({"output_contract": {"kind": "review"}}, True),
        ({"output_contract": {"kind": "brief"}}, False),
        ({"output_contract": {"validator": "review_decision"}}, True),
        ({"stage_kind": "review", "output_contract": {"validator": "structured_json"}}, False),
        ({"action": None}, True),
    ],
)
def test_a_status_is_read_only_where_the_document_asks_for_it(
    fields: dict[str, Any], expected: bool
) -> None:
    assert reads_status(Node.model_validate(python_node("n") | fields)) is expected


def test_ordinary_json_with_a_status_of_its_own_is_a_success() -> None:
    found = read({"status": "failed"}, metadata={})

    assert found.outcome == Succeeded(output={"status": "failed"})
    assert found.reading is None


@pytest.mark.parametrize("status", ["completed", "Done ", "passed", "ok", "", None, 7])
def test_success_and_silence_count(status: Any) -> None:
    output = {"status": status, "warnings": ["not read"]}

    assert read(output).outcome == Succeeded(output=output)
    assert read(output).reading is None


@pytest.mark.parametrize("output", [None, 1, ["status"], "status: failed", "{broken", "{} {}"])
def test_an_output_that_is_no_object_says_nothing(output: Any) -> None:
    assert read(output).outcome == Succeeded(output=output)


def test_text_that_holds_an_object_is_read() -> None:
    assert isinstance(read(' {"status": "failed", "reason": "no luck"}').outcome, Failed)


def test_text_that_holds_another_json_value_says_nothing() -> None:
    assert read("{}").reading is None


@pytest.mark.parametrize(
    ("output", "warnings"),
    [
        ({"status": "completed_with_warnings", "warnings": ["thin", 1]}, ("thin",)),
        ({"status": "completed_with_warnings", "reason": "short"}, ("short",)),
        ({"status": "accepted_with_warnings"}, ("no reason given",)),
    ],
)
def test_an_output_with_warnings_counts_and_keeps_them(
    output: dict[str, Any], warnings: tuple[str, ...]
) -> None:
    found = read(output)

    assert isinstance(found.outcome, Succeeded)
    assert found.reading.warnings == warnings


def test_an_output_that_says_skipped_counts_as_skipped() -> None:
    assert read({"status": "skipped"}).reading == Reading(status="skipped")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            {"status": "failed", "reason": "no luck"},
            Failed(failure_class=FailureClass.EXECUTION_ERROR, message="no luck"),
        ),
        (
            {"status": "failed"},
            Failed(
                failure_class=FailureClass.EXECUTION_ERROR,
                message="the output says `failed` and no reason",
            ),
        ),
    ],
)
def test_an_output_that_says_failed_fails_its_attempt(output: Any, expected: Failed) -> None:
    assert read(output).outcome == expected


def test_an_output_that_asks_for_repair_is_repaired_with_what_it_names() -> None:
    named = {"status": "needs_repair", "unmetRequirements": ["citations_missing"]}
    plain = {"status": "needs_repair", "blocked_reason": "too thin"}

    assert read(named).outcome == NeedsRepair(
        reasons=("citations_missing",), unmet=("citations_missing",), output=named
    )
    assert read(plain).outcome == NeedsRepair(reasons=("too thin",), output=plain)


def test_an_output_whose_verification_failed_is_repaired_as_such() -> None:
    output = {"status": "verify_failed", "reason": "2 tests fail"}

    assert read(output).outcome == NeedsRepair(
        reasons=("2 tests fail",), output=output, failure_class=FailureClass.VERIFICATION_FAILED
    )


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({}, "semantic_blocked"),
        ({"blocked_reason_code": "Tool_Unavailable"}, "tool_unavailable"),
        ({"approved": False}, "review_not_approved"),
    ],
)
def test_an_output_that_is_blocked_says_of_what_kind(said: dict[str, Any], kind: str) -> None:
    output = {"status": "blocked", "reason": "no key", **said}

    assert read(output).outcome == Blocked(kind=kind, reason="no key", output=output)


def test_an_unknown_status_needs_repair() -> None:
    found = read({"status": "mostly_fine"}).outcome

    assert isinstance(found, NeedsRepair)
    assert found.unmet == ("artifact_status_not_terminal",)


def test_a_review_that_does_not_approve_is_a_rejection() -> None:
    found = read({"approved": False, "summary": "no sources"}, **REVIEW).outcome

    assert isinstance(found, Blocked)
    assert found.is_rejection
    assert found.reason == "no sources"
    assert isinstance(read({"approved": True}, **REVIEW).outcome, Succeeded)


def test_a_node_that_is_no_review_may_say_approved_false() -> None:
    assert isinstance(read({"approved": False}).outcome, Succeeded)


def test_a_review_decision_has_to_decide() -> None:
    contract = {"output_contract": {"validator": "review_decision"}}

    assert isinstance(read({"status": "done"}, **contract).outcome, NeedsRepair)
    assert isinstance(read({"approved": True}, **contract).outcome, Succeeded)
    assert isinstance(read({"status": "done"}, **REVIEW).outcome, Succeeded)
