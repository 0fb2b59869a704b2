"""What the original gets wrong with schedules, handoffs and backlog tasks, and ours does not.

Each scenario is run as it is, and with a mutant of our own code under which it must fail.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from tandem import Automation, Engine
from tandem.adapters.sqlite import triggering
from tandem.adapters.sqlite.tables import Tables
from tandem.domain import backlog
from tandem.domain.automation import Automation as Definition
from tandem.domain.backlog import BacklogTask
from tandem.domain.command import Cancel
from tandem.domain.errors import StoreUnavailable
from tandem.domain.firing import Fired, fire
from tandem.domain.handoff import ConsumedHandoff, Handoff
from tandem.domain.ids import LOCAL_TENANT, AutomationId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Run
from tandem.engine.automations import Automations
from tandem.engine.handoffs import Handoffs
from tandem.engine.schedules import Schedules
from tandem.ports.store import RunFilter
from tandem.testing.builders import automation, gate_node, python_node
from tandem.testing.loop import Process
from tests.engine.conftest import WAIT_S, call
from tests.small_world import SmallWorld

TICK = {"type": "interval", "interval_seconds": 10, "misfire_policy": {"type": "run_once"}}


@pytest.fixture(autouse=True)
def writes_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant lives in this process; a writer of its own would not have it."""
    monkeypatch.setenv("TANDEM_STORE_WRITER", "inline")


def ticking(*nodes: dict[str, Any], **schedule: Any) -> Definition:
    return automation(*(nodes or [python_node("a")]), schedule=TICK | schedule)


def runs_of(world: SmallWorld) -> list[Run]:
    chosen = RunFilter(tenant=LOCAL_TENANT, automation_id=AutomationId("simulated"), limit=500)
    return list(reversed(world.store.list_runs(chosen)))


def firings_of(world: SmallWorld) -> list[tuple[str, str]]:
    row = world.store.find_automation(AutomationId("simulated"), tenant=LOCAL_TENANT)
    assert row is not None
    found = world.store.list_firings(row, limit=500)
    return [(firing.occurrence, firing.run_id or firing.code) for firing in reversed(found)]


# W-16: no fire is lost or doubled by a crash or by two engines


def crashes_while_it_fires(folder: Path) -> None:
    """Two engines on one store; every few commits one of them dies before or after the commit."""
    commits = 0

    def commit(connection: apsw.Connection) -> None:
        nonlocal commits
        commits += 1
        if commits % 7 == 3:
            raise apsw.IOError("the commit fails")
        connection.execute("COMMIT")
        if commits % 11 == 5:
            raise apsw.IOError("the commit took effect, and nobody heard of it")

    world = SmallWorld(folder / "tandem.db", commit)

    async def story() -> None:
        await _persist(lambda: Automations(world.engine()).save(ticking(), by="ann"))
        start_ms = world.clock.now_ms()
        for number in range(12):
            first, second = (Process(f"engine-{number}-{name}") for name in "ab")
            lives = [
                asyncio.ensure_future(world.live(world.engine(process)))
                for process in (first, second)
            ]
            await world.clock.sleep(9_000 + 1_300 * (number % 3))
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
        row = world.store.find_automation(AutomationId("simulated"), tenant=LOCAL_TENANT)
        assert row is not None
        runs = {run.run_id for run in runs_of(world)}
        created = [run_id for _, run_id in firings_of(world) if run_id in runs]
        # Each run has its occurrence and each occurrence its run; the watermark is where the
        # newest of them is, and none of the grid up to it is left out.
        assert sorted(created) == sorted(runs)
        occurrences = [int(occurrence.removeprefix("at:")) for occurrence, _ in firings_of(world)]
        assert len(occurrences) == len(set(occurrences)) == len(runs)
        assert row.fired_until_ms == max(occurrences)
        assert len(occurrences) >= (world.clock.now_ms() - start_ms) // 10_000 - 3

    world.tell(story())


async def _persist(write: Callable[[], Awaitable[Any]]) -> None:
    for _ in range(10):
        try:
            await write()
        except StoreUnavailable:
            continue
        return


