"""What the simulation found once, each told by itself."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec
import pytest

import tandem.engine.driver as driver_module
from tandem.adapters.sqlite.committer import Committer
from tandem.adapters.sqlite.connection import open_connection
from tandem.adapters.sqlite.turnstile import Turnstile
from tandem.domain.change import Change
from tandem.domain.command import Cancel, HandBack, Pause, Resume
from tandem.domain.driving import advance
from tandem.domain.errors import StoreUnavailable
from tandem.domain.handoff import Handoff, write_handoff
from tandem.domain.ids import LOCAL_TENANT, ChangeId, EngineId, RunId
from tandem.domain.lifecycle import TERMINAL, RunEvent, RunState
from tandem.engine.automations import Automations
from tandem.engine.driver import Driver
from tandem.ports.store import EngineRow, RunFilter
from tandem.testing.artifacts import MemoryFiles
from tandem.testing.builders import automation, python_node, random_story
from tandem.testing.executor import Script
from tandem.testing.loop import SimulatedLoop
from tandem.testing.simulation import open_world
from tests.small_world import SmallWorld

ONE_NODE = automation(python_node("a"))


@pytest.mark.parametrize("turns", range(12))
def test_run_that_is_being_claimed_when_its_engine_stops_belongs_to_nobody(
    tmp_path: Path, turns: int
) -> None:
    small = SmallWorld(tmp_path / "tandem.db")

    async def story() -> None:
        engine = small.engine()
        run_id = await small.start(engine, ONE_NODE, a=Script(duration_ms=5_000))
        async with engine:
            for _ in range(turns):
                await asyncio.sleep(0)
        assert small.row(run_id).engine_id is None
        assert small.row(run_id).status is RunState.QUEUED
        assert small.store.list_engines() == []

    small.tell(story())


@pytest.mark.parametrize("order", range(40))
def test_body_does_not_begin_when_its_attempt_was_taken_back_meanwhile(
    tmp_path: Path, order: int
) -> None:
    found: list[RunState] = []
    cancels: list[asyncio.Task[Change]] = []

    def commit(connection: apsw.Connection) -> None:
        connection.execute("COMMIT")
        started = connection.execute("SELECT run_id FROM run, attempt").fetchall()
        if started and not cancels:
            what = engine.execute(started[0][0], Cancel())
            cancels.append(small.loop.create_task(what))

    small = SmallWorld(tmp_path / "tandem.db", commit, order=order)
    engine = small.engine()
    small.bodies.started = lambda body: found.append(small.row(body.spec.run_id).status)

    async def story() -> None:
        async with engine:
            run_id = await small.start(engine, ONE_NODE, a=Script(duration_ms=5_000))
            await small.until_status(run_id, RunState.CANCELLED)
            await asyncio.gather(*cancels)

    small.tell(story())
    assert found in ([], [RunState.RUNNING])


def test_retry_that_is_due_and_has_no_place_costs_nothing_until_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SmallWorld(tmp_path / "tandem.db")
    retry = {"max_attempts": 2, "backoff": {"strategy": "fixed", "initial_delay_ms": 50}}
    what = automation(python_node("a", retry_policy=retry), python_node("b"), parallel=1)
    looks: list[int] = []

    def look(*args: Any, **how: Any) -> Change | None:
        looks.append(how["now_ms"])
        return advance(*args, **how)

    monkeypatch.setattr(driver_module, "advance", look)

    async def story() -> None:
        async with small.engine() as engine:
            failing = Script(duration_ms=1, fails=1)
            run_id = await small.start(engine, what, a=failing, b=Script(duration_ms=60_000))
            await small.until_status(run_id, RunState.COMPLETED)

    small.tell(story())
    assert len(looks) < 12


def test_engine_that_holds_a_run_is_not_forgotten(tmp_path: Path) -> None:
    small = SmallWorld(tmp_path / "tandem.db")
    dead = EngineId("engine-dead")
    row = EngineRow(
        engine_id=dead,
        host="simulated",
        pid=1,
        version="0",
        lock_path="",
        started_at_ms=0,
        lease_until_ms=0,
    )

    async def story() -> None:
        run_id = await small.start(small.engine(), ONE_NODE)
        await small.store.put_engine(row)
        await small.store.claim(
            dead,
            limit=1,
            own_only=False,
            now_ms=small.clock.now_ms(),
            new_change_id=lambda: ChangeId("claim"),
        )

        await small.store.remove_engine(dead)
        assert [engine.engine_id for engine in small.store.list_engines()] == [dead]
        async with small.engine():  # takes over from the dead
            await small.until(lambda: small.row(run_id).status is RunState.COMPLETED)
        assert small.store.list_engines() == []

    small.tell(story())


def test_engine_that_renews_its_lease_while_it_is_judged_by_it_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgotten it would claim again, and nobody would find its runs if it died then."""
    small = SmallWorld(tmp_path / "tandem.db")
    late = EngineId("engine-late")
    row = EngineRow(
        engine_id=late,
        host="elsewhere",
        pid=1,
        version="0",
        lock_path="",
        started_at_ms=0,
        lease_until_ms=1,
        lease_ms=3_000,
    )
    renewed = msgspec.structs.replace(row, lease_until_ms=2)
    forget = small.store.remove_engine
    judged: list[EngineId] = []

    async def renew_first(engine_id: EngineId, **how: Any) -> None:
        if engine_id == late and not judged:
            judged.append(engine_id)
            await small.store.put_engine(renewed)
        await forget(engine_id, **how)

    async def story() -> None:
        await small.store.put_engine(row)
        async with small.engine():
            await small.until(lambda: bool(judged))
            await small.clock.sleep(0)
            assert renewed in small.store.list_engines()
            await small.until(lambda: renewed not in small.store.list_engines())

    monkeypatch.setattr(small.store, "remove_engine", renew_first)
    small.tell(story())


