"""Runs that show no life are stopped, and some go on by themselves (run-lifecycle 3.8, 2.3)."""

from typing import Any

import msgspec
import pytest

from tandem.domain.command import (
    AutoResume,
    Cancel,
    Claim,
    DecideGate,
    Pause,
    ProcessesEnded,
    Reap,
    Recover,
    Resume,
)
from tandem.domain.errors import Refused
from tandem.domain.ids import ChangeId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.run import AttemptEnd
from tandem.domain.staleness import is_within_window, last_activity_at_ms, stale_after_ms
from tandem.domain.time_limits import limits_of
from tandem.testing.builders import automation, fresh_view, python_node
from tandem.testing.tale import ENGINE, Tale

S = RunState
BASE_MS = 600_000
WINDOW_MS = 1_200_000
ONCE = {"max_attempts": 1}
GO_ON = AutoResume(window_ms=WINDOW_MS, attempts_max=2)


def reap(tale: Tale, *, base_ms: int = BASE_MS, **seen: Any) -> None:
    """Let the sweep find the run as it is."""
    command = Reap(
        stale_after_ms=base_ms,
        seen_change_id=seen.get("change_id", tale.run.last_change_id),
        seen_activity_at_ms=seen.get("activity_at_ms", tale.run.activity_at_ms),
    )
    tale.command(command)


def stale(*nodes: dict[str, Any], quiet_ms: int = BASE_MS) -> Tale:
    """Return a run that showed no life for so long."""
    tale = Tale(*(nodes or (python_node("a"), python_node("b", "a")))).claim()
    tale.now_ms += quiet_ms
    return tale


def reaped() -> Tale:
    """Return a run that was paused as stale, its processes ended."""
    tale = stale()
    reap(tale)
    tale.command(ProcessesEnded(engine_id=ENGINE))
    return tale


# When a run is stale


def test_threshold_is_inclusive() -> None:
    tale = stale(quiet_ms=BASE_MS - 1)
    with pytest.raises(Refused, match="shown life"):
        reap(tale)
    tale.now_ms += 1
    reap(tale)
    assert tale.status is S.PAUSED


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, BASE_MS),
        ({"timeout_ms": 1_000}, BASE_MS),
        ({"timeout_ms": 600_000}, 660_000),
        ({"idle_timeout_ms": 900_000, "timeout_ms": 1_000}, 960_000),
    ],
)
def test_nodes_in_progress_may_take_as_long_as_they_say(
    fields: dict[str, Any], expected: int
) -> None:
    tale = Tale(python_node("a", **fields), python_node("b", "a", timeout_ms=10**9)).claim()
    assert stale_after_ms(tale.view, BASE_MS) == expected
    tale.now_ms += expected - 1
    with pytest.raises(Refused):
        reap(tale)


def test_agent_without_a_limit_of_its_own_has_the_default_one() -> None:
    view = fresh_view({"node_id": "a", "agent_id": "x"}, {"node_id": "b", "timeout_ms": 10_000})
    assert limits_of(view.plan.nodes[0]) == (600_000, 1_800_000)
    assert limits_of(view.plan.nodes[1]) == (10_000, 70_000)
    assert automation({"node_id": "a"})  # the builder takes agents


def test_live_executor_is_activity() -> None:
    tale = stale()
    tale.run.activity_at_ms = tale.now_ms - 5
    assert last_activity_at_ms(tale.run) == tale.now_ms - 5
    with pytest.raises(Refused, match="shown life"):
        reap(tale)


@pytest.mark.parametrize(
    "seen", [{"change_id": ChangeId("older")}, {"activity_at_ms": 1}], ids=["change", "body"]
)
def test_run_that_is_not_as_it_was_seen_is_left_alone(seen: dict[str, Any]) -> None:
    tale = stale()
    with pytest.raises(Refused, match="shown life"):
        reap(tale, **seen)
    assert tale.status is S.RUNNING


