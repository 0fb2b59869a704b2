"""What is shown to Prometheus is true, complete and bounded."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import apsw
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tandem.adapters.metrics.lag import LagWatch
from tandem.adapters.metrics.meters import Meters
from tandem.adapters.metrics.series import SERIES
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.command import Cancel, Pause, Recover, Resume
from tandem.domain.lifecycle import RunState
from tandem.domain.signal import Signal, SignalKind
from tandem.engine.engine import Engine
from tandem.engine.limits import Limits
from tandem.testing.builders import automation, python_node
from tandem.testing.executor import Script
from tests.small_world import SmallWorld

S = RunState
CHAIN = automation(python_node("a"), python_node("b", "a"))
ONE = automation(python_node("a"))
LONG = Script(duration_ms=1_000)
Tell = Callable[[Callable[[SmallWorld], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    def tell_it(story: Callable[[SmallWorld], Coroutine[Any, Any, None]]) -> None:
        world = SmallWorld(tmp_path / "tandem.db")
        world.tell(story(world))

    return tell_it


def metered(engine: Engine) -> Meters:
    """Return meters that watch an engine and its store."""
    meters = Meters()
    meters.watch(engine)
    return meters


def read(meters: Meters) -> dict[str, float]:
    """Return every sample by its name and the values of its labels."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(meters.text().decode())
        for sample in family.samples
    }