def test_w16_no_fire_is_lost_or_doubled_by_crashes_and_two_engines(tmp_path: Path) -> None:
    crashes_while_it_fires(tmp_path)


def test_w16_no_fire_is_lost_or_doubled_by_crashes_and_two_engines_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Schedules._fire

    async def advance_first(self: Schedules, row: Any, plan: Any, now_ms: int) -> Any:
        """As the original: the schedule moves on, then the runs are created."""
        bare = msgspec.structs.replace(plan, due_at_ms=(), missed=0, newest_missed_at_ms=None)
        await original(self, row, bare, now_ms)
        for due_at_ms in plan.due_at_ms:
            await self._store.create_run(self._new_run(row, due_at_ms), now_ms=now_ms)
        return Fired(row=None)

    monkeypatch.setattr(Schedules, "_fire", advance_first)
    with pytest.raises(AssertionError):
        crashes_while_it_fires(tmp_path)


def two_engines_that_read_at_once(folder: Path) -> None:
    world = SmallWorld(folder / "tandem.db")

    async def story() -> None:
        engines = [world.engine() for _ in range(3)]
        await Automations(engines[0]).save(ticking(), by="ann")
        await world.clock.sleep(10_500)
        await asyncio.gather(*(engine.schedules.fire_due() for engine in engines))
        assert len(runs_of(world)) == len(firings_of(world)) == 1

    world.tell(story())


def test_w16_of_engines_that_look_at_once_one_fires(tmp_path: Path) -> None:
    two_engines_that_read_at_once(tmp_path)


def test_w16_of_engines_that_look_at_once_one_fires_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perform(self: Any, tables: Tables, connection: apsw.Connection) -> Any:
        """Neither the watermark nor the occurrence is compared."""
        for new in self.new:
            new.insert(tables, connection)
        after = fire(self.row, self.plan, now_ms=self.now_ms)
        return Fired(row=after)

    monkeypatch.setattr(triggering.FireSchedule, "perform", perform)
    with pytest.raises(AssertionError):
        two_engines_that_read_at_once(tmp_path)


def run_that_waits_for_a_person(folder: Path) -> None:
    world = SmallWorld(folder / "tandem.db")

    async def story() -> None:
        async with world.engine() as engine:
            await Automations(engine).save(ticking(gate_node("ask")), by="ann")
            await world.until(lambda: len(runs_of(world)) == 1)
            (run,) = runs_of(world)
            await world.until_status(run.run_id, RunState.AWAITING_APPROVAL)
            await world.clock.sleep(60_000)
            assert len(runs_of(world)) == 1
            row = Automations(engine).get("simulated")
            assert (row.deferred_by, row.deferred_at_ms is not None) == (run.run_no, True)
            await engine.execute(run.run_id, Cancel(reason="enough"))
            await world.until(lambda: len(runs_of(world)) == 2)

    world.tell(story())


def test_w16_run_that_waits_for_a_person_puts_the_next_off(tmp_path: Path) -> None:
    run_that_waits_for_a_person(tmp_path)


def test_w16_run_that_waits_for_a_person_puts_the_next_off_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = triggering.find_open_run

    def only_running(tables: Tables, connection: apsw.Connection, row: Any) -> Any:
        found = original(tables, connection, row)
        state = "SELECT status FROM run WHERE run_no = ?"
        statuses = connection.execute(state, (found[0],)).fetchall() if found else []
        return found if statuses and statuses[0][0] in ("queued", "running") else None

    monkeypatch.setattr(triggering, "find_open_run", only_running)
    with pytest.raises(AssertionError):
        run_that_waits_for_a_person(tmp_path)


# W-16: a handoff is neither lost nor taken twice by a crash between its run and its file