@pytest.mark.parametrize("end", ["succeed", "cancel", "pause"])
def test_run_that_nobody_drives_is_never_stale(end: str) -> None:
    tale = Tale(python_node("a")).claim()
    if end == "succeed":
        tale.succeed("a")
    elif end == "cancel":
        tale.command(Cancel())
    else:
        tale.command(Pause())
        tale.stop("a")
    before = tale.status
    tale.now_ms += 10 * BASE_MS
    with pytest.raises(Refused, match="only a run that an engine drives"):
        reap(tale)
    assert tale.status is before


# What becomes of it


def test_stale_run_is_paused_with_its_nodes_marked() -> None:
    tale = stale(python_node("a"), python_node("b"), python_node("c", "a"))
    reap(tale)
    run = tale.run
    assert tale.happened() == [
        "node_repair_requested",
        "node_repair_requested",
        "run_paused_stale_no_provider_activity",
    ]
    assert tale.changes[-1].events[-1].stop_kind is StopKind.STALE_REAPED
    assert (tale.status, run.pause_reason) == (S.PAUSED, "stale_no_provider_activity")
    assert (
        run.detail
        == run.stop_reason
        == (
            "automation run paused after no provider activity for at least 600s; "
            "repairable node(s): a, b"
        )
    )
    assert (run.stop_kind, run.reaped_at_ms) == (StopKind.STALE_REAPED, tale.now_ms)
    assert (run.engine_id, run.cleanup) == (None, ENGINE)
    node = tale.node("a")
    reason = "node execution stalled after no provider activity for at least 600s"
    assert (node.state.value, node.repair, node.attempts_used) == ("pending", (reason,), 1)
    assert node.failure is not None
    assert node.failure.failure_kind == "stale_no_provider_activity"
    assert run.last_failure == node.failure
    assert tale.ended[0, 1].outcome is AttemptEnd.STOPPED
    assert tale.ended[0, 1].failure_class == "stale_no_provider_activity"


def test_stale_run_fails_when_a_node_has_no_attempt_left() -> None:
    tale = stale(python_node("a", retry_policy=ONCE), python_node("b"))
    reap(tale)
    assert tale.happened()[-1] == "run_failed_stale_no_provider_activity"
    assert (tale.status, tale.run.pause_reason) == (S.FAILED, "")
    assert tale.run.detail == (
        "automation run failed after no provider activity for at least 600s; "
        "terminal stale node(s): a"
    )
    assert tale.run.stop_kind is StopKind.STALE_REAPED
    assert tale.states() == {"a": "failed", "b": "pending"}
    assert tale.run.cleanup == ENGINE
    with pytest.raises(Refused, match="still being ended"):
        tale.command(Recover())
    tale.command(ProcessesEnded(engine_id=ENGINE))
    tale.command(Recover())
    assert tale.claim().states() == {"a": "running", "b": "running"}


def test_stale_node_with_outside_effects_asks_a_person() -> None:
    tale = stale(python_node("a", effects="external"))
    reap(tale)
    assert (tale.status, tale.states()) == (S.PAUSED, {"a": "gated"})
    tale.command(ProcessesEnded(engine_id=ENGINE))
    tale.command(GO_ON)
    tale.claim()
    assert tale.status is S.AWAITING_APPROVAL
    tale.command(DecideGate(decision="retry"))
    assert tale.claim().states() == {"a": "running"}


def test_pausing_run_that_is_stale_stays_with_the_person_who_paused_it() -> None:
    tale = Tale(python_node("a")).claim()
    tale.command(Pause(reason="lunch"))
    tale.now_ms += BASE_MS
    reap(tale)
    assert (tale.status, tale.run.pause_reason, tale.run.stop_kind) == (S.PAUSED, "lunch", None)
    tale.command(ProcessesEnded(engine_id=ENGINE))
    with pytest.raises(Refused, match="not paused because"):
        tale.command(GO_ON)


