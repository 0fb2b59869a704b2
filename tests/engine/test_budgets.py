"""Budgets of runs on a real engine and store."""

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tandem import Automation, Engine, Run
from tandem.domain.errors import Refused
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.run import Attempt, AttemptEnd
from tandem.domain.usage import COST_USD_MAX, COUNT_MAX, NANO_PER_USD, USED_MAX, Spending
from tandem.testing.builders import automation, python_node
from tandem.testing.executor import Script
from tests.engine.conftest import WAIT_S, Bench, call, command, events
from tests.small_world import SmallWorld

SPEND = (
    'echo \'{"prompt_tokens": 60, "completion_tokens": 40, "tool_calls": 1}\' >> $TANDEM_USAGE_FILE'
)


async def until_row(run: Run, holds: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds(run.row):
            await asyncio.sleep(0.01)


def attempts_of(bench: Bench, run: Run) -> list[Attempt]:
    return list(bench.engine.parts.store.list_attempts(run.run_id, tenant=run.row.tenant))


def usage_of_attempts(bench: Bench, run: Run) -> list[int | None]:
    return [a.usage.total_tokens if a.usage else None for a in attempts_of(bench, run)]


async def test_usage_of_every_body_is_summed_up_in_the_run(bench: Bench, tmp_path: Path) -> None:
    def here(context: SimpleNamespace) -> None:
        context.report_usage(prompt_tokens=5, cost_usd=0.5)

    bench.body("here", here)
    run = await bench.start(
        call("here", "here"),
        command("there", f"{SPEND}; {SPEND}"),
        call("free"),
        workspace=tmp_path,
    )

    assert await bench.end(run) == "completed"
    assert sorted(usage_of_attempts(bench, run), key=str) == [200, 5, None]
    row = run.row
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (125, 80, 205)
    assert (row.tool_calls, row.usage.cost_usd) == (2, 0.5)


async def test_run_is_stopped_at_its_budget_and_goes_on_when_it_is_raised(bench: Bench) -> None:
    bench.body("spend", lambda context: context.report_usage(total_tokens=10))
    run = await bench.start(
        call("a", "spend"), call("b", "spend", "a"), execution={"max_total_tokens": 10}
    )
    assert await bench.rest(run) == "paused"
    assert run.row.stop_kind is StopKind.GUARDRAIL_STOPPED
    assert run.detail == "run exceeded max_total_tokens (10/10)"
    assert run.why().kind == "budget"
    with pytest.raises(Refused, match="tandem runs allow"):
        await run.resume()
    assert run.row.event_seq == run.events()[-1].seq, "a refusal leaves no trace"

    await run.allow(reason="worth it", tokens=30)

    assert await bench.end(run) == "completed"
    assert run.row.total_tokens == 20
    assert run.row.auto_resumes == 0


async def test_body_that_spends_without_asking_is_ended(bench: Bench, tmp_path: Path) -> None:
    run = await bench.start(
        command("greedy", f"for i in 1 2 3 4 5 6 7 8 9; do {SPEND}; sleep 1; done"),
        execution={"max_total_tool_calls": 1},
        workspace=tmp_path,
    )
    assert await bench.rest(run) == "paused"
    assert run.row.tool_calls == 1
    assert run.detail == "run exceeded max_total_tool_calls (1/1)"
    attempts = bench.engine.parts.store.list_attempts(run.run_id, tenant=run.row.tenant)
    assert [a.outcome for a in attempts] == [AttemptEnd.STOPPED]


async def test_body_that_does_not_spend_is_let_to_its_end(bench: Bench, tmp_path: Path) -> None:
    began, release = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        began.set()
        await release.wait()
        return "kept"

    bench.body("slow", slow)
    bench.body("spend", lambda context: context.report_usage(cost_usd=2))
    run = await bench.start(
        call("slow", "slow"),
        call("spend", "spend"),
        call("next", "ok", "spend"),
        execution={"max_total_cost_usd": 1.5},
    )
    await began.wait()
    await until_row(run, lambda row: row.status is RunState.PAUSING)
    release.set()
    assert await bench.rest(run) == "paused"
    assert run.detail == "run exceeded max_total_cost_usd (2.0000/1.5000)"
    assert await run.outputs() == {"slow": "kept", "spend": None}


async def test_runtime_is_reached_while_one_long_body_runs(bench: Bench) -> None:
    async def long() -> None:
        await asyncio.Event().wait()

    bench.body("long", long)
    run = await bench.start(call("long", "long"), execution={"max_total_runtime_ms": 150})
    assert await bench.rest(run) == "paused"
    row = run.row
    found = re.fullmatch(r"run exceeded max_total_runtime_ms \((\d+)/150\)", row.stop_reason)
    assert found is not None
    assert 150 <= int(found[1]) <= row.active_ms < 5_000
    assert row.active_since_ms is None


async def test_usage_is_in_the_store_while_the_body_runs(bench: Bench) -> None:
    release = asyncio.Event()

    async def slow(context: SimpleNamespace) -> None:
        context.report_usage(total_tokens=7)
        await release.wait()
        context.report_usage(total_tokens=1)

    bench.body("slow", slow)
    run = await bench.start(call("slow", "slow"))
    await until_row(run, lambda row: row.total_tokens == 7)
    assert usage_of_attempts(bench, run) == [7]
    assert events(run)[-1] == ("usage_recorded", None)
    release.set()
    assert await bench.end(run) == "completed"
    assert run.row.total_tokens == 8


async def test_usage_of_a_cancelled_run_is_not_lost(bench: Bench) -> None:
    began = asyncio.Event()

    async def slow(context: SimpleNamespace) -> None:
        context.report_usage(total_tokens=7)
        began.set()
        await asyncio.Event().wait()

    bench.body("slow", slow)
    run = await bench.start(call("slow", "slow"))
    await began.wait()
    await run.cancel()
    assert await bench.end(run) == "cancelled"
    await until_row(run, lambda row: row.total_tokens == 7)
    assert usage_of_attempts(bench, run) == [7]


async def test_node_that_calls_too_many_tools_fails_and_is_not_tried_again(
    bench: Bench, tmp_path: Path
) -> None:
    run = await bench.start(
        command("greedy", f"{SPEND}; {SPEND}; {SPEND}; sleep 60", max_tool_calls=2),
        workspace=tmp_path,
    )
    assert await bench.end(run) == "failed"
    assert "node `greedy` exceeded max_tool_calls (3/2)" in run.detail
    (attempt,) = bench.engine.parts.store.list_attempts(run.run_id, tenant=run.row.tenant)
    assert attempt.failure_class == "budget_exceeded"


async def test_clock_and_price_come_from_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_RUNTIME_BUDGET_CLOCK", "wall")
    monkeypatch.setenv("TANDEM_TOKEN_COST_PER_1K_USD", "0.2")

    def spend(context: SimpleNamespace) -> None:
        context.report_usage(prompt_tokens=500)

    document = {"automation_id": "x", "nodes": [call("a", "spend")]}
    store = f"sqlite:///{tmp_path}/t.db"
    async with Engine.open(store, functions={"test:spend": spend}) as engine:
        run = await engine.run(Automation.from_dict(document))
        async with asyncio.timeout(WAIT_S):
            assert await run.wait() == "completed"
        assert run.row.usage.cost_usd == 0.1
        assert run.row.runtime_clock == "wall"


async def test_usage_beyond_what_can_be_counted_ends_no_run(bench: Bench) -> None:
    def spend(context: SimpleNamespace) -> None:
        for _ in range(USED_MAX // (COST_USD_MAX * NANO_PER_USD) + 100):
            context.report_usage(total_tokens=COUNT_MAX, cost_usd=COST_USD_MAX)

    bench.body("spend", spend)
    run = await bench.start(call("a", "spend"), call("b", "spend", "a"))

    assert await bench.end(run) == "completed", run.detail
    assert run.row.cost_nano_usd == USED_MAX
    assert run.row.total_tokens == 2 * COUNT_MAX * 9_323
    assert [attempt.usage.cost_nano_usd for attempt in attempts_of(bench, run)] == [USED_MAX] * 2


def test_calls_of_unknown_size_that_begin_together_go_over_by_one_at_most(tmp_path: Path) -> None:
    world = SmallWorld(tmp_path / "tandem.db")
    nodes = [python_node(name) for name in "abcd"]
    limited = automation(*nodes, limits={"max_total_tokens": 150}, parallel=4)
    script = Script(duration_ms=5, calls=1, asks=True, call=Spending(total_tokens=100))

    async def story() -> None:
        async with world.engine() as engine:
            run_id = await world.start(engine, limited, **dict.fromkeys("abcd", script))
            await world.until_status(run_id, RunState.PAUSED)
        assert world.row(run_id).total_tokens == 200
        assert world.row(run_id).stop_kind is StopKind.GUARDRAIL_STOPPED

    world.tell(story())


def test_attempt_that_waits_for_the_calls_of_others_is_not_idle(tmp_path: Path) -> None:
    world = SmallWorld(tmp_path / "tandem.db")
    nodes = [{**python_node(name), "idle_timeout_ms": 100} for name in "abcd"]
    limited = automation(*nodes, limits={"max_total_tokens": 10_000}, parallel=4)
    script = Script(duration_ms=80, calls=1, asks=True, call=Spending(total_tokens=100))

    async def story() -> None:
        async with world.engine() as engine:
            run_id = await world.start(engine, limited, **dict.fromkeys("abcd", script))
            await world.until_status(run_id, RunState.COMPLETED, RunState.FAILED)
        assert world.row(run_id).status is RunState.COMPLETED, world.row(run_id).detail
        assert [attempt.number for attempt in attempts_in(world, run_id)] == [1] * 4

    world.tell(story())


def attempts_in(world: SmallWorld, run_id: RunId) -> list[Attempt]:
    return list(world.store.list_attempts(run_id, tenant=LOCAL_TENANT))
