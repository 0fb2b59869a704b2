"""What a trigger did at one occurrence, and when a stored automation fires next; pure.

An occurrence is decided once. A schedule has a watermark: everything that fell due up to it is
decided, and the store moves it in the transaction that creates the runs (W-16). A firing of an
automation that has a run which has not ended is put off, whatever that run waits for; it happens
once when the run ends. Only occurrences that nobody put off can be missed, by more than the grace
distance.
"""

from collections.abc import Container
from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.automation import AutomationStatus
from tandem.domain.ids import ChangeId, RunId
from tandem.domain.schedule import CatchUpMisfires, RunOnceAfterMisfires, Schedule
from tandem.domain.stored_automation import AutomationChange, StoredAutomation
from tandem.domain.timetable import CATCH_UP_MAX, Timing, has_same_timing, series, timing_of

SCHEDULE_INVALID: Final = "schedule_invalid"


class FiringOutcome(StrEnum):
    """What became of an occurrence."""

    CREATED = "created"
    """It has its run."""
    MISSED = "missed"
    """It came too late, and the misfire policy makes up for no more."""
    REFUSED = "refused"
    """No run could be created; `reason` says why."""


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one occurrence of one automation.

    `occurrence` is its identity: `at:<instant>` of a schedule, of a watch
    `handoff:<id>:<created>:<what it says>`.
    `due_at_ms` is when it fell due. `missed` counts the older occurrences that were left out with
    it, up to 1,000.
    """

    firing_no: int = 0
    occurrence: str
    trigger_type: str
    due_at_ms: int
    decided_at_ms: int
    outcome: FiringOutcome
    run_id: RunId | None = None
    code: str = ""
    reason: str = ""
    missed: int = 0
    change_id: ChangeId


class FiringPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about a schedule that is due.

    `due_at_ms` are the occurrences that get runs, oldest first. `missed` is how many are left out,
    `newest_missed_at_ms` the last of these. `until_ms` is the watermark afterwards. `problem` says
    why the schedule can never fire.
    """

    due_at_ms: tuple[int, ...] = ()
    missed: int = 0
    newest_missed_at_ms: int | None = None
    until_ms: int
    next_fire_at_ms: int | None
    problem: str = ""


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a plan. `row` is the automation afterwards, None when another engine was first.

    `put_off_by` is the run that has to end first.
    """

    row: StoredAutomation | None
    firings: tuple[Firing, ...] = ()
    put_off_by: RunId | None = None

    @property
    def run_ids(self) -> tuple[RunId, ...]:
        """The runs that were created."""
        return tuple(firing.run_id for firing in self.firings if firing.run_id is not None)


def plan_firing(row: StoredAutomation, *, grace_ms: int, now_ms: int) -> FiringPlan | None:
    """Plan what a schedule does at a moment; None when it is not due.

    The newest occurrence is on time within the grace distance, or when the firing was put off;
    then it gets its run whatever the policy is. Else `skip` leaves it out, `run_once` gives it a
    run, and `catch_up` gives the newest ones theirs, up to so many.
    """
    if row.next_fire_at_ms is None or row.next_fire_at_ms > now_ms:
        return None
    try:
        schedule = schedule_of(row)
        timing = timing_of(schedule)
    except ValueError as error:
        return FiringPlan(until_ms=now_ms, next_fire_at_ms=None, problem=str(error))
    if timing is None or row.fired_until_ms is None:
        return FiringPlan(until_ms=now_ms, next_fire_at_ms=_first(timing, now_ms, origin_ms=now_ms))
    most = _made_up_for_max(schedule)
    fell = timing.newest_until(now_ms, origin_ms=row.fired_until_ms, limit=max(most, 1))
    if not fell.newest_ms:
        # The clock was set back since the next firing was computed.
        next_ms = _first(timing, row.fired_until_ms, origin_ms=row.fired_until_ms)
        return FiringPlan(until_ms=row.fired_until_ms, next_fire_at_ms=next_ms)
    newest_ms = fell.newest_ms[-1]
    is_on_time = row.deferred_at_ms is not None or now_ms - newest_ms <= grace_ms
    due = fell.newest_ms if is_on_time or most else ()
    missed = fell.count - len(due)
    return FiringPlan(
        due_at_ms=due,
        missed=missed,
        newest_missed_at_ms=None if due else newest_ms,
        until_ms=newest_ms,
        next_fire_at_ms=_first(timing, now_ms, origin_ms=newest_ms),
    )


def _made_up_for_max(schedule: Schedule) -> int:
    policy = schedule.misfire_policy
    if isinstance(policy, CatchUpMisfires):
        return min(policy.max_runs, CATCH_UP_MAX)
    return 1 if isinstance(policy, RunOnceAfterMisfires) else 0


def fire(row: StoredAutomation, plan: FiringPlan, *, now_ms: int) -> StoredAutomation:
    """Return the row of an automation whose plan is carried out."""
    return msgspec.structs.replace(
        row,
        fired_until_ms=plan.until_ms,
        next_fire_at_ms=plan.next_fire_at_ms,
        last_fired_at_ms=now_ms if plan.due_at_ms else row.last_fired_at_ms,
        deferred_at_ms=None,
        deferred_by=None,
    )


def put_off(row: StoredAutomation, run_no: int, *, now_ms: int) -> StoredAutomation:
    """Return the row of an automation whose firing waits for the end of a run.

    It is not due for anybody until then; since when it waits stays when the next run holds it, too.
    """
    since_ms = now_ms if row.deferred_at_ms is None else row.deferred_at_ms
    return msgspec.structs.replace(row, deferred_at_ms=since_ms, deferred_by=run_no)


def firings_of(
    plan: FiringPlan,
    run_ids: tuple[RunId, ...],
    *,
    trigger_type: str,
    refusal: tuple[str, str] | None,
    change_id: ChangeId,
    now_ms: int,
) -> tuple[Firing, ...]:
    """Return the records of a plan that is carried out: one for each run, or why there is none.

    Args:
        plan: of a schedule.
        run_ids: one for each occurrence that is due; not looked at when there is a refusal.
        trigger_type: of the runs.
        refusal: code and reason when no run can be created.
        change_id: of this change.
        now_ms: the moment.
    """
    if plan.problem:
        refusal = (SCHEDULE_INVALID, plan.problem)
    due = plan.due_at_ms or ((plan.until_ms,) if plan.problem or plan.missed else ())
    outcome = FiringOutcome.CREATED
    if refusal is not None:
        outcome = FiringOutcome.REFUSED
    elif not plan.due_at_ms:
        outcome = FiringOutcome.MISSED
    code, reason = refusal or ("", "")
    return tuple(
        Firing(
            occurrence=f"at:{due_at_ms}",
            trigger_type=trigger_type,
            due_at_ms=due_at_ms,
            decided_at_ms=now_ms,
            outcome=outcome,
            run_id=run_ids[index] if outcome is FiringOutcome.CREATED else None,
            code=code,
            reason=reason,
            missed=plan.missed - (not plan.due_at_ms) if index == 0 else 0,
            change_id=change_id,
        )
        for index, due_at_ms in enumerate(due)
    )


def undecided(firings: tuple[Firing, ...], known: Container[str]) -> tuple[Firing, ...]:
    """Return the records without those of occurrences that were decided before."""
    return tuple(firing for firing in firings if firing.occurrence not in known)


def schedule_of(row: StoredAutomation) -> Schedule:
    """Return the schedule of the current version; one that only people start when none is known.

    Raises:
        ValueError: what is stored cannot be read.
    """
    return Schedule.model_validate_json(row.schedule) if row.schedule else Schedule()


def upcoming(row: StoredAutomation, *, limit: int) -> tuple[int, ...]:
    """Return when an automation fires next by itself; the first may be over when it is put off.

    Raises:
        ValueError: its schedule is wrong.
    """
    timing = timing_of(schedule_of(row))
    first_ms = row.next_fire_at_ms
    if timing is None or first_ms is None or row.fired_until_ms is None:
        return ()
    later = series(timing, first_ms, origin_ms=row.fired_until_ms, limit=limit - 1)
    return (first_ms, *later)


def reschedule(
    before: StoredAutomation | None, change: AutomationChange, *, now_ms: int
) -> AutomationChange:
    """Return the change of an automation with what it means for its next firing.

    An automation that becomes active, or gets another timing, begins anew: it fires at the first
    occurrence after now. An interval whose timing is the same stays on its grid. What fell due
    while it was not active was not missed.

    The watermark never goes back with a clock that was set back, or an instant would come twice.
    Only an automation that is restored begins at the clock of now: that mends a schedule which a
    wrong clock sent far ahead.
    """
    after = change.row
    if not _fires(after):
        row = msgspec.structs.replace(
            after, next_fire_at_ms=None, deferred_at_ms=None, deferred_by=None
        )
        return msgspec.structs.replace(change, row=row)
    try:
        schedule = schedule_of(after)
        timing = timing_of(schedule)
        is_same = before is not None and has_same_timing(schedule_of(before), schedule)
    except ValueError:
        # Whatever saves it checks it first; the next look records what is wrong.
        timing, is_same = None, False
    if is_same and before is not None and _fires(before):
        return change
    until_ms = max(now_ms, after.fired_until_ms or 0)
    if is_same and timing is not None and after.fired_until_ms is not None:
        fell = timing.newest_until(now_ms, origin_ms=after.fired_until_ms, limit=1)
        until_ms = max((after.fired_until_ms, *fell.newest_ms))
    if before is not None and before.is_deleted:
        until_ms = min(until_ms, now_ms)
    row = msgspec.structs.replace(
        after,
        fired_until_ms=until_ms if timing is not None else after.fired_until_ms,
        next_fire_at_ms=_first(timing, now_ms, origin_ms=until_ms),
        deferred_at_ms=None,
        deferred_by=None,
    )
    return msgspec.structs.replace(change, row=row)


def _fires(row: StoredAutomation) -> bool:
    return row.status is AutomationStatus.ACTIVE and not row.is_deleted


def _first(timing: Timing | None, now_ms: int, *, origin_ms: int) -> int | None:
    if timing is None:
        return None
    return timing.first_after(max(now_ms, origin_ms), origin_ms=origin_ms)
