"""The promises of `ports.triggers` and `ports.backlog`, as tests that every store must pass.

Used as `StoreSuite` is; the fixture is the same.
"""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from tandem.domain.automation_keeping import DeleteAutomation, PauseAutomation, Save
from tandem.domain.backlog import ClaimTask, Projection, RequeueTask, TaskStatus, TaskText
from tandem.domain.command import Cancel, Pause
from tandem.domain.creation import NewRun
from tandem.domain.errors import NotFound, Refused, StoreUnavailable
from tandem.domain.firing import Fired, FiringOutcome, FiringPlan, plan_firing
from tandem.domain.handoff import ConsumedHandoff, Handoff, Taken
from tandem.domain.ids import LOCAL_TENANT, ChangeId, RunId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Run
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.trigger import TriggerType
from tandem.ports.store import RunFilter
from tandem.testing.automation_suite import JOB, Keeper
from tandem.testing.store_suite import (
    ENGINE_A,
    NOW_MS,
    OTHER_TENANT,
    CommitFault,
    OpenStore,
    chain,
    plan_of,
)

MINUTE = 60_000
GRACE = 5_000
FIRINGS_KEPT = 1_000
SCHEDULE = (
    '{"interval_seconds":60,"misfire_policy":{"max_runs":3,"type":"catch_up"},'
    '"timezone":"UTC","type":"interval"}'
)


class Timer:
    """One store with the automation `job`, which fires each minute."""

    def __init__(self, store_of: OpenStore, fault: CommitFault | None = None) -> None:
        self.keeper = Keeper(store_of, fault)
        self.store = self.keeper.store
        self.scene = self.keeper.scene
        self._made = 0

    async def save(self, length: int = 1, *, schedule: str = SCHEDULE) -> StoredAutomation:
        """Save the automation; it is watching, too."""
        plan, document = plan_of(chain(length))
        command = Save(
            definition_digest=plan.digest,
            name="Job",
            creator_id="ann",
            schedule=schedule,
            is_watching=True,
        )
        return (await self.keeper.ask(command, document=document))[0].row

    @property
    def row(self) -> StoredAutomation:
        """The automation as it is now."""
        row = self.store.find_automation(JOB, tenant=LOCAL_TENANT)
        assert row is not None
        return row

    def new_run(self, **fields: str) -> NewRun:
        """Return a run of the automation that is about to be created."""
        self._made += 1
        plan, document = plan_of(chain(1))
        return NewRun(
            run_id=RunId(f"run-{self._made}"),
            tenant=LOCAL_TENANT,
            change_id=ChangeId(f"made-{self._made}"),
            plan=plan,
            document=document,
            inputs={},
            workspace="",
            automation_version=1,
            **fields,  # type: ignore[arg-type] # texts of the fields that tests give
        )

    def due(self, minutes: int) -> FiringPlan:
        """Return the plan at so many minutes after the save."""
        plan = plan_firing(self.row, grace_ms=GRACE, now_ms=NOW_MS + minutes * MINUTE)
        assert plan is not None
        return plan

    async def fire(
        self,
        minutes: int,
        *,
        row: StoredAutomation | None = None,
        plan: FiringPlan | None = None,
        refusal: tuple[str, str] | None = None,
    ) -> Fired:
        """Fire at so many minutes after the save."""
        plan = plan or self.due(minutes)
        scheduled = {"trigger_type": TriggerType.SCHEDULED}
        runs = [] if refusal else [self.new_run(**scheduled) for _ in plan.due_at_ms]
        return await self.store.fire(
            row or self.row,
            plan,
            runs,
            refusal=refusal,
            change_id=self.scene.change_id(),
            now_ms=NOW_MS + minutes * MINUTE,
        )

    async def take(
        self,
        handoff: Handoff,
        *,
        row: StoredAutomation | None = None,
        refusal: tuple[str, str] | None = None,
    ) -> Taken:
        """Take a handoff."""
        new = self.new_run(
            trigger_type=TriggerType.WATCH_CONDITION,
            trigger_reason=handoff.words,
            consumed_handoff_id=handoff.handoff_id,
        )
        return await self.store.take_handoff(
            row or self.row,
            handoff,
            None if refusal else new,
            consumed=ConsumedHandoff(
                tenant=LOCAL_TENANT,
                automation_id=JOB,
                handoff_id=handoff.handoff_id,
                handed_over_at_ms=handoff.created_at_ms,
                fingerprint=handoff.fingerprint,
                run_id=new.run_id,
                consumed_at_ms=NOW_MS,
                workspace="/w",
                file="approved/h.json",
                archived_dir="archived",
            ),
            refusal=refusal,
            change_id=self.scene.change_id(),
            now_ms=NOW_MS,
        )

    def runs(self) -> Sequence[Run]:
        """Return all runs of the automation, oldest first."""
        chosen = RunFilter(tenant=LOCAL_TENANT, automation_id=JOB)
        return list(reversed(self.store.list_runs(chosen)))

    def is_due(self, minutes: int) -> bool:
        """Say whether the schedule is due at so many minutes after the save."""
        found = self.store.list_due_automations(now_ms=NOW_MS + minutes * MINUTE, limit=10)
        return [row.automation_id for row in found] == [JOB]

    async def end(self, run_id: RunId) -> None:
        """End a run."""
        await self.scene.execute(run_id, Cancel(reason="enough"))


