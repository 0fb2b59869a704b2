"""Runs driven by a real engine on a real store."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tandem import Run
from tandem.domain.errors import InvalidAutomation, Refused
from tandem.domain.run import AttemptEnd, GateStatus
from tests.engine.conftest import Bench, call, command, events


async def test_outputs_of_a_chain_reach_the_next_node(bench: Bench) -> None:
    bench.body("double", lambda value: {"value": value * 2})
    run = await bench.start(
        call("first", "double", arguments={"value": "${inputs.start}"}),
        call("second", "double", "first", arguments={"value": "${nodes.first.output.value}"}),
        inputs={"start": {"type": "integer", "default": 5}},
    )
    assert await bench.end(run) == "completed"
    assert await run.outputs() == {"first": {"value": 10}, "second": {"value": 20}}


async def test_a_slow_node_holds_back_nobody(bench: Bench) -> None:
    release = asyncio.Event()

    async def slow() -> str:
        await release.wait()
        return "slow"

    async def last() -> str:
        release.set()  # only reached when the fast chain went on beside the slow node
        return "fast"

    bench.body("slow", slow)
    bench.body("last", last)
    run = await bench.start(
        call("slow", "slow"), call("a"), call("b", "ok", "a"), call("c", "last", "b")
    )
    assert await bench.end(run) == "completed"


async def test_a_body_that_ends_a_limit_of_its_own_holds_back_nobody(bench: Bench) -> None:
    """A limit cancels the task, whose body goes on; clients of HTTP do so at each connection."""
    within, release = asyncio.Event(), asyncio.Event()

    async def limited() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        within.set()
        await release.wait()
        task.uncancel()
        return "limited"

    async def last() -> None:
        release.set()

    bench.body("limited", limited)
    bench.body("within", within.wait)
    bench.body("last", last)
    run = await bench.start(
        call("limited", "limited"),
        call("a", "within"),
        call("b", "ok", "a"),
        call("c", "last", "b"),
    )
    assert await bench.end(run) == "completed"


async def test_max_parallel_agents_is_never_exceeded(bench: Bench) -> None:
    live = most = 0

    async def body() -> None:
        nonlocal live, most
        live += 1
        most = max(most, live)
        for _ in range(5):
            await asyncio.sleep(0)
        live -= 1

    bench.body("body", body)
    nodes = [call(f"n{i}", "body") for i in range(20)]
    run = await bench.start(*nodes, execution={"max_parallel_agents": 3})
    assert await bench.end(run) == "completed"
    assert most == 3


async def test_a_failed_attempt_is_tried_again_and_each_attempt_is_a_row(bench: Bench) -> None:
    calls = 0

    def flaky() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError(f"no luck {calls}")
        return "done"

    bench.body("flaky", flaky)
    run = await bench.start(call("flaky", "flaky"))
    assert await bench.end(run) == "completed"
    attempts = bench.engine.parts.store.list_attempts(run.run_id, tenant=run.row.tenant)
    assert [a.outcome for a in attempts] == [
        AttemptEnd.FAILED,
        AttemptEnd.FAILED,
        AttemptEnd.SUCCEEDED,
    ]
    assert "no luck 1" in attempts[0].message


async def test_a_run_fails_when_the_attempts_are_used_up_and_resumes_from_there(
    bench: Bench,
) -> None:
    broken, first = True, 0

    def body() -> str:
        if broken:
            raise RuntimeError("broken")
        return "mended"

    def count() -> int:
        nonlocal first
        first += 1
        return first

    bench.body("body", body)
    bench.body("count", count)
    run = await bench.start(call("a", "count"), call("b", "body", "a"))
    assert await bench.end(run) == "failed"
    failure = run.row.last_failure
    assert failure is not None
    assert failure.node_id == "b"
    assert "broken" in failure.reason

    broken = False
    await run.resume()
    assert await bench.end(run) == "completed"
    assert first == 1  # what was completed is not run again
    assert run.row.last_failure is None


async def test_backoff_parks_the_run_and_does_not_hold_a_place(bench: Bench) -> None:
    calls = 0

    def flaky() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("later")
        return "done"

    bench.body("flaky", flaky)
    policy = {"backoff": {"strategy": "fixed", "initial_delay_ms": 30}}
    run = await bench.start(call("flaky", "flaky", retry_policy=policy))
    assert await bench.end(run) == "completed"
    assert ("run_parked_on_backoff", None) in events(run)


async def test_a_timer_parks_only_when_nothing_else_can_run(bench: Bench) -> None:
    run = await bench.start(
        {"node_id": "wait", "wait": {"kind": "timer", "delay_ms": 50}},
        call("free"),
        call("after", "ok", "wait"),
    )
    assert await bench.end(run) == "completed"
    order = [event for event, _ in events(run)]
    assert order.index("node_completed") < order.index("run_parked_on_wait")


async def test_a_gate_waits_for_a_person_and_reworks_what_it_names(bench: Bench) -> None:
    drafts = 0

    def draft() -> int:
        nonlocal drafts
        drafts += 1
        return drafts

    bench.body("draft", draft)
    run = await bench.start(
        call("draft", "draft"),
        {"node_id": "ask", "depends_on": ["draft"], "gate": {"required": True}},
        call("publish", "ok", "ask"),
    )
    assert await bench.rest(run) == "awaiting_approval"
    with pytest.raises(Refused, match="does not offer `maybe`"):
        await run.decide("maybe")
    await run.decide("rework", reason="again")
    async with asyncio.timeout(10):
        while drafts < 2 or run.status != "awaiting_approval":
            await asyncio.sleep(0)
    await run.decide("approve", decided_by="ada")
    assert await bench.end(run) == "completed"
    outputs: Any = await run.outputs()
    assert outputs["ask"]["decided_by"] == "ada"
    assert outputs["draft"] == 2
    with pytest.raises(Refused, match="no open gate"):
        await run.decide("approve")


async def test_a_gate_does_not_hold_back_independent_nodes_and_is_decided_while_running(
    bench: Bench,
) -> None:
    release = asyncio.Event()
    bench.body("slow", release.wait)
    run = await bench.start(
        {"node_id": "ask", "gate": {"required": True}},
        call("slow", "slow"),
        call("after", "ok", "ask"),
    )
    async with asyncio.timeout(10):
        while ("gate_opened", "ask") not in events(run):
            await asyncio.sleep(0)
    assert run.status == "running"
    await run.decide("approve")
    async with asyncio.timeout(10):
        while ("node_completed", "after") not in events(run):
            await asyncio.sleep(0)
    release.set()
    assert await bench.end(run) == "completed"


async def test_a_refused_gate_cancels_the_run(bench: Bench) -> None:
    run = await bench.start({"node_id": "ask", "gate": {"required": True}})
    assert await bench.rest(run) == "awaiting_approval"
    await run.decide("reject", reason="not good enough")
    assert await bench.end(run) == "cancelled"
    assert run.row.stop_reason == "not good enough"


async def test_pause_lets_the_attempt_end_and_resume_goes_on(bench: Bench) -> None:
    release = asyncio.Event()
    bench.body("slow", release.wait)
    run = await bench.start(call("slow", "slow"), call("after", "ok", "slow"))
    async with asyncio.timeout(10):
        while run.status != "running" or not events(run, "node_started"):
            await asyncio.sleep(0)
    await run.pause()
    assert run.status == "pausing"
    release.set()
    assert await bench.rest(run) == "paused"
    assert events(run, "node_completed") == [("node_completed", "slow")]
    await run.resume()
    assert await bench.end(run) == "completed"


async def test_cancel_ends_the_processes_before_it_is_over(bench: Bench) -> None:
    run = await bench.start(command("sleep", "setsid sleep 600 & sleep 600"))
    async with asyncio.timeout(20):
        while len(processes_of(run)) < 2:
            await asyncio.sleep(0.01)
    await run.cancel("enough")
    assert run.status == "cancelled"
    assert await bench.end(run) == "cancelled"
    assert processes_of(run) == []
    assert events(run)[-1] == ("run_processes_ended", None)
    assert await run.cancel() is False


def processes_of(run: Run) -> list[str]:
    mark = f"TANDEM_RUN_ID={run.run_id}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                found.append(environment.parent.name)
    return found


async def test_timeouts_kill_and_say_which_limit(bench: Bench) -> None:
    once = {"max_attempts": 1}
    run = await bench.start(
        command("late", "sleep 600", timeout_ms=100, retry_policy=once),
    )
    assert await bench.end(run) == "failed"
    assert "timed out after 100 ms" in run.row.last_failure.reason  # type: ignore[union-attr]
    run = await bench.start(
        command("quiet", "sleep 600", idle_timeout_ms=100, retry_policy=once),
    )
    assert await bench.end(run) == "failed"
    assert "idle timed out" in run.row.last_failure.reason  # type: ignore[union-attr]


async def test_output_over_the_inline_bound_becomes_an_artifact(bench: Bench) -> None:
    text = "x" * 100_000
    bench.body("large", lambda: text)
    bench.body("length", lambda text: len(text))
    run = await bench.start(
        call("large", "large"),
        call("length", "length", "large", arguments={"text": "${nodes.large.output}"}),
    )
    assert await bench.end(run) == "completed"
    view = await bench.engine.parts.store.load(run.run_id, tenant=run.row.tenant)
    node = view.node(0)
    assert node.output is None
    assert node.output_ref is not None
    assert node.output_ref.size_bytes == len(text) + 2
    assert (await run.outputs())["length"] == 100_000


async def test_a_missing_reference_says_what_is_there(bench: Bench) -> None:
    bench.body("make", lambda: {"right": 1})
    run = await bench.start(
        call("make", "make"),
        call("use", "ok", "make", arguments={"x": "${nodes.make.output.wrong}"}),
    )
    assert await bench.end(run) == "failed"
    reason = run.row.last_failure.reason  # type: ignore[union-attr]
    assert "nodes.make.output.wrong" in reason
    assert "right" in reason


async def test_an_agent_node_is_refused_with_what_to_install(bench: Bench) -> None:
    with pytest.raises(InvalidAutomation, match=r"tandem-engine\[agents\]"):
        await bench.start(
            {"node_id": "think", "agent_id": "a", "objective": "think"}, agents=[{"agent_id": "a"}]
        )


async def test_an_interrupted_node_with_outside_effects_asks(bench: Bench) -> None:
    started = asyncio.Event()

    async def send() -> None:
        started.set()
        await asyncio.Event().wait()

    bench.body("send", send)
    run = await bench.start(call("send", "send", effects="external"), call("after", "ok", "send"))
    await started.wait()
    engine = bench.engine.parts.engine
    driver = engine._drives.find(run.run_id)
    assert driver is not None
    driver.hand_back()
    assert await bench.rest(run) == "awaiting_approval"
    await run.decide("done", reason="saw it arrive")
    assert await bench.end(run) == "completed"
    assert len(events(run, "node_started")) == 2


async def test_the_inbox_shows_no_gate_of_a_failed_run_until_it_is_recovered(bench: Bench) -> None:
    broken = True

    def body() -> None:
        if broken:
            raise RuntimeError("broken")

    bench.body("body", body)
    run = await bench.start(
        {"node_id": "ask", "gate": {"required": True}},
        call("broken", "body", retry_policy={"max_attempts": 1}),
    )
    store = bench.engine.parts.store

    def inbox() -> list[str]:
        found = store.list_gates(
            tenant=run.row.tenant, status=GateStatus.OPEN, run_id=None, limit=10
        )
        return [waiting.gate.node_id for waiting in found]

    assert await bench.end(run) == "failed"
    assert inbox() == []
    broken = False
    await run.resume()
    assert await bench.rest(run) == "awaiting_approval"
    assert inbox() == ["ask"]
    await run.decide("approve")
    assert await bench.end(run) == "completed"
