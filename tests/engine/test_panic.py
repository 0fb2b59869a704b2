"""A mistake of ours in one run fails that run and no other."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tandem.domain.admission import Needs
from tandem.domain.automation import Automation
from tandem.domain.change import Change
from tandem.domain.command import Command, Panic
from tandem.domain.errors import StoreUnavailable
from tandem.domain.firing import FiringPlan
from tandem.domain.ids import LOCAL_TENANT, AutomationId, RunId
from tandem.domain.lifecycle import RunState
from tandem.domain.stored_automation import StoredAutomation
from tandem.engine import driver as driver_module
from tandem.engine import engine as engine_module
from tandem.engine import schedules as schedules_module
from tandem.engine.automations import Automations
from tandem.ports.store import RunFilter
from tandem.testing.builders import automation, python_node
from tests.engine.conftest import Bench, call, events
from tests.small_world import SmallWorld

REFUSALS = 3


async def test_a_panic_of_one_driver_fails_its_run_and_spares_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()
    bench.body("slow", release.wait)
    healthy = await bench.start(call("slow", "slow"), call("after", "ok", "slow"))
    async with asyncio.timeout(10):
        while not events(healthy, "node_started"):
            await asyncio.sleep(0)

    real = driver_module.advance

    def advance(view: object, **rest: object) -> object:
        if view.plan.automation.automation_id == "broken":  # type: ignore[attr-defined]
            raise ZeroDivisionError("a mistake of ours")
        return real(view, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(driver_module, "advance", advance)
    broken = await bench.start(call("n"), automation_id="broken")
    assert await bench.end(broken) == "failed"
    assert broken.row.stop_kind == "panic"
    assert "ZeroDivisionError: a mistake of ours" in broken.detail

    monkeypatch.undo()
    release.set()
    assert await bench.end(healthy) == "completed"
    await broken.resume()
    assert await bench.end(broken) == "completed"


def test_a_panic_that_cannot_be_written_is_owed_and_ends_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = SmallWorld(tmp_path / "tandem.db")
    execute, tried = world.store.execute, 0

    async def failing(run_id: RunId, command: Command, **how: Any) -> Change:
        nonlocal tried
        if isinstance(command, Panic):
            tried += 1
            if tried <= REFUSALS:
                raise StoreUnavailable("the simulated disk is away")
        return await execute(run_id, command, **how)

    def advance(_view: object, **_rest: object) -> object:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(world.store, "execute", failing)
    monkeypatch.setattr(driver_module, "advance", advance)

    async def story() -> None:
        async with world.engine() as engine:
            run_id = await world.start(engine, automation(python_node("a")))
            await world.until_status(run_id, RunState.FAILED)
            monkeypatch.undo()
            other = await world.start(engine, automation(python_node("a")))
            await world.until_status(other, RunState.COMPLETED)
        assert tried == REFUSALS + 1

    world.tell(story())


def test_an_automation_that_cannot_be_put_together_spares_the_schedules_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = SmallWorld(tmp_path / "tandem.db")
    every = {"type": "interval", "interval_seconds": 10}
    real = engine_module.needs_of

    def needs_of(what: Automation, *demand: Any, **how: Any) -> Needs:
        if what.automation_id == "broken":
            raise ZeroDivisionError("a mistake of ours")
        return real(what, *demand, **how)

    monkeypatch.setattr(engine_module, "needs_of", needs_of)

    async def story() -> None:
        engine = world.engine()
        kept = Automations(engine)
        for name in ("broken", "healthy"):
            what = automation(python_node("a"), automation_id=name, schedule=every)
            await kept.save(what, by="ann")
        await world.clock.sleep(10_500)
        assert await engine.schedules.fire_due() == 2
        (run,) = world.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        assert run.automation_id == "healthy"
        (firing,) = kept.firings(kept.get(AutomationId("broken")))
        assert (firing.outcome, firing.code) == ("refused", "run_creation_panicked")

    world.tell(story())


def test_a_schedule_that_cannot_be_worked_out_spares_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = SmallWorld(tmp_path / "tandem.db")
    every = {"type": "interval", "interval_seconds": 10}
    real = schedules_module.plan_firing

    def plan_firing(row: StoredAutomation, **how: Any) -> FiringPlan | None:
        if row.automation_id == "broken":
            raise ZeroDivisionError("a mistake of ours")
        return real(row, **how)

    monkeypatch.setattr(schedules_module, "plan_firing", plan_firing)

    async def story() -> None:
        engine = world.engine()
        kept = Automations(engine)
        for name in ("broken", "healthy"):
            what = automation(python_node("a"), automation_id=name, schedule=every)
            await kept.save(what, by="ann")
        await world.clock.sleep(10_500)
        assert [await engine.schedules.fire_due() for _ in range(3)] == [1, 0, 0]
        (run,) = world.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        assert run.automation_id == "healthy"
        assert world.told == [
            "the schedule of automation `broken` does not fire: working it out panicked: "
            "ZeroDivisionError: a mistake of ours"
        ]
        monkeypatch.undo()
        assert await engine.schedules.fire_due() == 1, "what is due stays due"

    world.tell(story())
