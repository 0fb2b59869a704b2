"""A review that does not approve has the work done again, under the same claim."""

from typing import Any

from tandem.domain.automation import Effects
from tandem.domain.command import Pause
from tandem.domain.outcome import Blocked
from tandem.testing.builders import gate_node, python_node, timer_node
from tandem.testing.tale import ENGINE, Tale

NO = Blocked(kind="review_not_approved", reason="no sources")


def reject(tale: Tale, node_id: str = "review") -> Any:
    return tale.settle(node_id, NO, output=b'{"approved":false}')


def ready_for_review(*more: dict[str, Any]) -> Tale:
    tale = Tale(
        python_node("plan"),
        python_node("draft", "plan"),
        python_node("review", "draft", "plan"),
        *more,
    ).claim()
    tale.succeed("plan")
    tale.succeed("draft")
    return tale


def test_the_derived_work_is_done_again_and_told_why() -> None:
    tale = ready_for_review()

    reject(tale)

    assert tale.happened() == [
        "node_approval_rollback",
        "node_reset",
        "node_interrupted",
        "node_reset",
        "node_started",
    ]
    assert tale.states() == {"plan": "completed", "draft": "running", "review": "pending"}
    assert tale.node("draft").repair == ("review `review` did not approve: no sources",)
    assert tale.ended[2, 1].outcome == "blocked"
    assert tale.ended[2, 1].message == "no sources"


def test_the_run_stays_with_the_engine_that_drives_it() -> None:
    tale = ready_for_review()
    epoch, engine = tale.run.epoch, tale.run.engine_id

    reject(tale)

    assert tale.status.value == "running"
    assert (tale.run.epoch, tale.run.engine_id) == (epoch, engine)


def test_work_without_anything_before_it_is_done_again_only_when_there_is_no_other() -> None:
    tale = Tale(python_node("draft"), python_node("review", "draft")).claim()
    tale.succeed("draft")

    reject(tale)

    assert tale.states() == {"draft": "running", "review": "pending"}


def test_each_round_costs_an_attempt_and_the_last_rejection_blocks() -> None:
    tale = Tale(
        python_node("draft", retry_policy={"max_attempts": 2}),
        python_node("review", "draft"),
        python_node("after", "review"),
    ).claim()
    for _ in range(2):
        tale.succeed("draft")
        reject(tale)

    assert tale.states() == {"draft": "completed", "review": "blocked", "after": "blocked"}
    assert tale.run.status.value == "blocked"
    assert tale.run.last_failure is not None
    assert tale.run.last_failure.failure_kind == "review_not_approved"
    assert tale.node("draft").attempts == 2
    assert tale.node("review").output == b'{"approved":false}'


def test_what_runs_after_the_work_is_stopped_and_its_gates_are_withdrawn() -> None:
    tale = ready_for_review(
        python_node("other", "draft"), gate_node("ask", "draft"), timer_node("nap", "other")
    )

    reject(tale)

    assert tale.states()["other"] == "pending"
    assert tale.states()["ask"] == "pending"
    assert tale.ended[3, 1].outcome == "stopped"
    assert not tale.open_gates()


def test_a_body_with_outside_effects_after_the_work_is_not_taken_back() -> None:
    tale = ready_for_review(python_node("mail", "draft", effects=Effects.EXTERNAL.value))

    reject(tale)

    assert tale.states()["review"] == "blocked"
    assert tale.states()["mail"] == "running"


def test_gates_are_not_done_again_by_a_review() -> None:
    tale = Tale(python_node("review")).claim()

    reject(tale)

    assert tale.states() == {"review": "blocked"}


def test_any_other_blocker_blocks_its_node() -> None:
    tale = ready_for_review()

    tale.settle("review", Blocked(kind="semantic_blocked", reason="  "), output=b"{}")

    assert tale.states()["draft"] == "completed"
    assert tale.node("review").failure is not None
    assert tale.run.status.value == "blocked"


def test_a_run_that_comes_to_rest_with_stopped_bodies_waits_for_their_end() -> None:
    tale = ready_for_review(python_node("other", "draft"))
    tale.command(Pause())

    reject(tale)

    assert tale.status.value == "paused"
    assert tale.run.cleanup == ENGINE