def test_nothing_goes_on_before_the_processes_are_ended() -> None:
    tale = stale()
    reap(tale)
    for command in (Resume(), GO_ON):
        with pytest.raises(Refused, match="its processes"):
            tale.command(command)
    tale.command(ProcessesEnded(engine_id=ENGINE))
    tale.command(Resume())
    assert tale.status is S.QUEUED


# Going on by itself


def test_stale_run_goes_on_by_itself() -> None:
    tale = reaped()
    at_ms = tale.run.reaped_at_ms
    tale.now_ms += WINDOW_MS
    change = tale.command(GO_ON)
    run = tale.run
    assert tale.status is S.QUEUED
    (event,) = change.events
    assert (event.event, event.reason) == ("run_auto_resumed", "auto_resume_after_stale_reap")
    assert event.metadata == {"auto_resume_window_ms": WINDOW_MS, "stale_reaped_at_ms": at_ms}
    assert (run.pause_reason, run.detail, run.stop_kind, run.stop_reason) == ("", "", None, "")
    assert run.auto_resumes == 1
    assert tale.claim().states() == {"a": "running", "b": "pending"}


def test_window_ends_after_its_last_millisecond() -> None:
    tale = reaped()
    tale.now_ms += WINDOW_MS + 1
    with pytest.raises(Refused, match="too long ago"):
        tale.command(GO_ON)


@pytest.mark.parametrize(
    ("now_ms", "reaped_at_ms", "inside"),
    [(10_000, 9_500, True), (10_000, 7_000, False), (10_000, 9_000, True), (10_000, 99_999, True)],
)
def test_window_of_the_seed(now_ms: int, reaped_at_ms: int, inside: bool) -> None:
    found = is_within_window(now_ms=now_ms, reaped_at_ms=reaped_at_ms, window_ms=1_000)
    assert found is inside


def test_run_goes_on_by_itself_so_often_and_no_more() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 9})).claim()
    for _ in range(2):
        tale.now_ms += BASE_MS
        reap(tale)
        tale.command(ProcessesEnded(engine_id=ENGINE))
        tale.command(GO_ON)
        tale.claim()
    tale.now_ms += BASE_MS
    reap(tale)
    tale.command(ProcessesEnded(engine_id=ENGINE))
    with pytest.raises(Refused, match="2 times already"):
        tale.command(GO_ON)
    tale.command(Resume())
    assert tale.run.auto_resumes == 2


def test_reap_without_a_node_in_progress_can_go_on_too() -> None:
    tale = Tale(python_node("a"))
    tale.command(Claim(engine_id=ENGINE))
    tale.now_ms += BASE_MS
    reap(tale)
    assert tale.run.detail == "automation run paused after no provider activity for at least 600s"
    assert tale.run.cleanup is None
    tale.command(GO_ON)
    assert tale.status is S.QUEUED


def test_run_whose_stale_nodes_have_no_attempt_left_does_not_go_on() -> None:
    tale = reaped()
    tale.view.nodes[0] = msgspec.structs.replace(tale.node("a"), attempts_used=99)
    with pytest.raises(Refused, match="attempt left"):
        tale.command(GO_ON)


def test_person_can_hold_a_run_that_would_go_on_by_itself() -> None:
    tale = reaped()
    tale.command(Pause(reason="let me look first"))
    assert (tale.run.stop_kind, tale.run.pause_reason) == (None, "let me look first")
    with pytest.raises(Refused):
        tale.command(GO_ON)


def test_cancelled_run_is_not_resurrected() -> None:
    tale = reaped()
    tale.command(Cancel())
    with pytest.raises(Refused):
        tale.command(GO_ON)
    assert tale.status is S.CANCELLED


def test_reap_whose_moment_nobody_wrote_down_is_left_to_a_person() -> None:
    tale = reaped()
    tale.run.reaped_at_ms = None
    with pytest.raises(Refused, match="too long ago"):
        tale.command(GO_ON)
