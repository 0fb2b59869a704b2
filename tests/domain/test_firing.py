"""When a stored automation fires, what it makes up for, and what changes of it mean."""

from typing import Any

import msgspec
import pytest

from tandem.domain.automation_keeping import (
    AutomationCommand,
    DeleteAutomation,
    PauseAutomation,
    ResumeAutomation,
    Save,
    decide_automation,
)
from tandem.domain.firing import (
    SCHEDULE_INVALID,
    Fired,
    Firing,
    FiringOutcome,
    FiringPlan,
    fire,
    firings_of,
    plan_firing,
    put_off,
    undecided,
    upcoming,
)
from tandem.domain.ids import LOCAL_TENANT, AutomationId, ChangeId, DefinitionDigest, RunId
from tandem.domain.json import canonical
from tandem.domain.schedule import Schedule
from tandem.domain.stored_automation import StoredAutomation

MINUTE = 60_000
GRACE = 5_000
ORIGIN = 1_000_000


def schedule(policy: str = "skip", **fields: Any) -> str:
    misfires: dict[str, Any] = {"type": policy}
    if policy == "catch_up":
        misfires["max_runs"] = fields.pop("max_runs", 3)
    given = {"type": "interval", "interval_seconds": 60, "misfire_policy": misfires, **fields}
    made = Schedule.model_validate(given)
    return canonical(made.model_dump(mode="json", exclude_none=True)).decode()


def ask(
    row: StoredAutomation | None, command: AutomationCommand, at: int = ORIGIN
) -> StoredAutomation:
    return decide_automation(
        row,
        command,
        tenant=LOCAL_TENANT,
        automation_id=AutomationId("job"),
        change_id=ChangeId(f"c{at}"),
        now_ms=at,
    ).row


def save(text: str, digest: str = "sha256:1") -> Save:
    return Save(
        definition_digest=DefinitionDigest(digest), name="Job", creator_id="ann", schedule=text
    )


def saved(policy: str = "skip", **fields: Any) -> StoredAutomation:
    return ask(None, save(schedule(policy, **fields)))


def due_at(row: StoredAutomation, late_ms: int, missed: int = 0) -> FiringPlan | None:
    now_ms = ORIGIN + MINUTE * (missed + 1) + late_ms
    return plan_firing(row, grace_ms=GRACE, now_ms=now_ms)


