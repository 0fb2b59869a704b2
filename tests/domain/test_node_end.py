"""How nodes end for good, what that means for the others, and what is told of it."""

from typing import Any

import pytest

from tandem.domain.automation import Node
from tandem.domain.command import Resume
from tandem.domain.engine_event import engine_events
from tandem.domain.failure_text import (
    BLANK,
    attempts_floor,
    category_of,
    class_of,
    error_text,
    failed_detail,
)
from tandem.domain.ids import NodeId
from tandem.domain.outcome import Blocked, Failed, FailureClass, Stopped
from tandem.domain.partial_failure import PartialFailure, mode_of
from tandem.domain.run import Failure
from tandem.domain.schema_pause import VIOLATION, pauses_on_violation
from tandem.domain.verdict import verdict_of
from tandem.testing.builders import automation, gate_node, python_node
from tandem.testing.tale import Tale

ONCE = {"retry_policy": {"max_attempts": 1}}


def mode(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"partial_failure_mode": name}, **ONCE, **fields}


# Partial failure


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (None, "pause_downstream_only"),
        ({"partial_failure_mode": "Continue-Independent"}, "continue_independent"),
        ({"builder": {"partial_failure_mode": "pauseall"}}, "pause_all"),
        ({"runtime": {"partial_failure_mode": "pause_all"}}, "pause_all"),
        ({"partial_failure_mode": "whatever"}, "pause_downstream_only"),
    ],
)
def test_the_mode_is_found_in_three_places(metadata: Any, expected: str) -> None:
    node = Node.model_validate(python_node("n", metadata=metadata))

    assert mode_of(node) is PartialFailure(expected)


def test_a_failed_node_lets_independent_ones_go_on_if_the_document_says_so() -> None:
    tale = Tale(
        python_node("a", **mode("continue_independent")),
        python_node("b", "a"),
        python_node("c"),
        python_node("d", "c"),
        gate_node("g", "d"),
    ).claim()

    tale.fail("a")
    assert tale.states()["b"] == "blocked"
    tale.succeed("c")
    assert tale.states()["d"] == "running"
    tale.succeed("d")

    assert tale.run.status.value == "awaiting_approval"


def test_a_run_with_a_failed_node_ends_failed_when_the_others_are_done() -> None:
    tale = Tale(
        python_node("a", **mode("continue_independent")), python_node("c"), python_node("d", "c")
    ).claim()

    tale.fail("a")
    tale.succeed("c")
    tale.succeed("d")

    assert tale.run.status.value == "failed"
    assert tale.run.detail == "node `a` failed after 1/1 attempts: it broke"


def test_by_default_a_failed_node_lets_nothing_new_start() -> None:
    tale = Tale(python_node("a", **ONCE), python_node("c"), python_node("d", "c")).claim()

    tale.fail("a")
    tale.succeed("c")

    assert tale.states() == {"a": "failed", "c": "completed", "d": "pending"}
    assert tale.run.status.value == "failed"


@pytest.mark.parametrize("ending", ["fail", "repair"])
def test_pause_all_blocks_everything_that_is_pending(ending: str) -> None:
    backoff = {"max_attempts": 2, "backoff": {"strategy": "fixed", "initial_delay_ms": 9}}
    tale = Tale(
        python_node("a", **mode("pause_all")),
        python_node("b"),
        python_node("c", "b"),
        python_node("e", retry_policy=backoff),
    ).claim()
    tale.fail("e")

    getattr(tale, ending)("a")
    tale.succeed("b")

    assert tale.states()["c"] == tale.states()["e"] == "blocked"
    assert tale.run.status.value == {"fail": "failed", "repair": "blocked"}[ending]


def test_two_failed_nodes_are_both_named() -> None:
    tale = Tale(python_node("b", **ONCE), python_node("a", **ONCE)).claim()

    tale.fail("a")
    tale.fail("b")

    assert tale.run.detail == "automation run failed from node outcomes: b, a"


# The words of a retry


def test_a_retry_says_which_attempt_failed() -> None:
    tale = Tale(python_node("a")).claim()
    tale.fail("a")

    retried = [event for event in tale.events if event.event == "node_retry_backoff_scheduled"]
    assert retried[0].reason == "it broke"


def test_a_retry_after_a_provider_failure_says_when() -> None:
    tale = Tale(python_node("a"), python_node("b")).claim()

    tale.fail("a", FailureClass.PROVIDER_TRANSIENT)

    assert tale.run.detail == (
        "retrying node `a` after transient provider failure; queued for retry in 2000 ms "
        "before attempt 2/3: it broke"
    )


@pytest.mark.parametrize(
    ("text", "category", "kind"),
    [
        ("Connect timeout", "provider_connect_timeout", FailureClass.PROVIDER_TRANSIENT),
        ("Internal Server Error", "provider_server_error", FailureClass.PROVIDER_TRANSIENT),
        ("401 Unauthorized", "provider_auth", FailureClass.PROVIDER_TERMINAL),
        ("no luck", "execution_error", FailureClass.EXECUTION_ERROR),
    ],
)
def test_the_text_of_an_error_says_its_class(text: str, category: str, kind: FailureClass) -> None:
    assert category_of(text) == category
    assert class_of(text) is kind


