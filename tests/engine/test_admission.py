"""Engines admit runs: places, workspaces, keys, labels, and what is told of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tandem import Automation
from tandem.domain.admission import holds_keys
from tandem.domain.command import Recover, Resume
from tandem.domain.errors import Refused
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.run import QueueReason, Run
from tandem.domain.standing import Reason, ReasonKind
from tandem.domain.template import MissingReference
from tandem.settings import Settings
from tandem.wiring import Parts, open_engine
from tests.engine.conftest import WAIT_S, Bench, call


def automation(**fields: Any) -> Any:
    return Automation.from_dict({"automation_id": "a", "nodes": [call("n", "work")], **fields})


EXCLUSIVE = {"execution": {"workspace": "exclusive"}}


class Body:
    """A body that waits until it may end; it counts how many run at once."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.running = 0
        self.most = 0
        self.started = asyncio.Semaphore(0)

    async def work(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        self.started.release()
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1
        return "done"


def opened(folder: Path, body: Body, **fields: Any) -> Any:
    settings = Settings(state_dir=folder, **fields)
    return open_engine(settings, registered={"test:work": body.work}, in_process=True)


async def ended(parts: Parts, run: Run) -> str:
    return (await parts.waiters.wait(run.run_id)).status


async def waits_for(parts: Parts, run: Run, reason: QueueReason) -> Run:
    return await parts.waiters.wait(run.run_id, until=lambda row: row.queue_reason is reason)


def reason_of(parts: Parts, run: Run) -> Reason:
    return parts.engine.why(run.run_id)


async def test_single_mode_drives_one_run_at_a_time(tmp_path: Path) -> None:
    body = Body()
    async with asyncio.timeout(WAIT_S), opened(tmp_path, body, mode="single") as parts:
        runs = [await parts.engine.start(automation()) for _ in range(3)]
        await body.started.acquire()

        assert reason_of(parts, runs[1]).kind is ReasonKind.CAPACITY
        body.may_end.set()
        assert [await ended(parts, run) for run in runs] == ["completed"] * 3
    assert body.most == 1


async def test_total_holds_over_two_engines(tmp_path: Path) -> None:
    body = Body()
    async with (
        asyncio.timeout(WAIT_S),
        opened(tmp_path, body, runs_total_max=3, runs_max=2) as one,
        opened(tmp_path, body, runs_total_max=3, runs_max=2) as two,
    ):
        runs = [await one.engine.start(automation()) for _ in range(8)]
        for _ in range(3):
            await body.started.acquire()

        found = reason_of(one, runs[-1])
        assert found.kind is ReasonKind.CAPACITY
        assert "3 of 3 in all" in found.sentence
        assert sum(two.store.count_driven().values()) == 3
        body.may_end.set()
        assert [await ended(one, run) for run in runs] == ["completed"] * 8
    assert body.most == 3


async def test_workspace_goes_from_one_engine_to_the_other(tmp_path: Path) -> None:
    body = Body()
    document = automation(**EXCLUSIVE)
    async with (
        asyncio.timeout(WAIT_S),
        opened(tmp_path, body) as one,
        opened(tmp_path, body) as two,
    ):
        engines = (one, two, one)
        runs = [await p.engine.start(document, workspace=str(tmp_path)) for p in engines]
        await body.started.acquire()
        waiting = [run for run in runs if not is_held(one, run)]
        for run in waiting:
            await waits_for(one, run, QueueReason.WORKSPACE_LOCK)

        (holder,) = [run for run in runs if is_held(one, run)]
        found = reason_of(one, waiting[0])
        assert (found.kind, found.held_by) == (ReasonKind.WORKSPACE_LOCK, (holder.run_id,))
        body.may_end.set()
        assert [await ended(one, run) for run in runs] == ["completed"] * 3
    assert body.most == 1


def is_held(parts: Parts, run: Run) -> bool:
    row = parts.store.find_run(run.run_id, tenant=LOCAL_TENANT)
    assert row is not None
    return holds_keys(row)


async def test_concurrency_key_is_made_from_the_inputs(tmp_path: Path) -> None:
    body = Body()
    document = automation(
        inputs={"place": {"type": "string"}},
        concurrency={"key": "deploy-${inputs.place}", "limit": 1},
    )
    async with asyncio.timeout(WAIT_S), opened(tmp_path, body) as parts:
        places = ("eu", "us", "eu")
        runs = [await parts.engine.start(document, {"place": place}) for place in places]
        for _ in range(2):
            await body.started.acquire()
        await waits_for(parts, runs[2], QueueReason.CONCURRENCY)

        found = reason_of(parts, runs[2])
        assert "1 of 1 places of the concurrency key `deploy-eu`" in found.sentence
        assert found.held_by == (runs[0].run_id,)
        body.may_end.set()
        assert [await ended(parts, run) for run in runs] == ["completed"] * 3


async def test_key_without_its_input_starts_nothing(tmp_path: Path) -> None:
    document = automation(
        inputs={"target": {"type": "object"}},
        concurrency={"key": "${inputs.target.place}"},
    )
    async with opened(tmp_path, Body()) as parts:
        with pytest.raises(MissingReference):
            await parts.engine.start(document, {"target": {}})


async def test_run_waits_for_an_engine_with_its_label(tmp_path: Path) -> None:
    body = Body()
    body.may_end.set()
    async with asyncio.timeout(WAIT_S), opened(tmp_path, body) as parts:
        run = await parts.engine.start(automation(resources={"labels": ["gpu"]}))
        found = reason_of(parts, run)
        assert (found.kind, found.missing) == (ReasonKind.NO_ENGINE, ("gpu",))
        metrics = parts.engine.scheduler_metrics()
        assert metrics.queued_runs_by_reason == {"no_engine": 1}

        async with opened(tmp_path, body, labels=("eu", "gpu")):
            assert await ended(parts, run) == "completed"
        metrics = parts.engine.scheduler_metrics()
        assert (metrics.admitted_total, metrics.completed_total) == (1, 1)


async def test_engine_does_not_take_for_itself_what_it_could_never_claim(tmp_path: Path) -> None:
    async with opened(tmp_path, Body()) as parts:
        document = automation(resources={"labels": ["gpu"]})
        with pytest.raises(Refused, match="label gpu") as refused:
            await parts.engine.start(document, owned=True)
        assert refused.value.code == "labels_missing"

        run = await parts.engine.start(document)
        for command in (
            Resume(owner=parts.engine.engine_id),
            Recover(owner=parts.engine.engine_id),
        ):
            with pytest.raises(Refused, match="label gpu"):
                await parts.engine.execute(run.run_id, command)
        with pytest.raises(Refused, match="label gpu"):
            await parts.engine.take_over(run.run_id, own=True)


async def test_definition_that_can_be_read_again_is_run(tmp_path: Path) -> None:
    import apsw

    body = Body()
    body.may_end.set()
    settings = Settings(state_dir=tmp_path)
    async with open_engine(settings, drives=False) as parts:
        run = await parts.engine.start(automation())
    connection = apsw.Connection(str(settings.store_path))
    connection.execute("UPDATE definition SET document = 'x' || document")
    async with asyncio.timeout(WAIT_S), opened(tmp_path, body) as parts:
        await waits_for(parts, run, QueueReason.DEFINITION_UNREADABLE)
        assert reason_of(parts, run).kind is ReasonKind.DEFINITION_UNREADABLE
        connection.execute("UPDATE definition SET document = substr(document, 2)")
        assert await ended(parts, run) == "completed"
    connection.close()


async def test_why_in_python(bench: Bench) -> None:
    run = await bench.start({"node_id": "ask", "gate": {"required": True}})
    await bench.rest(run)

    assert run.why().kind is ReasonKind.GATE
    assert "`ask`" in run.why().sentence