def test_retry_that_is_due_by_a_wall_clock_that_was_set_forward_is_not_slept_through(
    tmp_path: Path,
) -> None:
    small = SmallWorld(tmp_path / "tandem.db")
    backoff = {"strategy": "fixed", "initial_delay_ms": 3_600_000}
    what = automation(
        python_node("slow"),
        python_node("a", retry_policy={"max_attempts": 2, "backoff": backoff}),
    )

    async def story() -> None:
        engine = small.engine()
        async with engine:
            slow, flaky = Script(duration_ms=40_000), Script(duration_ms=1, fails=1)
            run_id = await small.start(engine, what, slow=slow, a=flaky)
            await small.until(lambda: small.bodies.ends[run_id, "a"] == 1)
            await small.clock.sleep(500)
            small.clock.jump_ms(3_600_000)
            await small.clock.sleep(6_000)
            assert small.bodies.ends[run_id, "a"] == 2
            assert small.bodies.ends[run_id, "slow"] == 0

    small.tell(story())


def test_run_may_be_driven_again_before_its_former_driver_has_noticed(tmp_path: Path) -> None:
    fails: list[bool] = []

    def commit(connection: apsw.Connection) -> None:
        if fails and connection.total_changes():
            fails.clear()
            raise apsw.FullError("full")
        connection.execute("COMMIT")

    small = SmallWorld(tmp_path / "tandem.db", commit)

    async def story() -> None:
        engine = small.engine()
        engine.listen(lambda _view, _change: None)
        async with engine:
            run_id = await small.start(engine, ONE_NODE)
            while small.row(run_id).status is RunState.QUEUED:
                await asyncio.sleep(0)
            fails.append(True)  # the first step of the driver fails, and it waits a moment
            while fails:
                await asyncio.sleep(0)
            await engine.execute(run_id, Pause())
            await engine.execute(run_id, Resume())
            await small.until(lambda: small.row(run_id).status in TERMINAL)
            await small.clock.sleep(1_000)
        assert small.row(run_id).status is RunState.COMPLETED
        assert small.row(run_id).epoch == 2

    small.tell(story())


def test_former_driver_does_not_answer_for_the_processes_of_a_later_one(tmp_path: Path) -> None:
    small = SmallWorld(tmp_path / "tandem.db")
    count = iter(range(100))

    def new_change_id() -> ChangeId:
        return ChangeId(f"change-{next(count)}")

    async def story() -> None:
        engine = small.engine()
        run_id = await small.start(engine, ONE_NODE)
        store, now_ms, own_id = small.store, small.clock.now_ms(), engine.engine_id

        async def claim() -> Driver:
            (claimed,) = await store.claim(
                own_id, limit=1, own_only=False, now_ms=now_ms, new_change_id=new_change_id
            )
            return Driver(
                claimed.view,
                engine_id=own_id,
                store=store,
                runner=engine._runner,
                clock=small.clock,
                new_change_id=new_change_id,
                gate_policy=engine.limits.gate_policy,
                announce=lambda _view, _change: None,
                report=lambda *_said: None,
                complain=lambda _words: None,
                lease=engine._lease,
            )

        former = await claim()
        await engine.execute(run_id, HandBack(engine_id=own_id))
        later = await claim()
        change = advance(
            later.view, settled=(), engine_id=own_id, change_id=new_change_id(), now_ms=now_ms
        )
        assert change is not None
        await store.apply(change)
        await engine.execute(run_id, Cancel())

        await former._confirm_cleanup()
        assert small.row(run_id).cleanup == own_id
        await later._confirm_cleanup()
        assert small.row(run_id).cleanup is None

    small.tell(story())


