"""The Python API in the hands of a program: what it gives, when it asks, and how it ends."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tandem import Automation, Engine, InvalidRequest, NotFound, Run, StoreUnavailable
from tandem.domain.command import Cancel
from tandem.domain.handoff import Handoff

WAIT_S = 20


class Interrupted(BaseException):
    """What a library of the host may raise that is no `Exception`, as `pytest.fail` does."""


def one_call(name: str = "ok") -> Any:
    action = {"kind": "python", "function": f"test:{name}"}
    node = {"node_id": "n", "action": action, "retry_policy": {"max_attempts": 1}}
    return Automation.from_dict({"automation_id": "one", "nodes": [node]})


ASKING = Automation.from_dict(
    {
        "automation_id": "asking",
        "nodes": [{"node_id": "g", "objective": "Go on?", "gate": {"required": True}}],
    }
)


def opened(folder: Path, **functions: Callable[..., object]) -> Engine:
    named = {f"test:{name}": function for name, function in functions.items()}
    return Engine.open(f"sqlite:///{folder}/runs.db", functions={"test:ok": lambda: 1, **named})


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with opened(tmp_path) as engine:
        yield engine


async def ended(run: Run) -> str:
    async with asyncio.timeout(WAIT_S):
        return await run.wait()


# What a program gives

MISTYPED: dict[str, Callable[[Engine, Run], Awaitable[object]]] = {
    "started_by": lambda engine, _: engine.run(one_call(), started_by=b"u1"),  # type: ignore[arg-type]
    "by": lambda engine, _: engine.apply(one_call(), by=b"u1"),  # type: ignore[arg-type]
    "runs_max": lambda engine, _: engine.enrol("one", runs_max="3"),  # type: ignore[arg-type]
    "pause": lambda _, run: run.pause(b"why"),  # type: ignore[arg-type]
    "cancel": lambda _, run: run.cancel(b"why"),  # type: ignore[arg-type]
    "retry": lambda _, run: run.retry("g", reason=b"why"),  # type: ignore[arg-type]
    "repair": lambda _, run: run.repair("g", prompt="Go on now?", reason=b"why"),  # type: ignore[arg-type]
    "allow": lambda _, run: run.allow(reason="more", tokens=1e6),  # type: ignore[arg-type]
    "decide": lambda _, run: run.decide("approve", decided_by=b"u1"),  # type: ignore[arg-type]
    "fork": lambda _, run: run.fork("g", reason=b"why"),  # type: ignore[arg-type]
    "signal": lambda engine, _: engine.signal(b"c", idempotency_key="k"),  # type: ignore[arg-type]
    "preview": lambda _, run: run.preview(Cancel(reason=b"why")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", MISTYPED)
async def test_what_has_the_wrong_type_is_refused_and_never_stored(
    engine: Engine, what: str
) -> None:
    run = await engine.run(ASKING)
    async with asyncio.timeout(WAIT_S):
        await run.wait_at_rest()
    with pytest.raises(TypeError):
        await MISTYPED[what](engine, run)
    # Everything can still be read, and the engine goes on.
    assert run.status == "awaiting_approval"
    assert await ended(await engine.run(one_call())) == "completed"
    await run.decide("approve")
    assert await ended(run) == "completed"


async def test_mistyped_commands_of_many_runs_and_handoffs_are_refused(engine: Engine) -> None:
    with pytest.raises(TypeError, match="reason"):
        async for _ in engine.bulk(Cancel(reason=b"why")):  # type: ignore[arg-type]
            pass
    with pytest.raises(TypeError, match="not one text"):
        async for _ in engine.bulk(Cancel(), statuses="running"):
            pass
    with pytest.raises(TypeError, match="Handoff"):
        engine.deposit_handoff({"handoff_id": "h"})  # type: ignore[arg-type]
    mistyped = Handoff(
        handoff_id="h",
        source_automation_id="one",
        source_run_id="r",
        source_node_id="n",
        target_automation_id="one",
        artifact_type="report",
        created_at_ms="1",  # type: ignore[arg-type]
    )
    with pytest.raises(TypeError, match="created_at_ms"):
        engine.deposit_handoff(mistyped)


async def test_what_is_no_automation_is_told_how_to_become_one(engine: Engine) -> None:
    with pytest.raises(TypeError, match=r"Automation\.from_dict"):
        await engine.run({"automation_id": "one", "nodes": []})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Automation\.from_file"):
        await engine.apply("report.yaml")  # type: ignore[arg-type]


async def test_unknown_words_are_answered_with_the_known_ones(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="strict, guided, yolo"):
        await engine.run(one_call(), profile="lenient")
    with pytest.raises(InvalidRequest, match="approve, reject"):
        await engine.review_candidate("c", "accept", by="me")
    with pytest.raises(InvalidRequest, match="queued"):
        async for _ in engine.bulk(Cancel(), statuses=["runing"]):
            pass


@pytest.mark.parametrize("runs_max", [-1, 100_001])
def test_a_number_of_runs_out_of_bounds_is_refused(tmp_path: Path, runs_max: int) -> None:
    with pytest.raises(InvalidRequest, match="0 to 100000"):
        Engine.open(f"sqlite:///{tmp_path}/runs.db", runs_max=runs_max)


async def test_whoever_prints_them_sees_what_they_are(engine: Engine) -> None:
    run = await engine.run(one_call())
    assert repr(run) == f"Run({run.run_id!r})"
    assert repr(await engine.apply(one_call())) == "StoredAutomation('one')"
    assert "runs.db, open>" in repr(engine)
    with pytest.raises(NotFound):
        engine.get_run("nothing")


# When it asks

LATE: dict[str, Callable[[Run], Awaitable[object]]] = {
    "cancel": lambda run: run.cancel(),
    "wait": lambda run: run.wait(),
    "outputs": lambda run: run.outputs(),
    "fork": lambda run: run.fork("n"),
}


@pytest.mark.parametrize("what", LATE)
async def test_a_run_of_an_engine_that_was_left_says_so_at_once(tmp_path: Path, what: str) -> None:
    async with opened(tmp_path) as engine:
        run = await engine.run(one_call())
        await ended(run)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(StoreUnavailable, match="was closed"):
            await LATE[what](run)
    with pytest.raises(StoreUnavailable, match="was closed"):
        run.why()
    with pytest.raises(RuntimeError, match="enter the engine first"):
        await engine.run(one_call())


async def test_whoever_waits_when_the_engine_is_left_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        waiting = asyncio.create_task((await engine.run(ASKING)).wait())
        await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(StoreUnavailable, match="was closed"):
            await waiting


async def test_an_engine_is_entered_once_at_a_time(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    async with engine:
        with pytest.raises(RuntimeError, match="entered already"):
            await engine.__aenter__()
        assert await ended(await engine.run(one_call())) == "completed"
    async with engine:
        assert await ended(await engine.run(one_call())) == "completed"


async def test_another_event_loop_is_sent_away(engine: Engine) -> None:
    run = await engine.run(ASKING)

    def elsewhere(asked: Callable[[], Awaitable[object]]) -> None:
        async def ask() -> None:
            await asked()

        asyncio.run(ask())

    for asked in (run.cancel, run.wait, lambda: engine.run(one_call())):
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(elsewhere, asked)
    # As the message says:
    loop = asyncio.get_running_loop()

    def from_thread() -> bool:
        return asyncio.run_coroutine_threadsafe(run.cancel(), loop).result(WAIT_S)

    assert await asyncio.to_thread(from_thread)


# What its functions do


async def test_a_function_that_raises_what_is_no_exception_fails_its_node_alone(
    tmp_path: Path,
) -> None:
    def sync() -> None:
        raise Interrupted("sync")

    async def later() -> None:
        await asyncio.sleep(0)
        raise BaseExceptionGroup("later", [Interrupted()])

    release = asyncio.Event()
    async with opened(tmp_path, sync=sync, later=later, slow=release.wait) as engine:
        healthy = await engine.run(one_call("slow"))
        for name, told in (("sync", "Interrupted: sync"), ("later", "BaseExceptionGroup: later")):
            run = await engine.run(one_call(name))
            assert await ended(run) == "failed"
            assert told in run.detail
        release.set()
        assert await ended(healthy) == "completed"


async def test_a_function_that_cancels_its_own_task_fails_its_node(tmp_path: Path) -> None:
    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with opened(tmp_path, body=body) as engine:
        run = await engine.run(one_call("body"))
        assert await ended(run) == "failed"
        assert "cancelled its own task" in run.detail
        assert await ended(await engine.run(one_call())) == "completed"


# How it ends


async def test_runs_of_an_engine_that_failed_go_on_in_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow() -> None:
        await asyncio.sleep(WAIT_S * 10)

    async def broken() -> int:
        raise ZeroDivisionError("a mistake of ours")

    runs: list[Run] = []

    async def use() -> None:
        async with opened(tmp_path, slow=slow) as engine:
            runs.append(await engine.run(one_call("slow")))
            while not [e for e in runs[0].events() if e.event == "node_started"]:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(engine.parts.engine, "steps", {"broken": broken})
            await asyncio.sleep(WAIT_S)

    with pytest.raises(BaseExceptionGroup):
        await use()
    async with opened(tmp_path, slow=lambda: 2) as engine:
        assert await ended(engine.get_run(runs[0].run_id)) == "completed"


async def test_leaving_that_is_cut_off_leaves_nothing_running(tmp_path: Path) -> None:
    stubborn = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(WAIT_S * 10)
        except asyncio.CancelledError:
            await stubborn.wait()
            raise

    left = asyncio.Event()

    run_ids: list[str] = []

    async def use() -> None:
        async with opened(tmp_path, slow=slow) as engine:
            run = await engine.run(one_call("slow"))
            run_ids.append(run.run_id)
            while not [e for e in run.events() if e.event == "node_started"]:
                await asyncio.sleep(0.01)
            left.set()

    before = asyncio.all_tasks()
    using = asyncio.create_task(use())
    await left.wait()
    for _ in range(5):
        await asyncio.sleep(0.01)
    using.cancel()
    await asyncio.sleep(0.05)
    stubborn.set()
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(asyncio.CancelledError):
            await using
    assert asyncio.all_tasks() == before
    async with opened(tmp_path, slow=lambda: 2) as engine:
        assert await ended(engine.get_run(run_ids[0])) == "completed"


FORKING = """
import asyncio, os, sys, time
from tandem import Automation, Engine

NODE = {"node_id": "n", "action": {"kind": "python", "function": "test:slow"}}

async def slow():
    print("RUNS", flush=True)
    await asyncio.sleep(1000)

async def main():
    functions = {"test:slow": slow}
    async with Engine.open(sys.argv[1], functions=functions) as engine:
        document = {"automation_id": "one", "nodes": [NODE]}
        run = await engine.run(Automation.from_dict(document))
        while run.status != "running":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        print("CHILD", child, run.run_id, flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_a_forked_child_does_not_keep_a_dead_engine_alive(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, url], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        words: list[str] = []
        while not words or words[0] != "CHILD":
            words = parent.stdout.readline().split()
            assert words, "the program has ended"
        parent.kill()
        parent.wait(WAIT_S)
    child, run_id = int(words[1]), words[2]
    try:
        functions = {"test:slow": lambda: 2}
        began = time.monotonic()
        async with Engine.open(url, functions=functions) as engine:
            assert await ended(engine.get_run(run_id)) == "completed"
        # Long before a lease would have run out.
        assert time.monotonic() - began < WAIT_S
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