def test_a_blank_error_gets_words_and_a_long_one_is_cut() -> None:
    assert error_text(" \n") == BLANK
    assert len(error_text("x" * 900)) == 500


@pytest.mark.parametrize(
    ("kind", "text", "floor"),
    [
        (FailureClass.PROVIDER_TRANSIENT, "", 3),
        (FailureClass.EXECUTION_ERROR, "Required output a.md was not created", 3),
        (FailureClass.EXECUTION_ERROR, "truncated source identity", 3),
        (FailureClass.EXECUTION_ERROR, "no luck", 1),
    ],
)
def test_some_failures_are_worth_three_attempts(kind: FailureClass, text: str, floor: int) -> None:
    assert attempts_floor(kind, text) == floor


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"action": None}, "backoff"),
        ({}, "failed"),
        ({"action": None, "effects": "external"}, "failed"),
    ],
)
def test_the_floor_is_for_agents_without_outside_effects(
    fields: dict[str, Any], state: str
) -> None:
    tale = Tale(python_node("a", **ONCE) | fields, python_node("b")).claim()

    tale.fail("a", FailureClass.PROVIDER_TRANSIENT)

    assert tale.states()["a"] == state


def test_the_detail_of_a_failure_that_counts_no_attempts_is_its_reason() -> None:
    def failure(kind: str, **metadata: Any) -> Failure:
        return Failure(
            node_id=NodeId("a"), reason="r", failed_at_ms=1, failure_kind=kind, metadata=metadata
        )

    assert failed_detail(failure("x")) == "r"
    assert failed_detail(failure("verification_failed", attempts_used=1, max_attempts=2)) == "r"


# Schema violations


def shaped(node_id: str, **fields: Any) -> dict[str, Any]:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {}, "b": {}}}
    return python_node(node_id, output_contract={"schema": schema}, **fields)


PAUSES = {"metadata": {"on_schema_violation": "pause"}}


@pytest.mark.parametrize(
    ("node", "fields", "expected"),
    [
        (shaped("n"), {}, False),
        (shaped("n", **PAUSES), {}, True),
        (shaped("n"), PAUSES, True),
        (shaped("n", metadata={"on_schema_violation": "repair"}), PAUSES, False),
        (python_node("n", **PAUSES), {}, False),
        (python_node("n", output_contract={"required_sections": ["a"]}), PAUSES, False),
    ],
)
def test_a_violation_holds_the_run_only_where_the_document_says_so(
    node: dict[str, Any], fields: dict[str, Any], expected: bool
) -> None:
    made = automation(node, **fields)

    assert pauses_on_violation(made, made.nodes[0]) is expected


def test_a_schema_violation_holds_the_run_after_its_siblings_have_landed() -> None:
    tale = Tale(shaped("a"), shaped("b"), python_node("c", "b"), **PAUSES).claim()

    tale.repair("a", unmet=(VIOLATION,))
    assert tale.happened() == ["node_schema_validation_paused", "run_pause_requested"]
    assert tale.status.value == "pausing"
    tale.succeed("b")

    assert tale.states() == {"a": "pending", "b": "completed", "c": "pending"}
    assert tale.status.value == "paused"
    assert tale.run.pause_reason == "schema_validation_failed"
    assert tale.run.stop_kind is None
    failure = tale.run.last_failure
    assert failure is not None
    assert failure.failure_kind == "output_schema_invalid"
    told = failure.metadata
    assert told["repair_options"] == ["resume_run", "repair_node", "retry_after_contract_fix"]
    assert told["expected_contract"]["required"] == ["a"]
    assert told["expected_contract"]["properties"] == ["a", "b"]
    assert told["actual"]["digest"].startswith("sha256:")
    tale.command(Resume())
    tale.claim()
    assert tale.node("a").repair == ("too short", "no title")
    assert tale.states()["a"] == "running"


def test_a_second_violation_while_the_run_is_pausing_is_kept_too() -> None:
    tale = Tale(shaped("a"), shaped("b"), **PAUSES).claim()

    tale.repair("a", unmet=(VIOLATION,))
    tale.repair("b", unmet=(VIOLATION,))

    assert tale.status.value == "paused"
    assert tale.states() == {"a": "pending", "b": "pending"}


def test_a_schema_that_is_no_object_has_no_names() -> None:
    node = python_node("a", output_contract={"schema": True})
    tale = Tale(node, **PAUSES).claim()

    tale.repair("a", unmet=(VIOLATION,))

    assert tale.run.last_failure is not None
    assert tale.run.last_failure.metadata["expected_contract"]["properties"] == []