class Outage:
    """A committer on a disk that fails after a commit and cannot be read for a while."""

    def __init__(self, path: Path, *, opens_refused: int) -> None:
        self.path = path
        self.opens_refused = opens_refused
        self.loop = SimulatedLoop(Random(0))
        connection = open_connection(path, synchronous="OFF")
        connection.execute("CREATE TABLE kept (value TEXT)")
        self.committer = Committer(
            connection, Turnstile(path), reopen=self._reopen, commit=self._commit
        )
        self._fails = True

    def _commit(self, connection: apsw.Connection) -> None:
        connection.execute("COMMIT")
        if self._fails:
            self._fails = False
            raise apsw.IOError("the disk failed after the commit")

    def _reopen(self) -> apsw.Connection:
        if self.opens_refused:
            self.opens_refused -= 1
            raise StoreUnavailable("the disk is away")
        return open_connection(self.path, synchronous="OFF")

    def write(self, value: str) -> asyncio.Future[None]:
        """Write one value."""

        def statements(connection: apsw.Connection) -> None:
            connection.execute("INSERT INTO kept VALUES (?)", (value,)).fetchall()

        def landed(connection: apsw.Connection) -> bool:
            found = connection.execute("SELECT 1 FROM kept WHERE value = ?", (value,)).fetchall()
            return bool(found)

        return self.committer.submit(statements, landed=landed)

    def kept(self) -> list[str]:
        """Return what is on disk, in its order."""
        connection = open_connection(self.path, synchronous="OFF")
        rows = connection.execute("SELECT value FROM kept ORDER BY rowid").fetchall()
        connection.close()
        return [str(value) for (value,) in rows]


def test_commit_whose_fate_nobody_knows_is_told_when_the_disk_can_be_read(tmp_path: Path) -> None:
    outage = Outage(tmp_path / "kept.db", opens_refused=3)

    async def story() -> None:
        first = outage.write("first")
        await asyncio.sleep(0.01)
        assert not first.done()
        second = outage.write("second")
        await asyncio.gather(first, second)
        assert outage.loop.time() >= 0.4
        assert outage.kept() == ["first", "second"]

    outage.loop.run_until_complete(story())
    outage.committer.close()
    outage.loop.dispose()


def test_store_that_is_closed_before_the_disk_answers_does_not_claim_to_know(
    tmp_path: Path,
) -> None:
    outage = Outage(tmp_path / "kept.db", opens_refused=1_000)

    async def story() -> None:
        write = outage.write("first")
        await asyncio.sleep(0.01)
        outage.committer.close()
        with pytest.raises(StoreUnavailable, match="before it could say whether"):
            await write

    outage.loop.run_until_complete(story())
    outage.loop.dispose()


def test_copy_of_a_handoff_that_comes_back_by_another_name_is_put_away(tmp_path: Path) -> None:
    small = SmallWorld(tmp_path / "tandem.db")
    watching = automation(
        python_node("a"),
        workspace_root="/work",
        watch_conditions=[{"kind": "handoff_available"}],
    )
    made = Handoff(
        handoff_id="h1",
        source_automation_id="scan",
        source_run_id="run",
        source_node_id="node",
        target_automation_id="simulated",
        artifact_type="batch",
        created_at_ms=5,
    )

    async def story() -> None:
        engine = small.engine()
        await Automations(engine).save(watching, by="ann")
        path = engine.handoffs.deposit(made)
        await engine.handoffs.tend()
        (run,) = small.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        await engine.execute(run.run_id, Cancel())
        archived = dict(small.files)
        copy = "/work", path.replace("h1", "a copy")
        MemoryFiles(small.files, small.clock).put_file(*copy, write_handoff(made))

        await engine.handoffs.tend()

        assert small.files.keys() == archived.keys()
        (only,) = small.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        assert only.run_id == run.run_id

    small.tell(story())


def test_run_that_ends_and_is_deleted_in_one_commit_is_followed() -> None:
    with open_world(0) as world:

        async def story() -> None:
            keeping = world.loop.create_task(world.keep("a"))
            await world.clock.sleep(5)
            await world.start_run(random_story(Random(0)))
            (process,), (row,) = world.living(), world.invariants.runs()
            run_id = RunId(row["run_id"])
            await asyncio.gather(
                world.command(process, run_id, Cancel()), world.delete(process, run_id)
            )
            assert world.invariants.runs() == []
            keeping.cancel()
            await world.stop_all()
            world.invariants.check_all()

        world.loop.run_until_complete(story())
        assert world.violation is None
        assert world.invariants.events[-1].event is RunEvent.RUN_STOPPED
