"""Waiting for runs that another engine drives: noticed in time, and without a timer for each."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.run import Run
from tandem.engine.engine import Engine
from tandem.engine.limits import Limits
from tandem.engine.waiting import LOOK_MS, Waiters
from tandem.testing.builders import automation, python_node
from tandem.testing.executor import Script
from tests.small_world import SmallWorld

ONE_NODE = automation(python_node("a"))
SLACK_MS = 50


def elsewhere(world: SmallWorld, stack: ExitStack) -> Engine:
    """Return an engine that leaves runs alone, with a store of its own on the same file."""
    store = SqliteStore(world.store.path, synchronous="OFF")
    stack.callback(store.close)
    own, world.store = world.store, store
    engine = world.engine(limits=Limits(own_only=True))
    world.store = own
    return engine


def waiting(world: SmallWorld, spans_ms: list[int]) -> list[int]:
    """Wait in one engine for runs of another; return how late each end was noticed, in ms."""
    late: list[int] = []

    async def story(stack: ExitStack) -> None:
        here, there = elsewhere(world, stack), world.engine()
        waiters = Waiters(here, world.clock)

        async def notice(run_id: RunId) -> None:
            run = await waiters.wait(run_id)
            late.append(world.clock.now_ms() - (run.finished_at_ms or 0))

        async with here, there, asyncio.TaskGroup() as group:
            for span_ms in spans_ms:
                script = Script(duration_ms=span_ms)
                run_id = await world.start(there, ONE_NODE, a=script)
                group.create_task(notice(run_id))

    with ExitStack() as stack:
        world.tell(story(stack))
    return late


@pytest.mark.parametrize(
    "spans_ms",
    [
        pytest.param([1_000, 2_000, 3_000], id="the lookout leaves first"),
        pytest.param([3_000, 2_000, 1_000], id="the newest leaves first"),
        pytest.param([1_000, 3_000, 1_000], id="lookout and newest leave together"),
    ],
)
def test_ends_of_runs_of_another_engine_are_noticed_within_half_a_second(
    tmp_path: Path, spans_ms: list[int]
) -> None:
    late = waiting(SmallWorld(tmp_path / "tandem.db"), spans_ms)
    assert len(late) == len(spans_ms)
    assert max(late) <= LOOK_MS + SLACK_MS


def test_a_lookout_that_gives_up_is_followed_by_another(tmp_path: Path) -> None:
    world = SmallWorld(tmp_path / "tandem.db")

    async def story(stack: ExitStack) -> None:
        here, there = elsewhere(world, stack), world.engine()
        waiters = Waiters(here, world.clock)
        async with here, there:
            run_id = await world.start(there, ONE_NODE, a=Script(duration_ms=3_000))
            first = asyncio.create_task(waiters.wait(run_id))
            second = asyncio.create_task(waiters.wait(run_id))
            await world.clock.sleep(700)
            first.cancel()
            run = await second
            assert world.clock.now_ms() - (run.finished_at_ms or 0) <= LOOK_MS + SLACK_MS

    with ExitStack() as stack:
        world.tell(story(stack))


def test_a_lookout_whose_own_run_ends_is_followed_by_somebody_who_stays(tmp_path: Path) -> None:
    world = SmallWorld(tmp_path / "tandem.db")

    async def story(stack: ExitStack) -> None:
        here, there = elsewhere(world, stack), world.engine()
        waiters = Waiters(here, world.clock)

        async def wait(run_id: RunId) -> int:
            run = await waiters.wait(run_id)
            return world.clock.now_ms() - (run.finished_at_ms or 0)

        async with here, there, asyncio.TaskGroup() as group:
            own = [await start_owned(world, here) for _ in range(2)]
            other = await world.start(there, ONE_NODE, a=Script(duration_ms=3_000))
            # The first looks out; it and the newest are told in the same moment.
            tasks = [group.create_task(wait(run_id)) for run_id in (own[0], other, own[1])]
        assert max(task.result() for task in tasks) <= LOOK_MS + SLACK_MS

    with ExitStack() as stack:
        world.tell(story(stack))


async def start_owned(world: SmallWorld, engine: Engine) -> RunId:
    run_id = RunId(f"automation-v2-run-{world.ids.peek()}")
    world.scripts[run_id, "a"] = Script(duration_ms=1_200)
    return (await engine.start(ONE_NODE, owned=True)).run_id


def test_those_who_wait_look_at_rows_only_when_something_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = SmallWorld(tmp_path / "tandem.db")
    looks = 0
    find = world.store.find_run

    def counted(run_id: RunId, *, tenant: object) -> Run | None:
        nonlocal looks
        looks += 1
        return find(run_id, tenant=LOCAL_TENANT)

    async def story() -> None:
        engine = world.engine()
        waiters = Waiters(engine, world.clock)
        async with engine:
            ids = [
                await world.start(engine, ONE_NODE, a=Script(duration_ms=4_000)) for _ in range(8)
            ]
            monkeypatch.setattr(world.store, "find_run", counted)
            ended = await asyncio.gather(*(waiters.wait(run_id) for run_id in ids))
        assert [run.run_id for run in ended] == ids

    world.tell(story())
    assert looks == 8  # the first look of each; what this engine did it was told
