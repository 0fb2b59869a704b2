"""Engines that learn from ended runs, and reviews that hold new ones."""

from pathlib import Path

import pytest

from tandem.domain.candidate import CandidateKind, CandidateStatus, ReviewAction
from tandem.domain.change import Change
from tandem.domain.command import Cancel
from tandem.domain.errors import NotFound, Refused
from tandem.domain.ids import LOCAL_TENANT, AutomationId, TenantId
from tandem.domain.learning import LearningPolicy
from tandem.domain.lifecycle import RunState
from tandem.domain.run import QueueReason
from tandem.domain.view import RunView
from tandem.engine.limits import Limits
from tandem.ports.learning import CandidateFilter
from tandem.testing.builders import automation, python_node
from tandem.testing.loop import Process
from tests.small_world import SmallWorld

SIMULATED = AutomationId("simulated")
ONE = automation(python_node("a"))


@pytest.fixture
def world(tmp_path: Path) -> SmallWorld:
    return SmallWorld(tmp_path / "tandem.db")


def due(world: SmallWorld) -> int:
    return len(world.store.list_learning_due(limit=100))


def candidates(world: SmallWorld) -> list[CandidateKind]:
    found = world.store.list_candidates(CandidateFilter(tenant=LOCAL_TENANT))
    return [candidate.kind for candidate in found]


def test_an_engine_that_dies_after_an_end_leaves_the_lesson_to_another(world: SmallWorld) -> None:
    async def story() -> None:
        process = Process("first")
        first = world.engine(process)

        def die_at_the_end(view: RunView, change: Change) -> None:
            process.is_alive = view.run.status is not RunState.COMPLETED

        first.listen(die_at_the_end)
        run_id = await world.start(first, ONE)
        world.loop.spawn(process, world.live(first), name="first")
        await world.until_status(run_id, RunState.COMPLETED)
        await world.clock.sleep(5)
        assert due(world) == 1
        async with world.engine(Process("second")):
            await world.until(lambda: due(world) == 0)
        assert candidates(world) == [CandidateKind.MEMORY_FACT]
        assert world.row(run_id).learning_summary is not None

    world.tell(story())


def test_an_engine_that_leaves_learns_from_its_own_runs_first(world: SmallWorld) -> None:
    async def story() -> None:
        told: list[str] = []
        engine = world.engine()
        engine.listen(lambda view, change: None, learned=lambda view: told.append(view.run.run_id))
        async with engine:
            run_id = await world.start(engine, ONE)
            await world.until_status(run_id, RunState.COMPLETED)
        assert due(world) == 0
        assert told == [run_id]

    world.tell(story())


def test_a_review_refuses_creation_and_holds_claims_until_it_is_acknowledged(
    world: SmallWorld,
) -> None:
    async def story() -> None:
        idle = world.engine(Process("idle"))
        await idle.enrol(SIMULATED, runs_max=1)
        first = await world.start(idle, ONE)
        second = await world.start(idle, ONE)
        await idle.execute(first, Cancel())  # an end like any other
        with pytest.raises(Refused, match="is to be reviewed") as refused:
            await world.start(idle, ONE)
        assert refused.value.code == "review_required"
        other = automation(python_node("a")).model_copy(update={"automation_id": "another"})
        free = await world.start(idle, other)

        async with world.engine():
            await world.until_status(free, RunState.COMPLETED)
            await world.until(lambda: world.row(second).queue_reason is not None)
            held = world.row(second)
            assert held.queue_reason is QueueReason.REVIEW_REQUIRED
            assert held.resource_key == "review:local/simulated"
            reason = idle.why(second)
            assert reason.kind.value == "review_required"
            assert reason.freed_by == "`tandem governance acknowledge simulated`"
            await world.clock.sleep(5)  # the net under freed keys does not let it go
            assert world.row(second).status is RunState.QUEUED

            await world.until(lambda: "automation_review_requested" in world.kinds(first))
            await idle.acknowledge_review(SIMULATED, by="ada", note="looked")
            await world.until_status(second, RunState.COMPLETED)

    world.tell(story())


def test_more_held_runs_than_are_woken_at_once_all_go_on(world: SmallWorld) -> None:
    async def story() -> None:
        idle = world.engine(Process("idle"))
        await idle.enrol(SIMULATED, runs_max=1)
        runs = [await world.start(idle, ONE) for _ in range(40)]
        await idle.execute(runs[0], Cancel())
        async with world.engine():
            held = QueueReason.REVIEW_REQUIRED
            await world.until(lambda: all(world.row(r).queue_reason is held for r in runs[1:]))
            await idle.acknowledge_review(SIMULATED, by="ada", runs_max=0)
            for run_id in runs[1:]:
                await world.until_status(run_id, RunState.COMPLETED)

    world.tell(story())


def test_what_is_approved_is_told_to_later_runs_and_kept_on_them(world: SmallWorld) -> None:
    async def story() -> None:
        engine = world.engine()
        async with engine:
            first = await world.start(engine, ONE)
            await world.until_status(first, RunState.COMPLETED)
            await world.until(lambda: due(world) == 0)
            (fact,) = world.store.list_candidates(CandidateFilter(tenant=LOCAL_TENANT))
            with pytest.raises(NotFound):
                await engine.review_candidate(
                    fact.candidate_id, ReviewAction.APPROVE, by="eve", tenant=TenantId("other")
                )
            await engine.review_candidate(fact.candidate_id, ReviewAction.APPROVE, by="ada")
            second = await world.start(engine, ONE)
            await world.until_status(second, RunState.COMPLETED)
        told = world.row(second).learning_summary
        assert told is not None
        assert told.injected_learning_ids == (fact.candidate_id,)
        assert told.approved_learning_ids_considered == (fact.candidate_id,)
        (spec,) = [body.spec for body in world.bodies.all if body.spec.run_id == second]
        assert spec.learnings == (f"memory_fact: {fact.summary}",)
        earlier = [body.spec for body in world.bodies.all if body.spec.run_id == first]
        assert earlier[0].learnings == ()

    world.tell(story())


def test_what_is_applied_without_a_person_is_an_event_of_the_run(world: SmallWorld) -> None:
    async def story() -> None:
        policy = LearningPolicy(auto_apply=True, min_confidence=0.6, min_baseline_sample=1)
        engine = world.engine(limits=Limits(learning=policy))
        async with engine:
            run_id = await world.start(engine, ONE)
            await world.until(
                lambda: "workflow_learning_candidate_auto_applied" in world.kinds(run_id)
            )
        (fact,) = world.store.list_candidates(CandidateFilter(tenant=LOCAL_TENANT))
        assert fact.status is CandidateStatus.APPLIED
        assert fact.baseline_before is not None
        assert world.row(run_id).status is RunState.COMPLETED

    world.tell(story())