def handoff_of(handoff_id: str = "h1", created_at_ms: int = 5, metadata: object = None) -> Handoff:
    """Return a handoff for the automation."""
    return Handoff(
        handoff_id=handoff_id,
        source_automation_id="source",
        source_run_id="r",
        source_node_id="n",
        target_automation_id=JOB,
        artifact_type="batch",
        created_at_ms=created_at_ms,
        metadata=metadata,
    )


def tasks_of(*names: str, attempt: int = 1) -> Projection:
    """Return what an attempt of the first node puts up."""
    texts = tuple(TaskText(name=name, title=name, node_id="n0") for name in names)
    return Projection(node_no=0, attempt=attempt, tasks=texts)


class TriggerSuite:
    """What every store does with schedules, handoffs and tasks."""

    async def test_schedule_is_due_at_its_moment_and_fires_once(
        self, open_store: OpenStore
    ) -> None:
        """The watermark moves with the run, and the run says what started it."""
        timer = Timer(open_store)
        await timer.save()
        assert not timer.is_due(0)
        assert timer.is_due(1)
        fired = await timer.fire(1)
        (run,) = timer.runs()
        assert fired.run_ids == (run.run_id,)
        assert (run.trigger_type, run.status, run.automation_version) == (
            "scheduled",
            RunState.QUEUED,
            1,
        )
        assert not timer.is_due(1)
        assert timer.row == fired.row
        assert timer.row.last_fired_at_ms == NOW_MS + MINUTE
        (firing,) = timer.store.list_firings(timer.row, limit=10)
        assert (firing.occurrence, firing.outcome, firing.run_id) == (
            f"at:{NOW_MS + MINUTE}",
            FiringOutcome.CREATED,
            run.run_id,
        )

    async def test_of_two_that_fire_the_same_occurrence_one_does(
        self, open_store: OpenStore
    ) -> None:
        """The loser writes nothing, whether it comes at once or later."""
        timer = Timer(open_store)
        row = await timer.save()
        plan = timer.due(1)
        fired = await asyncio.gather(*(timer.fire(1, row=row, plan=plan) for _ in range(4)))
        assert [each.row is not None for each in fired].count(True) == 1
        assert len(timer.runs()) == 1
        assert (await timer.fire(2, row=row, plan=plan)).row is None
        assert len(timer.runs()) == 1

    async def test_instant_that_a_wrong_clock_brings_again_has_its_run_already(
        self, open_store: OpenStore
    ) -> None:
        """It starts nothing, keeps its record, and does not hold up the next one."""
        timer = Timer(open_store)
        await timer.save()
        first = await timer.fire(1)
        await timer.end(first.run_ids[0])
        await timer.keeper.ask(DeleteAutomation(by="ann"))
        await timer.save()  # by a clock that was set back to the first save
        again = await timer.fire(1)
        assert (again.run_ids, again.firings) == ((), ())
        assert again.row == timer.row
        assert not timer.is_due(1)
        assert len(timer.runs()) == 1
        assert len((await timer.fire(2)).run_ids) == 1
        firings = timer.store.list_firings(timer.row, limit=9)
        assert {firing.run_id for firing in firings} == {run.run_id for run in timer.runs()}

    async def test_each_missed_firing_has_its_run_in_the_same_transaction(
        self, open_store: OpenStore
    ) -> None:
        """All of them, or none when the commit fails."""
        fault = CommitFault()
        timer = Timer(open_store, fault)
        await timer.save()
        fault.arm("before", times=3)
        with pytest.raises(StoreUnavailable):
            await timer.fire(5)
        fault.arm("", times=0)
        assert (timer.runs(), timer.is_due(5)) == ([], True)
        assert timer.store.list_firings(timer.row, limit=10) == []
        await timer.fire(5)
        assert len(timer.runs()) == 3
        newest, *_, oldest = timer.store.list_firings(timer.row, limit=10)
        assert (newest.due_at_ms, oldest.due_at_ms, oldest.missed) == (
            NOW_MS + 5 * MINUTE,
            NOW_MS + 3 * MINUTE,
            2,
        )

    async def test_firing_whose_commit_seemed_to_fail_is_not_lost(
        self, open_store: OpenStore
    ) -> None:
        """What took effect is told as done."""
        fault = CommitFault()
        timer = Timer(open_store, fault)
        await timer.save()
        fault.arm("after")
        fired = await timer.fire(1)
        assert fired.run_ids == tuple(run.run_id for run in timer.runs())
        fault.arm("after")
        assert (await timer.fire(2)).put_off_by == timer.runs()[0].run_id
        assert timer.row.deferred_by is not None

    async def test_open_run_puts_the_firing_off_until_it_has_ended(
        self, open_store: OpenStore
    ) -> None:
        """Whatever the run waits for; a run that is put off hides no other automation."""
        timer = Timer(open_store)
        await timer.save()
        (run_id,) = (await timer.fire(1)).run_ids
        (claimed,) = await timer.scene.attempt_claim(ENGINE_A, now_ms=NOW_MS + MINUTE)
        await timer.scene.execute(run_id, Pause(reason="wait"))
        assert claimed.is_taken
        put_off = await timer.fire(2)
        assert (put_off.put_off_by, put_off.firings) == (run_id, ())
        assert timer.row.deferred_at_ms == NOW_MS + 2 * MINUTE
        assert timer.store.find_open_run(JOB, tenant=LOCAL_TENANT) == run_id
        assert not timer.is_due(9)
        await timer.end(run_id)
        assert timer.store.find_open_run(JOB, tenant=LOCAL_TENANT) is None
        assert timer.is_due(9)
        assert len((await timer.fire(9)).run_ids) == 3
        assert timer.row.deferred_at_ms is None

    async def test_run_of_another_tenant_or_of_a_file_puts_nothing_off(
        self, open_store: OpenStore
    ) -> None:
        """Only runs of the stored automation count."""
        timer = Timer(open_store)
        await timer.save()
        other = timer.new_run()
        await timer.store.create_run(
            msgspec.structs.replace(other, automation_version=None), now_ms=NOW_MS
        )
        foreign = msgspec.structs.replace(
            timer.new_run(), tenant=OTHER_TENANT, automation_version=None
        )
        await timer.store.create_run(foreign, now_ms=NOW_MS)
        assert (await timer.fire(1)).put_off_by is None

    async def test_refusal_is_recorded_and_the_next_occurrence_is_tried(
        self, open_store: OpenStore
    ) -> None:
        """A review that is open, or what could not be prepared, with code and words."""
        timer = Timer(open_store)
        await timer.save()
        fired = await timer.fire(1, refusal=("input_missing", "no value for `a`"))
        assert (fired.run_ids, timer.runs()) == ((), [])
        (firing,) = timer.store.list_firings(timer.row, limit=10)
        assert (firing.outcome, firing.code, firing.reason) == (
            FiringOutcome.REFUSED,
            "input_missing",
            "no value for `a`",
        )
        await timer.store.enrol(JOB, tenant=LOCAL_TENANT, runs_max=1, now_ms=NOW_MS)
        (run_id,) = (await timer.fire(2)).run_ids
        await timer.end(run_id)
        assert (await timer.fire(3)).run_ids == ()
        newest = timer.store.list_firings(timer.row, limit=1)[0]
        assert (newest.outcome, newest.code) == (FiringOutcome.REFUSED, "review_required")
        assert timer.row.next_fire_at_ms == NOW_MS + 4 * MINUTE

    async def test_changed_automation_is_not_fired_by_what_was_read_before(
        self, open_store: OpenStore
    ) -> None:
        """A pause or another schedule wins over a plan that was made before it."""
        timer = Timer(open_store)
        row = await timer.save()
        plan = timer.due(1)
        await timer.keeper.ask(PauseAutomation(by="eve"))
        assert (await timer.fire(1, row=row, plan=plan)).row is None
        assert timer.runs() == []
        assert not timer.is_due(9)

    async def test_only_the_newest_firings_are_kept(self, open_store: OpenStore) -> None:
        """Each automation has so many, and pages of them."""
        timer = Timer(open_store)
        await timer.save()
        refusal = ("input_missing", "none")
        for minute in range(1, FIRINGS_KEPT + 3):
            await timer.fire(minute, refusal=refusal)
        found = timer.store.list_firings(timer.row, limit=FIRINGS_KEPT + 5)
        assert len(found) == FIRINGS_KEPT
        assert found[0].due_at_ms == NOW_MS + (FIRINGS_KEPT + 2) * MINUTE
        rest = timer.store.list_firings(timer.row, before_no=found[1].firing_no, limit=1)
        assert rest == found[2:3]

    async def test_handoff_has_one_run_however_often_it_is_taken(
        self, open_store: OpenStore
    ) -> None:
        """At once or later, also when the run has ended and is deleted."""
        timer = Timer(open_store)
        await timer.save()
        taken = await asyncio.gather(*(timer.take(handoff_of()) for _ in range(3)))
        (run,) = timer.runs()
        assert [each.is_new for each in taken].count(True) == 1
        assert {each.consumed.run_id for each in taken if each.consumed} == {run.run_id}
        assert (run.trigger_type, run.consumed_handoff_id, run.trigger_reason) == (
            "watch_condition",
            "h1",
            handoff_of().words,
        )
        await timer.end(run.run_id)
        await timer.store.delete_run(run.run_id, tenant=LOCAL_TENANT)
        again = await timer.take(handoff_of())
        assert (again.is_new, timer.runs()) == (False, [])
        assert (await timer.take(handoff_of(created_at_ms=6))).is_new

    async def test_handoffs_of_one_id_and_moment_that_say_different_things_have_a_run_each(
        self, open_store: OpenStore
    ) -> None:
        """The clock of whoever makes them may be coarse; a copy of either starts nothing."""
        timer = Timer(open_store)
        await timer.save()
        for batch in (1, 2, 1, 2):
            taken = await timer.take(handoff_of(metadata={"batch": batch}))
            assert taken.consumed is not None
            if taken.is_new:
                await timer.end(taken.consumed.run_id)
        assert len(timer.runs()) == 2
        firings = timer.store.list_firings(timer.row, limit=10)
        assert {firing.run_id for firing in firings} == {run.run_id for run in timer.runs()}

    async def test_handoff_waits_for_the_end_of_an_open_run(self, open_store: OpenStore) -> None:
        """Nothing is written of it until then."""
        timer = Timer(open_store)
        await timer.save()
        first = await timer.take(handoff_of())
        assert first.consumed is not None
        second = await timer.take(handoff_of("h2"))
        assert (second.consumed, second.put_off_by) == (None, first.consumed.run_id)
        await timer.end(first.consumed.run_id)
        assert (await timer.take(handoff_of("h2"))).is_new

    async def test_refused_handoff_is_recorded_and_taken_later(self, open_store: OpenStore) -> None:
        """One record tells where it is now."""
        timer = Timer(open_store)
        await timer.save()
        for reason in ("none", "still none"):
            taken = await timer.take(handoff_of(), refusal=("input_missing", reason))
            assert (taken.code, taken.reason, taken.consumed) == ("input_missing", reason, None)
        (firing,) = timer.store.list_firings(timer.row, limit=10)
        assert (firing.outcome, firing.reason) == (FiringOutcome.REFUSED, "still none")
        assert (await timer.take(handoff_of())).is_new
        (firing,) = timer.store.list_firings(timer.row, limit=10)
        assert (firing.outcome, firing.trigger_type) == (FiringOutcome.CREATED, "watch_condition")

    async def test_handoff_of_a_changed_automation_is_looked_at_again(
        self, open_store: OpenStore
    ) -> None:
        """What was read before a pause takes nothing."""
        timer = Timer(open_store)
        row = await timer.save()
        assert [r.automation_id for r in timer.store.list_watching(after_no=0, limit=9)] == [JOB]
        await timer.keeper.ask(PauseAutomation(by="eve"))
        assert (await timer.take(handoff_of(), row=row)) == Taken()
        assert timer.store.list_watching(after_no=0, limit=9) == []

    async def test_taken_handoff_is_to_be_archived_once(self, open_store: OpenStore) -> None:
        """Whoever looks sees it until somebody has moved its file."""
        fault = CommitFault()
        timer = Timer(open_store, fault)
        await timer.save()
        fault.arm("after")
        taken = await timer.take(handoff_of())
        (left,) = timer.store.list_unarchived(after_no=0, limit=9)
        assert left == taken.consumed
        for _ in range(2):
            await timer.store.mark_archived(left.consumed_no, now_ms=NOW_MS)
        assert timer.store.list_unarchived(after_no=0, limit=9) == []

    async def test_tasks_are_put_up_once_and_claimed_by_one(self, open_store: OpenStore) -> None:
        """Projecting and a command are one transaction; of two claims one is refused."""
        timer = Timer(open_store)
        run = await timer.store.create_run(timer_run(timer), now_ms=NOW_MS)

        async def claim(token: str) -> str:
            command = ClaimTask(task_id="backlog-n0-one", lease_token=token)
            try:
                change = await timer.store.tend_backlog(
                    run.run_id,
                    tenant=LOCAL_TENANT,
                    projections=[tasks_of("one", "two")],
                    command=command,
                    node_ids=["n0"],
                    now_ms=NOW_MS,
                )
            except Refused as refused:
                return refused.code
            assert change.task is not None
            return change.task.lease_token

        answers = sorted(await asyncio.gather(claim("a"), claim("b")))
        assert answers[0] == "AUTOMATION_V2_BACKLOG_TASK_NOT_CLAIMABLE"
        backlog, attempts = timer.store.read_backlog(run)
        assert attempts == {0: 1}
        assert [(task.task_id, task.status, task.lease_token) for task in backlog.tasks] == [
            ("backlog-n0-one", TaskStatus.IN_PROGRESS, answers[1]),
            ("backlog-n0-two", TaskStatus.RUNNABLE, ""),
        ]
        records = timer.store.list_task_records(run, after_seq=0, limit=9)
        assert [record.seq for record in records] == [1, 2, 3]
        assert backlog.revision == 3

    async def test_older_attempt_and_refused_command_change_no_task(
        self, open_store: OpenStore
    ) -> None:
        """A command that is refused takes the projection with it."""
        timer = Timer(open_store)
        run = await timer.store.create_run(timer_run(timer), now_ms=NOW_MS)

        async def tend(projection: Projection, task_id: str = "") -> None:
            await timer.store.tend_backlog(
                run.run_id,
                tenant=LOCAL_TENANT,
                projections=[projection],
                command=RequeueTask(task_id=task_id) if task_id else None,
                node_ids=["n0"],
                now_ms=NOW_MS,
            )

        with pytest.raises(NotFound):
            await tend(tasks_of("one"), "none")
        assert timer.store.read_backlog(run)[0].tasks == ()
        await tend(tasks_of("new", attempt=2))
        await tend(tasks_of("old", attempt=1))
        backlog, attempts = timer.store.read_backlog(run)
        assert ([task.task.name for task in backlog.tasks], attempts) == (["new"], {0: 2})
        await timer.end(run.run_id)
        await timer.store.delete_run(run.run_id, tenant=LOCAL_TENANT)
        assert timer.store.read_backlog(run)[0].tasks == ()
        with pytest.raises(NotFound):
            await tend(tasks_of("one"))


def timer_run(timer: Timer) -> NewRun:
    """Return a run that is of no stored automation."""
    return msgspec.structs.replace(timer.new_run(), automation_version=None)
