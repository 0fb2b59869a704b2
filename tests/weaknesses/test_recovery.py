"""Weaknesses of the original around crashes, leases and silent runs, and what ours does instead.

Each scenario is run twice: as it is, and with a mistake of the original put into our code, which
has to make it fail.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.domain import claiming, operating, reviving, staleness
from tandem.domain.command import (
    Adopt,
    AutoResume,
    Cancel,
    Claim,
    Command,
    Panic,
    ProcessesEnded,
    Reap,
    Recover,
    Resume,
)
from tandem.domain.decision import decide
from tandem.domain.draft import Draft
from tandem.domain.errors import Refused
from tandem.domain.ids import LOCAL_TENANT, ChangeId, EngineId, RunId, TenantId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.engine.driver import Driver
from tandem.engine.engine import Engine
from tandem.engine.leases import QuietWatch
from tandem.engine.limits import Limits
from tandem.engine.recovery import RecoveryLimits
from tandem.testing.builders import automation, python_node
from tandem.testing.executor import Script
from tandem.testing.host import SimulatedHost
from tandem.testing.loop import Process
from tandem.testing.tale import ENGINE, Tale
from tests.small_world import SmallWorld

S = RunState
STALE_MS = 5_000
LIMITS = Limits(lease_ms=3_000, recovery=RecoveryLimits(stale_after_ms=STALE_MS))
ONE_NODE = automation(python_node("a", retry_policy={"max_attempts": 3}))
SILENT = Script(duration_ms=40_000)
Patch = pytest.MonkeyPatch


def told(path: Path, story: Callable[[SmallWorld], Coroutine[Any, Any, None]]) -> None:
    """Tell a story of engines in simulated time."""
    world = SmallWorld(path / "tandem.db")
    world.tell(story(world))


# W-03: check, then act on what was checked, without looking again


def cancelled_between_the_look_and_the_resume(path: Path) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine(limits=LIMITS)
        run_id = await stale_run(world, engine)
        recovery = engine._recovery
        execute = recovery._execute

        async def late(run_id: RunId, command: Command, tenant: TenantId) -> Any:
            await engine.execute(run_id, Cancel())
            return await execute(run_id, command, tenant)

        recovery._execute = late
        assert await recovery.auto_resume() == 0
        assert world.row(run_id).status is S.CANCELLED

    told(path, story)


async def stale_run(world: SmallWorld, engine: Engine) -> RunId:
    """Return a run that was paused as stale; nobody drives it or holds its processes."""
    run_id = await world.start(engine, ONE_NODE)
    await engine.execute(run_id, Claim(engine_id=ENGINE))
    world.clock.jump_ms(STALE_MS)
    await engine.execute(run_id, reap_of(world, run_id))
    return run_id


def reap_of(world: SmallWorld, run_id: RunId) -> Reap:
    """Return the command of a sweep that has just looked at the run."""
    run = world.row(run_id)
    return Reap(
        stale_after_ms=STALE_MS,
        seen_change_id=run.last_change_id,
        seen_activity_at_ms=run.activity_at_ms,
    )


def acts_on_what_was_listed(patch: Patch) -> None:
    """Auto-resume does what it decided when it listed the run."""
    original = staleness.auto_resume

    def auto_resume(draft: Draft, command: AutoResume) -> None:
        draft.run.status, draft.run.stop_kind = S.PAUSED, StopKind.STALE_REAPED
        original(draft, command)

    patch.setattr(staleness, "auto_resume", auto_resume)


def test_w03_cancelled_run_is_not_resurrected(tmp_path: Path) -> None:
    cancelled_between_the_look_and_the_resume(tmp_path)


def test_w03_cancelled_run_is_not_resurrected_is_caught(tmp_path: Path, monkeypatch: Patch) -> None:
    acts_on_what_was_listed(monkeypatch)
    with pytest.raises(AssertionError):
        cancelled_between_the_look_and_the_resume(tmp_path)


def showing_life_between_the_look_and_the_reap() -> None:
    tale = Tale(python_node("a"), python_node("b", "a")).claim()
    tale.now_ms += STALE_MS
    run = tale.run
    look = Reap(
        stale_after_ms=STALE_MS,
        seen_change_id=run.last_change_id,
        seen_activity_at_ms=run.activity_at_ms,
    )
    tale.succeed("a")
    with suppress(Refused):
        tale.command(look)
    assert tale.status is S.RUNNING


def reaps_what_was_listed(patch: Patch) -> None:
    """The reaper does not look again."""
    original = staleness.reap

    def reap(draft: Draft, command: Reap) -> None:
        run = draft.run
        seen = msgspec.structs.replace(
            command, seen_change_id=run.last_change_id, seen_activity_at_ms=run.activity_at_ms
        )
        original(draft, msgspec.structs.replace(seen, stale_after_ms=0))

    patch.setattr(staleness, "reap", reap)


def test_w03_run_that_shows_life_is_not_reaped() -> None:
    showing_life_between_the_look_and_the_reap()


def test_w03_run_that_shows_life_is_not_reaped_is_caught(monkeypatch: Patch) -> None:
    reaps_what_was_listed(monkeypatch)
    with pytest.raises(AssertionError):
        showing_life_between_the_look_and_the_reap()


# W-04: no fence around what an executor writes


def driver_that_lost_its_run(path: Path) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine()
        async with engine:
            run_id = await world.start(engine, ONE_NODE, a=SILENT)
            await world.until(lambda: bool(world.bodies.live))
            other = EngineId("other")
            for number, command in enumerate(
                (Adopt(dead=engine.engine_id), Claim(engine_id=other))
            ):
                # Not through the engine, so that it is told nothing.
                await world.store.execute(
                    run_id,
                    command,
                    tenant=LOCAL_TENANT,
                    change_id=engine.new_change_id() + f"-{number}",  # type: ignore[arg-type] # a ChangeId
                    now_ms=world.clock.now_ms(),
                )
            seq = world.row(run_id).event_seq
            engine._woken()
            await world.clock.sleep(1_000)
            assert world.bodies.live == []
            await world.clock.sleep(60_000)
            assert world.row(run_id).event_seq == seq
            assert world.row(run_id).engine_id == other

    told(path, story)


def drivers_never_look_again(patch: Patch) -> None:
    """A driver keeps to the state that it once read."""

    async def reload(driver: Driver) -> None:
        driver._is_stale = False
        await asyncio.sleep(0)

    patch.setattr(Driver, "_reload", reload)


def test_w04_driver_that_lost_its_epoch_ends_its_attempts(tmp_path: Path) -> None:
    driver_that_lost_its_run(tmp_path)


def test_w04_driver_that_lost_its_epoch_is_caught(tmp_path: Path, monkeypatch: Patch) -> None:
    drivers_never_look_again(monkeypatch)
    with pytest.raises(AssertionError):
        driver_that_lost_its_run(tmp_path)


# W-12: recovery in a process that lives takes the runs of others for crashed


def recovery_beside_a_living_engine(path: Path) -> None:
    async def story(world: SmallWorld) -> None:
        first, second = world.engine(limits=LIMITS), world.engine(limits=LIMITS)
        async with first, second:
            run_id = await world.start(first, ONE_NODE, a=Script(duration_ms=4_000))
            await world.until(lambda: bool(world.bodies.live))
            assert [await first.recover(), await second.recover()] == [0, 0]
            assert len(world.store.list_engines()) == 2
            await world.until_status(run_id, S.COMPLETED)
        assert world.kinds(run_id).count("node_started") == 1

    told(path, story)


def everybody_else_is_dead(patch: Patch) -> None:
    """Recovery asks nobody whether they live."""
    patch.setattr(SimulatedHost, "is_dead", lambda *_args, **_more: True)


def test_w12_recovery_leaves_the_runs_of_the_living_alone(tmp_path: Path) -> None:
    recovery_beside_a_living_engine(tmp_path)


def test_w12_recovery_leaves_the_living_alone_is_caught(tmp_path: Path, monkeypatch: Patch) -> None:
    everybody_else_is_dead(monkeypatch)
    with pytest.raises(AssertionError):
        recovery_beside_a_living_engine(tmp_path)


# W-31: an old pause reason that works on in a later recovery


def recovery_after_an_old_stale_pause() -> None:
    once = {"max_attempts": 1}
    tale = Tale(python_node("a"), python_node("b", "a", retry_policy=once)).claim()
    tale.now_ms += STALE_MS
    run = tale.run
    tale.command(
        Reap(
            stale_after_ms=STALE_MS,
            seen_change_id=run.last_change_id,
            seen_activity_at_ms=run.activity_at_ms,
        )
    )
    tale.command(ProcessesEnded(engine_id=ENGINE))
    tale.command(Resume())
    tale.claim().succeed("a")
    tale.fail("b")
    tale.command(Recover())
    assert tale.run.pause_reason == ""
    assert tale.states() == {"a": "completed", "b": "pending"}


def pause_reasons_stay(patch: Patch) -> None:
    """Nothing clears the reason of a pause."""
    original = reviving.queue

    def queue(draft: Draft) -> None:
        reason = draft.run.pause_reason
        original(draft)
        draft.run.pause_reason = reason

    for module in (operating, reviving):
        patch.setattr(module, "queue", queue)


def test_w31_old_pause_reason_is_gone() -> None:
    recovery_after_an_old_stale_pause()


def test_w31_old_pause_reason_is_caught(monkeypatch: Patch) -> None:
    pause_reasons_stay(monkeypatch)
    with pytest.raises(AssertionError):
        recovery_after_an_old_stale_pause()


# W-35: a lease that is not renewed, and that nobody asks


def lease_of_an_engine_on_another_machine(path: Path) -> None:
    async def story(world: SmallWorld) -> None:
        near, far = Process("near", "x"), Process("far", "y")
        holder, other = world.engine(near, LIMITS), world.engine(far, LIMITS)
        run_id = await world.start(holder, ONE_NODE, a=SILENT)
        world.loop.spawn(near, world.live(holder), name="near")
        await world.until(lambda: bool(world.bodies.live))
        async with other:
            # As long as it lives it renews, however long its body is silent.
            await world.clock.sleep(20_000)
            assert world.row(run_id).epoch == 1
            near.is_frozen = True
            await world.clock.sleep(LIMITS.lease_ms + 1_500)
            assert world.row(run_id).engine_id == other.engine_id
            assert world.row(run_id).epoch == 2

    told(path, story)


def leases_are_never_renewed(patch: Patch) -> None:
    """The lease that an engine had at its start is all it ever has."""
    original = Engine._put_row
    entered: set[EngineId] = set()

    async def put_row(engine: Engine) -> None:
        if engine.engine_id not in entered:
            entered.add(engine.engine_id)
            await original(engine)

    patch.setattr(Engine, "_put_row", put_row)


def nobody_asks_a_lease(patch: Patch) -> None:
    """A run is never taken over because a lease is over."""
    patch.setattr(SimulatedHost, "can_see", lambda *_args: True)
    patch.setattr(SimulatedHost, "is_dead", lambda *_args, **_more: False)


def test_w35_lease_is_renewed_and_reclaimed_within_seconds(tmp_path: Path) -> None:
    lease_of_an_engine_on_another_machine(tmp_path)


@pytest.mark.parametrize("mutant", [leases_are_never_renewed, nobody_asks_a_lease])
def test_w35_lease_is_caught(
    tmp_path: Path, monkeypatch: Patch, mutant: Callable[[Patch], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        lease_of_an_engine_on_another_machine(tmp_path)


# W-37: a stale pause that can never end by itself, and clocks that are set


def stale_pause_between_two_nodes(path: Path) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine(limits=LIMITS)
        run_id = await stale_run(world, engine)
        assert world.row(run_id).status is S.PAUSED
        async with engine:
            await world.clock.sleep(3_000)
        assert world.row(run_id).status is S.COMPLETED
        assert "run_auto_resumed" in world.kinds(run_id)

    told(path, story)


def only_marked_nodes_count(patch: Patch) -> None:
    """A run without a node that is to be repaired does not go on."""

    def is_repairable(view: Any) -> bool:
        return any(node.failure is not None for node in view.nodes.values())

    patch.setattr(staleness, "_is_repairable", is_repairable)


def test_w37_stale_pause_without_a_node_in_progress_ends(tmp_path: Path) -> None:
    stale_pause_between_two_nodes(tmp_path)


def test_w37_stale_pause_is_caught(tmp_path: Path, monkeypatch: Patch) -> None:
    only_marked_nodes_count(monkeypatch)
    with pytest.raises(AssertionError):
        stale_pause_between_two_nodes(tmp_path)


def clock_that_is_set_while_a_silent_body_runs(path: Path) -> None:
    async def story(world: SmallWorld) -> None:
        near, far = Process("near", "x"), Process("far", "y")
        holder, other = world.engine(near, LIMITS), world.engine(far, LIMITS)
        run_id = await world.start(holder, ONE_NODE, a=Script(duration_ms=30_000))
        world.loop.spawn(near, world.live(holder), name="near")
        await world.until(lambda: bool(world.bodies.live))
        async with other:
            for span_ms in (3_600_000, -7_200_000, 3_600_000):
                await world.clock.sleep(8_000)
                world.clock.jump_ms(span_ms)
            await world.until_status(run_id, S.COMPLETED)
        assert world.row(run_id).epoch == 1

    told(path, story)


def wall_clocks_decide(patch: Patch) -> None:
    """What looks stale by the wall clock is stale."""
    patch.setattr(QuietWatch, "list_stale", lambda _self, quiet, **_span: quiet)


def test_w37_clock_that_is_set_reaps_nobody(tmp_path: Path) -> None:
    clock_that_is_set_while_a_silent_body_runs(tmp_path)


def test_w37_clock_that_is_set_is_caught(tmp_path: Path, monkeypatch: Patch) -> None:
    wall_clocks_decide(monkeypatch)
    with pytest.raises(AssertionError):
        clock_that_is_set_while_a_silent_body_runs(tmp_path)


# W-39: a result that is overwritten after the end


def what_comes_after_the_end() -> None:
    tale = Tale(python_node("a")).claim()
    tale.succeed("a")
    before = msgspec.structs.replace(tale.run)
    tale.now_ms += STALE_MS
    late: tuple[Command, ...] = (
        Panic(engine_id=ENGINE, reason="too late"),
        Reap(
            stale_after_ms=STALE_MS,
            seen_change_id=before.last_change_id,
            seen_activity_at_ms=None,
        ),
        Adopt(dead=ENGINE),
    )
    changed = []
    for command in late:
        with suppress(Refused):
            changed.append(
                decide(tale.view, command, change_id=ChangeId("late"), now_ms=tale.now_ms)
            )
    assert changed == []
    assert tale.run == before


def panics_overwrite(patch: Patch) -> None:
    """The handler of a panic does not ask how the run stands."""
    original = claiming.fail_panicked

    def fail_panicked(draft: Draft, command: Panic) -> None:
        draft.run.status, draft.run.engine_id = S.RUNNING, command.engine_id
        original(draft, command)

    patch.setattr(claiming, "fail_panicked", fail_panicked)


def test_w39_result_is_not_overwritten() -> None:
    what_comes_after_the_end()


def test_w39_result_is_caught(monkeypatch: Patch) -> None:
    panics_overwrite(monkeypatch)
    with pytest.raises(AssertionError):
        what_comes_after_the_end()


def blocked_run_that_is_cancelled() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1})).claim()
    tale.repair("a")
    assert tale.status is S.BLOCKED
    tale.now_ms += 500
    tale.command(Cancel())
    assert tale.run.finished_at_ms == tale.now_ms


def test_w39_cancelled_run_ended_when_it_was_cancelled() -> None:
    blocked_run_that_is_cancelled()


def test_w39_cancelled_run_ended_is_caught(monkeypatch: Patch) -> None:
    original = operating.cancel_run

    def cancel_run(draft: Draft, event: Any, *, reason: str) -> None:
        finished_at_ms = draft.run.finished_at_ms
        original(draft, event, reason=reason)
        draft.run.finished_at_ms = finished_at_ms

    monkeypatch.setattr(operating, "cancel_run", cancel_run)
    with pytest.raises(AssertionError):
        blocked_run_that_is_cancelled()
