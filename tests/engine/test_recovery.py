"""Engines that stop, die, stand still or lose their store; told in simulated time."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import apsw
import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.change import Change
from tandem.domain.command import Cancel, Claim, LossPolicy, Pause
from tandem.domain.driving import advance
from tandem.domain.errors import EngineError, StoreUnavailable
from tandem.domain.ids import LOCAL_TENANT, EngineId, RunId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.view import RunView
from tandem.engine.drives import Drives
from tandem.engine.engine import Engine
from tandem.engine.limits import Limits
from tandem.engine.recovery import RecoveryLimits
from tandem.ports.store import EngineRow
from tandem.testing.builders import automation, python_node
from tandem.testing.executor import Script
from tandem.testing.loop import Process
from tests.small_world import SmallWorld

S = RunState
CHAIN = automation(python_node("a"), python_node("b", "a"))
ONE = automation(python_node("a", retry_policy={"max_attempts": 3}))
STALE_MS = 5_000
QUICK = Limits(lease_ms=3_000, recovery=RecoveryLimits(stale_after_ms=STALE_MS))
FAIL = LossPolicy.FAIL


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Callable[[SmallWorld], Coroutine[Any, Any, None]]], None]:
    def tell_it(story: Callable[[SmallWorld], Coroutine[Any, Any, None]]) -> None:
        world = SmallWorld(tmp_path / "tandem.db")
        world.tell(story(world))

    return tell_it


Tell = Callable[[Callable[[SmallWorld], Coroutine[Any, Any, None]]], None]


async def running(world: SmallWorld, engine: Engine, *, lasts_ms: int, nodes: Any = CHAIN) -> RunId:
    """Start a run and wait until its first body is alive."""
    run_id = await world.start(engine, nodes, a=Script(duration_ms=lasts_ms))
    await world.until(lambda: any(body.spec.run_id == run_id for body in world.bodies.live))
    return run_id


# Leaving


def test_stopping_engine_lets_a_body_finish_and_starts_no_other(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        async with world.engine(limits=Limits(shutdown_grace_ms=30_000)) as engine:
            run_id = await running(world, engine, lasts_ms=2_000)
            waiting = await world.start(engine, ONE)
            await world.until_status(waiting, S.COMPLETED)
            engine.stop()
            assert engine.is_stopping
            late = await world.start(engine, ONE)
        assert world.row(run_id).status is S.QUEUED
        assert world.kinds(run_id)[-2:] == ["node_completed", "run_interrupted_shutdown"]
        assert world.row(late).status is S.QUEUED
        assert world.row(late).epoch == 0
        assert world.clock.ticks_ms() < 5_000
        assert world.store.list_engines() == []

    tell(story)


def test_body_that_takes_longer_than_the_grace_time_is_handed_back(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        async with world.engine(limits=Limits(shutdown_grace_ms=1_000)) as engine:
            run_id = await running(world, engine, lasts_ms=60_000)
        assert 1_000 <= world.clock.ticks_ms() < 2_000
        assert world.row(run_id).status is S.QUEUED
        assert world.kinds(run_id)[-2:] == ["node_interrupted", "run_interrupted_shutdown"]
        assert world.bodies.live == []

    tell(story)


def test_without_a_grace_time_an_engine_leaves_at_once(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        async with world.engine() as engine:
            run_id = await running(world, engine, lasts_ms=60_000)
        assert world.clock.ticks_ms() < 500
        assert world.row(run_id).status is S.QUEUED

    tell(story)


def test_policy_fail_fails_what_runs_at_the_stop_and_counts_it(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        limits = Limits(shutdown_policy=FAIL)
        async with world.engine(limits=limits) as engine:
            runs = [await running(world, engine, lasts_ms=60_000) for _ in range(2)]
            held = await running(world, engine, lasts_ms=60_000)
            await engine.execute(held, Pause(reason="lunch"))
            engine.stop()
            assert await engine.fail_running_runs_for_shutdown() == 2
        for run_id in runs:
            run = world.row(run_id)
            assert (run.status, run.stop_kind) == (S.FAILED, StopKind.SHUTDOWN)
            assert run.detail == "automation run stopped during server shutdown"
            assert world.kinds(run_id)[-1] == "run_failed_shutdown"
        assert world.row(held).status is S.PAUSED

    tell(story)


def test_policy_fail_gives_the_grace_time_first(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        limits = Limits(shutdown_policy=FAIL, shutdown_grace_ms=10_000)
        async with world.engine(limits=limits) as engine:
            short = await running(world, engine, lasts_ms=1_000, nodes=ONE)
            long = await running(world, engine, lasts_ms=60_000)
        assert world.row(short).status is S.COMPLETED
        assert world.row(long).status is S.FAILED

    tell(story)


def test_full_disk_holds_a_stopping_engine_up_for_a_while_only(tmp_path: Path) -> None:
    is_full = False

    def commit(connection: apsw.Connection) -> None:
        if is_full and connection.total_changes():
            raise apsw.FullError("full")
        connection.execute("COMMIT")

    world = SmallWorld(tmp_path / "tandem.db", commit)

    async def story() -> None:
        nonlocal is_full
        engine = world.engine(limits=Limits(shutdown_timeout_ms=4_000))
        async with engine:
            run_id = await running(world, engine, lasts_ms=60_000)
            is_full = True
        assert 4_000 <= world.clock.ticks_ms() < 10_000
        assert world.bodies.live == []
        assert any("can be resumed" in words for words in world.told)
        assert world.row(run_id).engine_id == engine.engine_id
        is_full = False
        async with world.engine() as other:
            await world.until(lambda: world.row(run_id).engine_id == other.engine_id)

    world.tell(story())


# The dead


async def dead_engine(world: SmallWorld, name: str = "dead") -> EngineId:
    """Return an engine of this machine that died."""
    row = EngineRow(
        engine_id=EngineId(name),
        host="machine",
        pid=1,
        version="0",
        lock_path="",
        started_at_ms=0,
        lease_until_ms=0,
    )
    await world.store.put_engine(row)
    return row.engine_id


def test_recovery_counts_what_ran_or_was_pausing(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        dead = await dead_engine(world)
        engine = world.engine()
        ran, pausing, waiting, stopped = [await world.start(engine, ONE) for _ in range(4)]
        for run_id in (ran, pausing, stopped):
            await engine.execute(run_id, Claim(engine_id=dead))
        await world.store.apply(first_step(world, engine, pausing, dead))
        await engine.execute(pausing, Pause(reason=""))
        await world.store.apply(first_step(world, engine, stopped, dead))
        await engine.execute(stopped, Cancel())

        assert await engine.recover() == 2
        assert await engine.recover() == 0
        assert world.row(ran).status is S.QUEUED
        assert world.row(pausing).status is S.PAUSED
        assert world.row(waiting).epoch == 0
        assert world.row(stopped).cleanup is None
        assert world.store.list_engines() == []

    tell(story)


def first_step(world: SmallWorld, engine: Engine, run_id: RunId, holder: EngineId) -> Any:
    """Return the change by which the holder of a run starts its first node."""
    change = advance(
        world.store.read(run_id, tenant=LOCAL_TENANT),
        settled=(),
        engine_id=holder,
        change_id=engine.new_change_id(),
        now_ms=world.clock.now_ms(),
    )
    assert change is not None
    return change


def test_policy_fail_fails_what_a_dead_engine_ran(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        dead = await dead_engine(world)
        engine = world.engine(limits=Limits(recovery=RecoveryLimits(restart_policy=FAIL)))
        run_id = await world.start(engine, ONE)
        await engine.execute(run_id, Claim(engine_id=dead))
        await world.store.apply(first_step(world, engine, run_id, dead))
        assert await engine.recover() == 1
        run = world.row(run_id)
        assert (run.status, run.stop_kind) == (S.FAILED, StopKind.SERVER_RESTART)
        assert run.detail == "automation run interrupted by server restart"

    tell(story)


def test_person_who_resumes_is_not_told_that_the_run_failed(tell: Tell) -> None:
    """`tandem resume` means what it says, whatever the policy of engines is."""

    async def story(world: SmallWorld) -> None:
        dead = await dead_engine(world)
        engine = world.engine(limits=Limits(recovery=RecoveryLimits(restart_policy=FAIL)))
        run_id = await world.start(engine, ONE)
        await engine.execute(run_id, Claim(engine_id=dead))
        assert await engine.take_over(run_id)
        assert world.row(run_id).status is S.QUEUED

    tell(story)


def test_run_that_nobody_can_read_ends_and_holds_up_no_other(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        dead = await dead_engine(world)
        engine = world.engine()
        damaged = await world.start(engine, ONE)
        healthy = await world.start(engine, CHAIN)
        for run_id in (damaged, healthy):
            await engine.execute(run_id, Claim(engine_id=dead))
            await world.store.apply(first_step(world, engine, run_id, dead))
        connection = apsw.Connection(str(world.store.path))
        digest = world.row(damaged).definition_digest
        connection.execute("UPDATE definition SET document = '{' WHERE digest = ?", (digest,))
        connection.close()
        world.store._tables._plans.clear()

        assert await engine.recover() == 2
        run = world.row(damaged)
        assert (run.status, run.stop_kind) == (S.FAILED, StopKind.SERVER_RESTART)
        assert run.detail == "automation run interrupted by server restart; definition unreadable"
        assert world.kinds(damaged)[-2:] == ["node_interrupted", "run_failed_server_restart"]
        assert world.row(healthy).status is S.QUEUED
        assert world.store.list_engines() == []

    tell(story)


def test_run_that_cannot_be_freed_is_told_once_and_holds_up_no_other(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: SmallWorld) -> None:
        dead = await dead_engine(world)
        engine = world.engine()
        stuck, free = [await world.start(engine, ONE) for _ in range(2)]
        for run_id in (stuck, free):
            await engine.execute(run_id, Claim(engine_id=dead))
            await world.store.apply(first_step(world, engine, run_id, dead))
        executor = engine._recovery._executor
        end = executor.end_leftovers

        async def end_leftovers(*, engine_ids: Any, attempt_ids: Any) -> int:
            if any(stuck in name for name in attempt_ids):
                raise EngineError("a process does not die")
            return await end(engine_ids=engine_ids, attempt_ids=attempt_ids)

        monkeypatch.setattr(executor, "end_leftovers", end_leftovers)
        assert [await engine.recover() for _ in range(3)] == [1, 0, 0]
        assert world.row(free).status is S.QUEUED
        assert world.row(stuck).status is S.RUNNING
        assert [words for words in world.told if "does not die" in words] == [
            f"run {stuck} stays with engine dead: a process does not die"
        ]

    tell(story)


@pytest.mark.parametrize("is_done", [True, False])
def test_effects_probe_answers_for_the_person(tell: Tell, is_done: bool) -> None:
    async def story(world: SmallWorld) -> None:
        dead = await dead_engine(world)
        what = automation(python_node("a", effects="external", effects_probe=["is-it-done"]))
        async with world.engine() as engine:
            engine.stop()
            await asyncio.wait([engine._dispatching])
            run_id = await world.start(engine, what)
            await engine.execute(run_id, Claim(engine_id=dead))
            await world.store.apply(first_step(world, engine, run_id, dead))
            if is_done:
                world.bodies.successes[run_id, "a"] = "sent"
            await engine.recover()
        async with world.engine():
            await world.until_status(run_id, S.COMPLETED)
        kinds = world.kinds(run_id)
        assert kinds.count("node_started") == (1 if is_done else 2)
        assert "gate_opened" not in kinds
        assert "node_outcome_unknown" not in kinds

    tell(story)


# The silent


def test_silent_body_of_a_healthy_engine_is_never_reaped(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        async with world.engine(limits=QUICK) as engine, world.engine(limits=QUICK):
            run_id = await running(world, engine, lasts_ms=20 * STALE_MS)
            await world.until_status(run_id, S.COMPLETED)
        assert world.kinds(run_id).count("node_started") == 2
        assert world.row(run_id).reaped_at_ms is None

    tell(story)


def test_run_of_an_engine_that_stands_still_is_stopped_and_goes_on_by_itself(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        process = Process("hung")
        hung = world.engine(process, QUICK)
        run_id = await world.start(hung, ONE, a=Script(duration_ms=2_000))
        world.loop.spawn(process, world.live(hung), name="hung")
        await world.until(lambda: bool(world.bodies.live))
        process.is_frozen = True
        async with world.engine(limits=QUICK) as other:
            await world.until_status(run_id, S.PAUSED)
            run = world.row(run_id)
            assert run.pause_reason == "stale_no_provider_activity"
            assert run.cleanup == hung.engine_id
            assert world.kinds(run_id)[-1] == "run_paused_stale_no_provider_activity"
            # Its body may still live, so nobody runs the node again.
            await world.clock.sleep(20_000)
            assert world.row(run_id).status is S.PAUSED
            world.loop.thaw(process)
            await world.until_status(run_id, S.COMPLETED)
            assert len(world.bodies.all) == 2
            assert other.is_stopping is False
        kinds = world.kinds(run_id)
        assert kinds.index("run_processes_ended") < kinds.index("run_auto_resumed")
        process.is_alive = False

    tell(story)


def test_kill_switch_leaves_stale_runs_to_people(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        limits = Limits(
            lease_ms=3_000,
            recovery=RecoveryLimits(stale_after_ms=STALE_MS, auto_resume=False),
        )
        engine = world.engine(limits=limits)
        run_id = await world.start(engine, ONE)
        await engine.execute(run_id, Claim(engine_id=EngineId("nobody")))
        async with engine:
            await world.until_status(run_id, S.PAUSED)
            await world.clock.sleep(10_000)
            assert await engine._recovery.auto_resume() == 0
        assert world.row(run_id).status is S.PAUSED

    tell(story)


def test_body_does_not_start_when_its_run_was_lost_since_it_was_recorded(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        near, far = Process("near", "x"), Process("far", "y")
        holder = world.engine(near, QUICK)

        def freeze(_view: RunView, change: Change) -> None:
            near.is_frozen = near.is_frozen or bool(change.attempts_started)

        holder.listen(freeze)
        run_id = await world.start(holder, ONE, a=Script(duration_ms=30_000))
        world.loop.spawn(near, world.live(holder), name="near")
        async with world.engine(far, QUICK) as other:
            await world.until(lambda: world.row(run_id).engine_id == other.engine_id)
            assert world.row(run_id).epoch == 2
            world.loop.thaw(near)
            await world.until_status(run_id, S.COMPLETED)
        assert [body.process.name for body in world.bodies.all] == ["far"]
        near.is_alive = False

    tell(story)


# Losing the store


def store_that_is_away_for_longer_than_a_lease(tmp_path: Path) -> None:
    """Tell what an engine does whose store others share."""
    is_away = False

    def commit(connection: apsw.Connection) -> None:
        if is_away and connection.total_changes():
            raise apsw.IOError("away")
        connection.execute("COMMIT")

    world = SmallWorld(tmp_path / "tandem.db", commit)
    limits = Limits(lease_ms=3_000, store_is_shared=True)

    async def story() -> None:
        nonlocal is_away
        async with world.engine(limits=limits) as engine:
            run_id = await running(world, engine, lasts_ms=6_000, nodes=ONE)
            is_away = True
            await world.clock.sleep(3_000)
            assert world.bodies.live == []
            assert any("attempts are ended" in words for words in world.told)
            is_away = False
            await world.until_status(run_id, S.COMPLETED)
        assert "run_interrupted_shutdown" in world.kinds(run_id)
        assert world.row(run_id).epoch == 2

    world.tell(story())


def test_engine_whose_lease_is_over_ends_its_attempts_and_gives_the_run_back_later(
    tmp_path: Path,
) -> None:
    store_that_is_away_for_longer_than_a_lease(tmp_path)


def test_attempts_that_outlive_the_lease_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drives, "abandon", lambda _drives: None)
    with pytest.raises(AssertionError):
        store_that_is_away_for_longer_than_a_lease(tmp_path)


def test_store_of_one_host_that_is_away_costs_no_attempt(tmp_path: Path) -> None:
    is_away = False

    def commit(connection: apsw.Connection) -> None:
        if is_away and connection.total_changes():
            raise apsw.IOError("away")
        connection.execute("COMMIT")

    world = SmallWorld(tmp_path / "tandem.db", commit)

    async def story() -> None:
        nonlocal is_away
        async with world.engine(limits=Limits(lease_ms=3_000)) as engine:
            run_id = await running(world, engine, lasts_ms=6_000, nodes=ONE)
            is_away = True
            await world.clock.sleep(10_000)
            is_away = False
            await world.until_status(run_id, S.COMPLETED)
        assert len(world.bodies.all) == 1

    world.tell(story())


def test_what_was_written_is_not_told_as_a_failure_when_it_cannot_be_read_back(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine()
        engine.listen(lambda _view, _change: None)
        run_id = await world.start(engine, ONE)

        async def load(_self: SqliteStore, _run_id: RunId, *, tenant: str) -> None:
            raise StoreUnavailable(f"the disk of {tenant} cannot be read")

        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "load", load)
            await engine.execute(run_id, Pause())
        assert world.row(run_id).status is S.PAUSED

    tell(story)