async def crash_between_run_and_archive(folder: Path) -> None:
    work = folder / "work"
    work.mkdir()
    watching = Automation.from_dict(
        {
            "automation_id": "enrich",
            "workspace_root": str(work),
            "watch_conditions": [{"kind": "handoff_available", "artifact_type": "batch"}],
            "nodes": [call("a")],
        }
    )
    state = folder / "state"
    async with Engine.open(state_dir=state, functions={"test:ok": lambda: "ok"}) as engine:
        stored = await engine.apply(watching)
        core = engine.parts.engine
        made = Handoff(
            handoff_id="h1",
            source_automation_id="scan",
            source_run_id="r",
            source_node_id="n",
            target_automation_id="enrich",
            artifact_type="batch",
            created_at_ms=5,
        )
        engine.deposit_handoff(made)
        # A file whose name is not its id, a broken one, and a link that leads out.
        approved = work / "shared" / "handoffs" / "approved"
        (approved / "h1.json").rename(approved / "a name.json")
        (approved / "broken.json").write_text("{")
        (approved / "link.json").symlink_to("/etc/passwd")
        async with asyncio.timeout(WAIT_S):
            while not engine.parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT)):
                await asyncio.sleep(0.02)
            while engine.parts.store.find_open_run(AutomationId("enrich"), tenant=LOCAL_TENANT):
                await asyncio.sleep(0.02)
        await core.handoffs.tend()
        (run,) = engine.parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        assert (run.trigger_type, run.consumed_handoff_id) == ("watch_condition", "h1")
        assert run.effective_execution_profile == "guided"
        (archived,) = stored.handoffs().archived
        assert archived.handoff is not None
        assert archived.handoff.consumed_by_run_id == run.run_id
        assert sorted(path.name for path in approved.iterdir()) == ["broken.json", "link.json"]


async def test_w16_handoff_has_one_run_when_its_file_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Handoffs._archive
    failed: list[ConsumedHandoff] = []

    async def cut_off_once(self: Handoffs, taken: Any) -> None:
        if not failed:
            failed.append(taken)
            raise StoreUnavailable("the engine died here")
        await original(self, taken)

    monkeypatch.setattr(Handoffs, "_archive", cut_off_once)
    await crash_between_run_and_archive(tmp_path)
    assert failed


async def test_w16_handoff_has_one_run_when_its_file_stays_behind_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: Handoffs, taken: Any) -> None:
        """Nobody moves the file, and nobody looks at what has its run already."""

    monkeypatch.setattr(Handoffs, "_archive", never)
    monkeypatch.setattr(triggering, "find_consumed", lambda *_: None)
    with pytest.raises((AssertionError, ValueError)):
        await crash_between_run_and_archive(tmp_path)


# W-32: a task can be claimed and given back as often as is needed


async def claimed_again_and_again(folder: Path) -> None:
    tasks = {"backlog_tasks": [{"title": "One"}]}
    plan = call("plan", "plan", metadata={"builder": {"project_backlog_tasks": True}})
    functions = {"test:plan": lambda: tasks}
    async with Engine.open(state_dir=folder, functions=functions) as engine:
        document = {"automation_id": "planner", "nodes": [plan]}
        run = await engine.run(Automation.from_dict(document))
        async with asyncio.timeout(WAIT_S):
            await run.wait()
        tokens = set()
        for _ in range(5):
            task = await run.claim_task("backlog-plan-one", agent_id="ann")
            tokens.add(task.lease_token)
            await run.requeue_task("backlog-plan-one")
        assert len(tokens) == 5
        task = await run.claim_task("backlog-plan-one", agent_id="ann")
        await run.complete_task("backlog-plan-one", lease_token=task.lease_token)
        (done,) = (await run.backlog()).tasks
        assert (done.status, done.attempt) == ("done", 6)


async def test_w32_task_is_claimed_and_given_back_again_and_again(tmp_path: Path) -> None:
    await claimed_again_and_again(tmp_path)


async def test_w32_task_is_claimed_and_given_back_again_and_again_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: set[tuple[str, str, str]] = set()
    original = backlog._obstacles

    def one_shot(task: BacklogTask, tasks: Any, now_ms: int) -> Any:
        command = ("claim", task.task_id, "ann")
        if command in used:
            yield "this command was used before"
        used.add(command)
        yield from original(task, tasks, now_ms)

    monkeypatch.setattr(backlog, "_obstacles", one_shot)
    with pytest.raises(Exception, match="used before"):
        await claimed_again_and_again(tmp_path)