def test_a_violation_without_attempts_left_blocks_like_any_other_miss() -> None:
    tale = Tale(shaped("a", **ONCE), **PAUSES).claim()

    tale.repair("a", unmet=(VIOLATION,))

    assert tale.run.status.value == "blocked"
    assert tale.run.last_failure is not None
    assert tale.run.last_failure.failure_kind == VIOLATION


# Verdicts


def verdict(tale: Tale, node_id: str = "a") -> Any:
    plan_node = tale.view.plan.nodes[0]
    return verdict_of(plan_node, tale.ended[0, tale.node(node_id).attempts])


def test_the_verdict_on_a_success_asks_for_nothing() -> None:
    tale = Tale(python_node("a")).claim()
    tale.succeed("a")

    found = verdict(tale)

    assert found["outcome"] == "succeeded"
    assert found["failure_class"] is None
    assert found["consumes_model_attempt_budget"] is True
    assert found["consumes_repair_budget"] is False
    assert found["attempt_review"]["progress_score"] == 100
    assert found["attempt_review"]["still_needed"] == []


@pytest.mark.parametrize(("attempts", "charged"), [(2, True), (1, False)])
def test_a_repair_is_charged_only_when_it_follows(attempts: int, charged: bool) -> None:
    contract = {"required_sections": ["x"]}
    node = python_node("a", output_contract=contract, retry_policy={"max_attempts": attempts})
    tale = Tale(node, python_node("b")).claim()

    tale.repair("a", unmet=("missing_section",))

    found = verdict_of(tale.view.plan.nodes[0], tale.ended[0, 1])
    assert found["consumes_repair_budget"] is charged
    assert found["unmet_requirements"] == ["missing_section"]
    assert found["failure_class"] == "artifact_validation"
    assert found["required_next_actions"] == ["mend: too short", "mend: no title"]
    assert found["expected"]["required_sections"] == ["x"]  # type: ignore[index,call-overload] # JSON


def test_an_attempt_that_was_cut_off_consumes_nothing() -> None:
    tale = Tale(python_node("a"), python_node("b")).claim()
    tale.settle("a", Stopped(reason="shutdown"))

    found = verdict_of(tale.view.plan.nodes[0], tale.ended[0, 1])

    assert found["consumes_model_attempt_budget"] is False
    assert tale.node("a").attempts_used == 1  # that of the attempt that runs now
    assert found["attempt_review"]["progress_label"] == "none"  # type: ignore[index,call-overload] # JSON


@pytest.mark.parametrize(
    ("outcome", "failure_class", "unmet"),
    [
        (
            Failed(failure_class=FailureClass.PROVIDER_TERMINAL, message="no"),
            "provider_terminal",
            (),
        ),
        (Failed(failure_class=FailureClass.EXECUTION_ERROR, message="no"), "tool_execution", ()),
        (Blocked(kind="semantic_blocked", reason="no"), "contract_miss", ()),
        (
            Blocked(kind="x", reason="no", unmet=("missing_artifact_path",)),
            "workspace_write_missing",
            ("missing_artifact_path",),
        ),
    ],
)
def test_the_verdict_names_the_class_of_a_failure(
    outcome: Any, failure_class: str, unmet: tuple[str, ...]
) -> None:
    tale = Tale(python_node("a", **ONCE), python_node("b")).claim()
    tale.settle("a", outcome)

    found = verdict(tale)

    assert found["failure_class"] == failure_class
    assert (found["provider_error"] is not None) == failure_class.startswith("provider")
    assert found["attempt_review"]["still_needed"] == [*unmet] or ["no"]
    assert found["required_next_actions"]


def test_the_verdict_on_an_attempt_that_runs_says_so() -> None:
    tale = Tale(python_node("a")).claim()

    found = verdict_of(tale.view.plan.nodes[0], tale.started[0, 1])

    assert found["outcome"] == "running"
    assert found["required_next_actions"] == []


# What listeners are told


def test_a_failure_event_tells_what_is_known_of_the_node() -> None:
    tale = Tale(python_node("a", **ONCE)).claim()
    tale.fail("a")

    (event, *_) = engine_events(tale.run, tale.events[-1])

    told = event.properties
    assert told["node_id"] == told["task_id"] == told["stage_id"] == "a"
    assert (told["attempt"], told["max_attempts"], told["retry_exhausted"]) == (1, 1, True)
    assert told["error_kind"] == "unknown"
    assert told["failure_kind"] == "execution_error"
    assert len(told["attempt_verdict_chain"]) == len(told["attempt_review_chain"]) == 1  # type: ignore[arg-type] # JSON


def test_a_miss_of_the_contract_is_a_validation_error() -> None:
    contract = {"required_sections": ["x"]}
    tale = Tale(python_node("a", output_contract=contract, **ONCE)).claim()
    tale.repair("a")

    (event, *_) = engine_events(tale.run, tale.events[-1])

    assert event.properties["error_kind"] == "validation_error"
    assert event.properties["validation_errors"] == ["too short", "no title"]
    assert event.properties["contract_kind"] == "generic_artifact"
