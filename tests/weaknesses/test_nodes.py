"""Weaknesses of the original at its nodes: each with a mutant that brings it back."""

from collections.abc import Callable
from typing import Any

import pytest

from tandem.domain import accounting, driving, output_status, review, settling
from tandem.domain.automation import Node
from tandem.domain.draft import Draft
from tandem.domain.errors import IllegalTransition
from tandem.domain.graph import PlanNode
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.outcome import Blocked, FailureClass, Outcome, Succeeded
from tandem.domain.output_status import Read, read_output
from tandem.domain.reading import Reading
from tandem.domain.settling import Settled
from tandem.testing.builders import python_node
from tandem.testing.tale import Tale

E, S = RunEvent, RunState
READS = {"metadata": {"reads_output_status": True}, "retry_policy": {"max_attempts": 1}}
ONCE = {"retry_policy": {"max_attempts": 1}}

Scenario = Callable[[], None]


def caught(scenario: Scenario) -> None:
    """Expect that a scenario does not hold."""
    with pytest.raises((AssertionError, IllegalTransition)):
        scenario()


def finish(tale: Tale, node_id: str, output: dict[str, object]) -> None:
    """Let a body end well, and its output be read as the engine does it."""
    plan_node = tale.view.plan.nodes[tale.view.plan.by_id[node_id]]  # type: ignore[index] # a NodeId
    read = output_status.read_output(plan_node.node, Succeeded(output=output))  # type: ignore[arg-type] # JSON
    tale.settle(node_id, read.outcome, output=b"{}", reading=read.reading)


# W-05: a rejected review puts the run back without a second executor


def w05_rollback_keeps_the_claim() -> None:
    tale = Tale(python_node("draft"), python_node("review", "draft")).claim()
    tale.succeed("draft")

    tale.settle("review", Blocked(kind="review_not_approved", reason="no"))

    assert tale.status is S.RUNNING, "a run that is queued while it is driven is claimed twice"
    assert tale.run.engine_id is not None
    assert tale.states()["draft"] == "running"


def test_w05_rollback_keeps_the_claim() -> None:
    w05_rollback_keeps_the_claim()


def test_w05_rollback_that_queues_the_run_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = review.roll_back

    def roll_back(draft: Draft, plan_node: PlanNode, roots: list[int], *, reason: str) -> None:
        original(draft, plan_node, roots, reason=reason)
        draft.run.status = S.QUEUED

    monkeypatch.setattr(review, "roll_back", roll_back)
    caught(w05_rollback_keeps_the_claim)


# W-06: what completed with warnings counts when the run is accounted


def w06_warnings_complete_the_run() -> None:
    tale = Tale(python_node("a", **READS)).claim()

    finish(tale, "a", {"status": "completed_with_warnings", "warnings": ["thin"]})

    assert tale.status is S.COMPLETED
    assert tale.events[-2].event is E.NODE_COMPLETED_WITH_WARNINGS


def test_w06_warnings_complete_the_run() -> None:
    w06_warnings_complete_the_run()


def test_w06_accounting_that_knows_only_plain_success_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def account(draft: Draft, facts: accounting.Facts) -> None:
        nodes = [draft.node(n) for n in range(len(draft.plan))]
        plain = all((n.reading or Reading()).warnings == () for n in nodes)
        draft.happen(E.RUN_COMPLETED if plain else E.RUN_FAILED)

    monkeypatch.setattr(driving, "account", account)
    caught(w06_warnings_complete_the_run)


# W-07: an output that says it failed, or says something unknown, completes nothing


def w07_bad_statuses_start_nothing_after_them() -> None:
    for status in ("failed", "mostly_fine"):
        tale = Tale(python_node("a", **READS), python_node("b", "a")).claim()

        finish(tale, "a", {"status": status})

        assert tale.states()["b"] in ("pending", "blocked")
        assert tale.status in (S.FAILED, S.BLOCKED)


def test_w07_bad_statuses_start_nothing_after_them() -> None:
    w07_bad_statuses_start_nothing_after_them()


def test_w07_outputs_that_are_not_read_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_status, "read_output", lambda _node, outcome: Read(outcome))
    caught(w07_bad_statuses_start_nothing_after_them)


# W-09: a terminal failure throws away nothing that finished beside it


def w09_siblings_of_a_failure_land() -> None:
    tale = Tale(python_node("a", **ONCE), python_node("b"), python_node("c")).claim()
    tale.repair("a", FailureClass.VERIFICATION_FAILED)

    tale.succeed("b", b'"kept"')
    tale.succeed("c", b'"kept too"')

    assert tale.status is S.FAILED
    assert tale.node("b").output == b'"kept"'
    assert tale.node("c").output == b'"kept too"'
    assert tale.started.keys() == tale.ended.keys(), "an attempt that never ends"


def w09_siblings_of_one_change_land() -> None:
    tale = Tale(python_node("a", **ONCE), python_node("b")).claim()
    items = [
        Settled(node_no=0, number=1, outcome=_verify_failed()),
        Settled(node_no=1, number=1, outcome=Succeeded(output=1), output=b'"kept"'),
    ]

    tale.advance(*items)

    assert tale.node("b").output == b'"kept"'
    assert tale.started.keys() == tale.ended.keys()


def _verify_failed() -> Outcome:
    node = Node.model_validate(python_node("a", **READS))
    return read_output(node, Succeeded(output={"status": "verify_failed"})).outcome


@pytest.mark.parametrize(
    "scenario", [w09_siblings_of_a_failure_land, w09_siblings_of_one_change_land]
)
def test_w09_siblings_of_a_failure_land(scenario: Scenario) -> None:
    scenario()


@pytest.mark.parametrize(
    "scenario", [w09_siblings_of_a_failure_land, w09_siblings_of_one_change_land]
)
def test_w09_outcomes_dropped_after_a_failure_are_caught(
    monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    original = settling.settle

    def settle(draft: Draft, item: Settled) -> None:
        if not draft.in_state(settling.N.FAILED):
            original(draft, item)

    monkeypatch.setattr(driving, "settle", settle)
    caught(scenario)


# W-36: a slow node holds back nobody who does not need it


def w36_a_slow_node_idles_nobody() -> None:
    tale = Tale(python_node("slow"), python_node("fast"), python_node("next", "fast")).claim()

    tale.succeed("fast")

    assert tale.states() == {"slow": "running", "fast": "completed", "next": "running"}


def test_w36_a_slow_node_idles_nobody() -> None:
    w36_a_slow_node_idles_nobody()


def test_w36_a_batch_barrier_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = driving._start_ready

    def start_ready(draft: Draft, *how: Any) -> None:
        if not draft.in_state(driving.N.RUNNING):
            original(draft, *how)

    monkeypatch.setattr(driving, "_start_ready", start_ready)
    caught(w36_a_slow_node_idles_nobody)