def in_minutes(plan: FiringPlan | None) -> list[int]:
    assert plan is not None
    return [(due_ms - ORIGIN) // MINUTE for due_ms in plan.due_at_ms]


def test_saved_automation_fires_for_the_first_time_one_interval_later() -> None:
    row = saved()
    assert (row.next_fire_at_ms, row.fired_until_ms) == (ORIGIN + MINUTE, ORIGIN)
    assert due_at(row, -1) is None
    plan = due_at(row, 0)
    assert plan == FiringPlan(
        due_at_ms=(ORIGIN + MINUTE,),
        until_ms=ORIGIN + MINUTE,
        next_fire_at_ms=ORIGIN + 2 * MINUTE,
    )


def test_late_firing_does_not_move_the_grid() -> None:
    row = saved()
    plan = due_at(row, GRACE)
    assert plan is not None
    row = fire(row, plan, now_ms=ORIGIN + MINUTE + GRACE)
    assert row.next_fire_at_ms == ORIGIN + 2 * MINUTE
    assert row.last_fired_at_ms == ORIGIN + MINUTE + GRACE
    assert row.fired_until_ms == ORIGIN + MINUTE


@pytest.mark.parametrize(
    ("policy", "late_ms", "missed", "runs", "left_out"),
    [
        ("skip", GRACE, 0, [1], 0),
        ("skip", GRACE + 1, 0, [], 1),
        ("skip", GRACE + 1, 4, [], 5),
        ("skip", 0, 4, [5], 4),
        ("run_once", GRACE + 1, 0, [1], 0),
        ("run_once", GRACE + 1, 4, [5], 4),
        ("run_once", 0, 4, [5], 4),
        ("catch_up", GRACE + 1, 0, [1], 0),
        ("catch_up", GRACE + 1, 4, [3, 4, 5], 2),
        ("catch_up", 0, 1, [1, 2], 0),
    ],
)
def test_misfire_policies(
    policy: str, late_ms: int, missed: int, runs: list[int], left_out: int
) -> None:
    plan = due_at(saved(policy), late_ms, missed)
    assert in_minutes(plan) == runs
    assert plan is not None
    assert plan.missed == left_out
    newest = ORIGIN + MINUTE * (missed + 1)
    assert plan.until_ms == newest
    assert plan.newest_missed_at_ms == (None if runs else newest)
    assert plan.next_fire_at_ms == newest + MINUTE


def test_catching_up_with_no_runs_is_skipping() -> None:
    row = saved("catch_up", max_runs=0)
    assert in_minutes(due_at(row, GRACE + 1, 4)) == []
    assert in_minutes(due_at(row, 0, 4)) == [5]


def test_catching_up_is_bounded_whatever_is_stored() -> None:
    plan = due_at(saved("catch_up", max_runs=5_000), GRACE + 1, 500)
    assert len(in_minutes(plan)) == 100


def test_firing_that_was_put_off_happens_once_however_late() -> None:
    row = saved("skip")
    held = put_off(row, 7, now_ms=ORIGIN + MINUTE)
    assert (held.deferred_at_ms, held.deferred_by) == (ORIGIN + MINUTE, 7)
    assert held.next_fire_at_ms == row.next_fire_at_ms
    free = msgspec.structs.replace(held, deferred_by=None)
    again = put_off(free, 8, now_ms=ORIGIN + 2 * MINUTE)
    assert (again.deferred_at_ms, again.deferred_by) == (ORIGIN + MINUTE, 8)
    plan = due_at(free, MINUTE // 2, 9)
    assert in_minutes(plan) == [10]
    assert plan is not None
    assert plan.missed == 9
    after = fire(free, plan, now_ms=plan.until_ms)
    assert (after.deferred_at_ms, after.deferred_by) == (None, None)


def test_manual_automation_never_fires() -> None:
    row = saved(type="manual")
    assert (row.next_fire_at_ms, row.fired_until_ms) == (None, None)
    assert plan_firing(row, grace_ms=GRACE, now_ms=2**50) is None


def test_first_look_at_what_an_older_version_stored_only_finds_the_next_moment() -> None:
    row = msgspec.structs.replace(saved(), fired_until_ms=None, next_fire_at_ms=0)
    plan = plan_firing(row, grace_ms=GRACE, now_ms=5)
    assert plan == FiringPlan(until_ms=5, next_fire_at_ms=5 + MINUTE)
    manual = msgspec.structs.replace(row, schedule="")
    assert plan_firing(manual, grace_ms=GRACE, now_ms=5) == FiringPlan(
        until_ms=5, next_fire_at_ms=None
    )
    assert (
        firings_of(
            plan, (), trigger_type="scheduled", refusal=None, change_id=ChangeId("c"), now_ms=5
        )
        == ()
    )


def test_clock_that_was_set_back_fires_nothing_twice() -> None:
    row = msgspec.structs.replace(saved(), next_fire_at_ms=10)
    plan = plan_firing(row, grace_ms=GRACE, now_ms=20)
    assert plan == FiringPlan(until_ms=ORIGIN, next_fire_at_ms=ORIGIN + MINUTE)


def test_schedule_that_cannot_be_read_is_recorded_and_never_due_again() -> None:
    row = msgspec.structs.replace(saved(), schedule='{"type":"cron","cron_expression":"x"}')
    plan = due_at(row, 0)
    assert plan is not None
    assert plan.next_fire_at_ms is None
    (firing,) = firings_of(
        plan, (), trigger_type="scheduled", refusal=None, change_id=ChangeId("c"), now_ms=9
    )
    assert (firing.outcome, firing.code) == (FiringOutcome.REFUSED, SCHEDULE_INVALID)
    assert firing.reason.startswith("`x` has 1 fields")


def recorded(
    plan: FiringPlan | None, *runs: str, refusal: tuple[str, str] | None = None
) -> tuple[Firing, ...]:
    assert plan is not None
    return firings_of(
        plan,
        tuple(map(RunId, runs)),
        trigger_type="scheduled",
        refusal=refusal,
        change_id=ChangeId("c"),
        now_ms=9,
    )


def test_each_occurrence_with_a_run_has_its_record() -> None:
    firings = recorded(due_at(saved("catch_up"), GRACE + 1, 4), "r3", "r4", "r5")
    assert [(f.occurrence, f.run_id, f.missed) for f in firings] == [
        (f"at:{ORIGIN + 3 * MINUTE}", "r3", 2),
        (f"at:{ORIGIN + 4 * MINUTE}", "r4", 0),
        (f"at:{ORIGIN + 5 * MINUTE}", "r5", 0),
    ]
    assert {f.outcome for f in firings} == {FiringOutcome.CREATED}
    assert Fired(row=None, firings=firings).run_ids == ("r3", "r4", "r5")


def test_missed_and_refused_occurrences_have_their_record() -> None:
    (missed,) = recorded(due_at(saved(), GRACE + 1, 4))
    assert (missed.outcome, missed.missed, missed.due_at_ms) == (
        FiringOutcome.MISSED,
        4,
        ORIGIN + 5 * MINUTE,
    )
    (refused,) = recorded(due_at(saved(), 0), refusal=("review_required", "look first"))
    assert (refused.outcome, refused.code, refused.reason, refused.run_id) == (
        FiringOutcome.REFUSED,
        "review_required",
        "look first",
        None,
    )


def test_changed_timing_begins_anew_and_does_not_fire_at_once() -> None:
    row = put_off(saved(), 7, now_ms=ORIGIN)
    at = ORIGIN + 10 * MINUTE + 7
    after = ask(row, save(schedule(interval_seconds=3_600), "sha256:2"), at)
    assert (after.next_fire_at_ms, after.fired_until_ms) == (at + 60 * MINUTE, at)
    assert (after.deferred_at_ms, after.deferred_by) == (None, None)


@pytest.mark.parametrize("text", [schedule("skip"), schedule("run_once")])
def test_same_timing_keeps_the_next_firing(text: str) -> None:
    row = saved()
    after = ask(row, save(text, "sha256:2"), ORIGIN + 10 * MINUTE + 7)
    assert after.version == 2
    assert (after.next_fire_at_ms, after.fired_until_ms) == (ORIGIN + MINUTE, ORIGIN)


def test_what_fell_due_during_a_pause_was_not_missed_and_the_grid_stays() -> None:
    paused = ask(put_off(saved(), 7, now_ms=ORIGIN), PauseAutomation(by="eve"), ORIGIN + 1)
    assert (paused.next_fire_at_ms, paused.deferred_at_ms, paused.deferred_by) == (None, None, None)
    resumed = ask(paused, ResumeAutomation(by="eve"), ORIGIN + 3 * MINUTE + 7)
    assert resumed.next_fire_at_ms == ORIGIN + 4 * MINUTE
    assert resumed.fired_until_ms == ORIGIN + 3 * MINUTE
    soon = ask(paused, ResumeAutomation(by="eve"), ORIGIN + 7)
    assert (soon.next_fire_at_ms, soon.fired_until_ms) == (ORIGIN + MINUTE, ORIGIN)


def test_deleted_automation_does_not_fire_and_a_restored_one_begins_anew() -> None:
    deleted = ask(saved(), DeleteAutomation(by="eve"), ORIGIN + 1)
    assert deleted.next_fire_at_ms is None
    restored = ask(deleted, save(schedule(), "sha256:2"), ORIGIN + MINUTE + 1)
    assert restored.next_fire_at_ms == ORIGIN + 2 * MINUTE


BACK = ORIGIN - 30 * MINUTE
"""The clock after it was set back, before what was fired."""


@pytest.mark.parametrize(
    "text",
    [schedule("run_once"), schedule(interval_seconds=3_600)],
    ids=["same timing", "other timing"],
)
def test_edit_after_the_clock_was_set_back_leaves_the_watermark(text: str) -> None:
    after = ask(saved(), save(text, "sha256:2"), BACK)
    assert after.fired_until_ms == ORIGIN
    assert after.next_fire_at_ms is not None
    assert after.next_fire_at_ms > ORIGIN


def test_watermark_outlives_a_time_without_a_schedule() -> None:
    manual = ask(saved(), save(schedule(type="manual"), "sha256:2"), BACK)
    assert (manual.fired_until_ms, manual.next_fire_at_ms) == (ORIGIN, None)
    again = ask(manual, save(schedule(), "sha256:3"), BACK)
    assert (again.fired_until_ms, again.next_fire_at_ms) == (ORIGIN, ORIGIN + MINUTE)


def test_restored_automation_begins_at_a_clock_that_was_set_back() -> None:
    deleted = ask(saved(), DeleteAutomation(by="eve"), BACK)
    restored = ask(deleted, save(schedule(), "sha256:2"), BACK)
    assert (restored.fired_until_ms, restored.next_fire_at_ms) == (BACK, BACK + MINUTE)


def test_occurrences_that_have_a_record_are_left_out() -> None:
    firings = recorded(due_at(saved("catch_up"), GRACE + 1, 4), "r3", "r4", "r5")
    left = undecided(firings, {firings[1].occurrence})
    assert [firing.run_id for firing in left] == ["r3", "r5"]


def test_schedule_that_is_wrong_can_be_saved_and_does_not_fire() -> None:
    row = ask(saved(), save('{"type":"cron","cron_expression":"x"}', "sha256:2"), ORIGIN + 1)
    assert row.next_fire_at_ms is None


def test_upcoming_firings_begin_with_the_one_that_is_put_off() -> None:
    row = saved()
    assert upcoming(row, limit=2) == (ORIGIN + MINUTE, ORIGIN + 2 * MINUTE)
    assert upcoming(saved(type="manual"), limit=2) == ()
    assert upcoming(ask(row, PauseAutomation(by="eve")), limit=2) == ()
