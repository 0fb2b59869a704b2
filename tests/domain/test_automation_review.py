"""Counting the ends of runs, asking for a review, and what a review holds."""

from typing import Any

import msgspec
import pytest

from tandem.domain.admission import Facts, is_counted_key, refuse
from tandem.domain.automation_review import (
    Review,
    acknowledge,
    count_end,
    is_review_key,
    parse_review_key,
    review_key,
)
from tandem.domain.ids import AutomationId, ChangeId, TenantId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import QueueReason, Run
from tandem.domain.standing import ReasonKind, Situation, explain
from tandem.testing.builders import fresh_view, python_node


def a_review(**fields: Any) -> Review:
    values: dict[str, Any] = {
        "tenant": TenantId("local"),
        "automation_id": AutomationId("simulated"),
        "runs_max": 2,
        "created_at_ms": 0,
        "updated_at_ms": 0,
    }
    return Review(**(values | fields))


def a_run(**fields: Any) -> Run:
    return msgspec.structs.replace(fresh_view(python_node("a")).run, **fields)


def counted(review: Review, times: int, **fields: Any) -> Review:
    for number in range(times):
        review = count_end(review, a_run(**fields), change_id=ChangeId(f"c{number}"))
    return review


def test_each_end_counts_and_the_threshold_asks_once() -> None:
    after = counted(a_review(), 1, updated_at_ms=7)
    assert (after.runs_since_review, after.runs_total, after.review_required) == (1, 1, False)
    assert after.health_last_checked_at_ms == 7
    due = counted(a_review(), 2, updated_at_ms=9, detail="", stop_reason="stopped")
    assert (due.review_required, due.review_kind) == (True, "run_drift")
    assert (due.review_request_id, due.review_reason) == ("lifecycle-review-c1", "stopped")
    assert due.review_requested_at_ms == 9
    later = count_end(due, a_run(), change_id=ChangeId("later"))
    assert (later.runs_since_review, later.review_request_id) == (3, due.review_request_id)


def test_zero_counts_and_never_asks() -> None:
    after = counted(a_review(runs_max=0), 50)
    assert (after.runs_total, after.review_required) == (50, False)


@pytest.mark.parametrize(("given", "bound"), [(None, 2), (5, 5)])
def test_acknowledging_begins_anew(given: int | None, bound: int) -> None:
    due = counted(a_review(), 2)
    after = acknowledge(due, runs_max=given, by="ada", note="fine", now_ms=11)
    assert (after.runs_since_review, after.runs_total, after.review_required) == (0, 2, False)
    assert (after.review_request_id, after.review_requested_at_ms) == ("", None)
    assert (after.reviewed_by, after.review_note, after.reviewed_at_ms) == ("ada", "fine", 11)
    assert after.runs_max == bound


def test_a_review_holds_new_runs_and_lets_those_go_on_that_have_begun() -> None:
    facts = Facts(review=a_review(review_required=True))
    refusal = refuse(a_run(), facts)
    assert refusal is not None
    assert refusal.reason is QueueReason.REVIEW_REQUIRED
    assert refusal.resource_key == "review:local/simulated"
    assert refusal.due_at_ms is None
    assert refuse(a_run(started_at_ms=1), facts) is None
    assert refuse(a_run(), Facts(review=a_review())) is None


def test_keys_name_any_tenant_and_automation() -> None:
    tenant, automation_id = TenantId("a/b"), AutomationId("c/ d:é")
    key = review_key(tenant, automation_id)
    assert is_review_key(key)
    assert not is_counted_key(key)
    assert parse_review_key(key) == (tenant, automation_id)
    assert is_counted_key("concurrency://t/x")


def test_why_names_the_review() -> None:
    run = a_run(status=RunState.QUEUED, due_at_ms=None, queue_reason=QueueReason.REVIEW_REQUIRED)
    review = counted(a_review(), 2, updated_at_ms=40)
    reason = explain(Situation(run=run, now_ms=50, review=review))
    assert reason.kind is ReasonKind.REVIEW_REQUIRED
    assert "2 runs have ended since somebody last looked" in reason.sentence
    assert reason.since_ms == 40
    assert reason.held_by == (review.review_request_id,)
    assert reason.freed_by == "`tandem governance acknowledge simulated`"