def test_each_admission_attempt_and_end_is_counted_once(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine()
        meters = metered(engine)
        async with engine:
            good = await world.start(engine, CHAIN, a=LONG, b=LONG)
            bad = await world.start(engine, ONE, a=Script(duration_ms=1, ending="fail"))
            await world.until_status(good, S.COMPLETED)
            await world.until_status(bad, S.FAILED)
            await engine.execute(bad, Recover())
            await world.until(lambda: world.row(bad).epoch == 2)
            await world.until_status(bad, S.FAILED)
            await engine.caught_up(bad)
            found = read(meters)
        assert found["tandem_runs_claimed_total"] == 3
        assert found["tandem_scheduler_admitted_total"] == 3
        assert found["tandem_scheduler_completed_total"] == 3
        assert found["tandem_runs_ended_total completed"] == 1
        assert found["tandem_runs_ended_total failed"] == 2
        assert found["tandem_attempts_ended_total python succeeded"] == 2
        failed = found["tandem_attempts_ended_total python failed"]
        assert failed == len(world.store.list_attempts(bad, tenant=world.row(bad).tenant))
        assert found["tandem_attempt_seconds_count python"] == 2 + failed
        assert 2 <= found["tandem_attempt_seconds_sum python"] < 3

    tell(story)


def test_a_pause_is_no_end_and_a_run_that_goes_on_is_claimed_again(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine()
        meters = metered(engine)
        async with engine:
            run = await world.start(engine, CHAIN, a=LONG, b=LONG)
            await world.until_status(run, S.RUNNING)
            assert read(meters)["tandem_engine_driven_runs"] == 1
            await engine.execute(run, Pause(reason="look"))
            await world.until_status(run, S.PAUSED)
            assert read(meters)["tandem_runs_ended_total completed"] == 0
            await engine.execute(run, Resume(reason="go"))
            await world.until_status(run, S.RUNNING)
            await engine.execute(run, Cancel(reason="enough"))
            await world.until_status(run, S.CANCELLED)
            await world.until(lambda: engine.driven == 0)
            found = read(meters)
        assert found["tandem_runs_claimed_total"] == 2
        assert found["tandem_runs_ended_total cancelled"] == 1
        assert found["tandem_engine_driven_runs"] == 0

    tell(story)


def test_the_queue_of_the_store_is_shown_by_reason(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine(limits=Limits(runs_max=1))
        meters = metered(engine)
        async with engine:
            for _ in range(3):
                run = await world.start(engine, ONE, a=Script(duration_ms=5_000))
            await world.until(lambda: engine.driven == 1)
            found = read(meters)
            assert found["tandem_scheduler_active_runs"] == 1
            assert found["tandem_scheduler_queued_runs capacity"] == 2
            assert found["tandem_engine_places"] == 1
            await world.until_status(run, S.COMPLETED)
            found = read(meters)
        assert found["tandem_scheduler_queue_wait_ms_avg"] > 4_000
        assert (
            found["tandem_scheduler_queue_wait_ms_p95"]
            >= found["tandem_scheduler_queue_wait_ms_avg"]
        )
        assert "tandem_scheduler_queued_runs capacity" not in found

    tell(story)


def test_no_label_holds_an_id_whatever_runs(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine()
        meters = metered(engine)
        async with engine:
            first = await world.start(engine, CHAIN)
            await world.until_status(first, S.COMPLETED)
            before = set(read(meters))
            runs = [await world.start(engine, CHAIN) for _ in range(20)]
            for run in runs:
                await world.until_status(run, S.COMPLETED)
            after = set(read(meters))
        assert after == before

    tell(story)


def test_a_lease_that_is_renewed_stays_young(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine(limits=Limits(lease_ms=3_000))
        meters = metered(engine)
        async with engine:
            await world.clock.sleep(60_000)
            found = read(meters)
        assert 0 <= found["tandem_engine_lease_age_seconds"] <= 1.1
        assert found["tandem_engine_lease_left_seconds"] > 1

    tell(story)


def test_a_sweep_that_fails_is_counted_and_told_once_until_it_succeeds(tmp_path: Path) -> None:
    async def story() -> None:
        engine = world.engine(limits=Limits(signal_retention_ms=1))
        meters = metered(engine)
        async with engine:
            await engine.signal(
                Signal(kind=SignalKind.EXTERNAL_CONDITION, subject="x", idempotency_key="1")
            )
            is_away.set()
            await world.until(lambda: engine.sweep_failures.get("forget_signals", 0) >= 3)
            assert read(meters)["tandem_engine_sweep_failures_total forget_signals"] >= 3
            is_away.clear()
            said = [words for words in world.told if "could not forget signals" in words]
            assert len(said) == 1

    is_away = asyncio.Event()

    def commit(connection: apsw.Connection) -> None:
        if is_away.is_set():
            raise apsw.IOError("the disk is away")
        connection.execute("COMMIT")

    world = SmallWorld(tmp_path / "tandem.db", commit)
    world.tell(story())


def test_a_store_that_cannot_be_read_says_so_instead_of_old_numbers(tmp_path: Path) -> None:
    world = SmallWorld(tmp_path / "tandem.db")
    meters = metered(world.engine())
    assert read(meters)["tandem_store_readable"] == 1
    world.store.close()
    found = read(meters)
    world.loop.dispose()
    assert found["tandem_store_readable"] == 0
    assert "tandem_scheduler_active_runs" not in found


async def test_writes_are_measured_where_they_are_done(tmp_path: Path) -> None:
    meters = Meters()
    store = SqliteStore(tmp_path / "tandem.db", synchronous="OFF")
    store.listen(meters.written)
    try:
        await asyncio.gather(*(store.wake_freed(now_ms=1, limit=1) for _ in range(3)))
        await store.remove_engine("nobody")  # type: ignore[arg-type] # any name does
    finally:
        store.close()
    found = read(meters)
    commits = found["tandem_store_write_seconds_count inline"]
    assert commits >= 1
    assert found["tandem_store_write_batch_sum inline"] >= commits


async def test_writes_through_the_process_are_measured_too(tmp_path: Path) -> None:
    meters = Meters()
    store = SqliteStore(tmp_path / "tandem.db", synchronous="OFF", writer="process")
    store.listen(meters.written)
    try:
        await store.remove_engine("nobody")  # type: ignore[arg-type] # any name does
        await store.remove_engine("nobody")  # type: ignore[arg-type] # any name does
    finally:
        store.close()
    assert read(meters)["tandem_store_write_batch_sum process"] >= 1


async def test_the_lag_of_the_loop_is_told() -> None:
    late: list[float] = []
    heard = asyncio.Event()

    def hear(seconds: float) -> None:
        late.append(seconds)
        heard.set()

    async with LagWatch(hear), asyncio.timeout(5):
        await heard.wait()
    assert late[0] >= 0


def test_requests_are_counted_by_template_and_streams_while_they_are_open() -> None:
    meters = Meters()
    meters.answered("GET", "/runs/{run_id}", 200, 0.002)
    meters.answered("BREW", "", 404, 0.001)
    meters.answered("GET", "/events", 200, None)
    meters.streaming(1)
    meters.streaming(1)
    meters.streaming(-1)
    found = read(meters)
    assert found["tandem_http_requests_total GET /runs/{run_id} 200"] == 1
    assert found["tandem_http_requests_total other (none) 404"] == 1
    assert found["tandem_http_requests_total GET /events 200"] == 1
    assert "tandem_http_request_seconds_count GET /events" not in found
    assert found["tandem_http_streams_open"] == 1


def test_every_series_is_in_the_table_and_every_row_is_shown(tell: Tell) -> None:
    async def story(world: SmallWorld) -> None:
        engine = world.engine()
        meters = metered(engine)
        meters.problem()
        async with engine:
            run = await world.start(engine, ONE)
            await world.until_status(run, S.COMPLETED)
            text = meters.text().decode()
        shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE tandem_")}
        assert shown == {series.shown for series in SERIES}

    tell(story)


def test_two_engines_of_one_process_count_apart() -> None:
    one, other = Meters(), Meters()
    one.problem()
    assert read(one)["tandem_engine_problems_total"] == 1
    assert read(other)["tandem_engine_problems_total"] == 0
