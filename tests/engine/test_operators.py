"""What operators do to runs that a real engine drives."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tandem import Engine, Run
from tandem.domain.command import Cancel, DecideGate, Pause, Recover, RetryNode
from tandem.domain.errors import InvalidRequest, NotFound, Refused
from tandem.domain.ids import NodeId
from tandem.domain.lifecycle import RunState
from tests.engine.conftest import WAIT_S, Bench, call, command, events

ONCE = {"max_attempts": 1}


class Body:
    """A body that stays until it is let go; it counts how often it ran and was cut off."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.release = asyncio.Event()
        self.runs = 0
        self.live = 0
        self.most = 0
        self.cut_off = 0

    async def __call__(self) -> str:
        self.runs += 1
        self.live += 1
        self.most = max(self.most, self.live)
        self.began.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        finally:
            self.live -= 1
        return "done"


async def until(run: Run, status: RunState) -> None:
    async with asyncio.timeout(WAIT_S):
        await run._parts.waiters.wait(run.run_id, until=lambda row: row.status is status)


async def test_pause_lets_what_runs_come_to_its_end(bench: Bench) -> None:
    body = Body()
    bench.body("body", body)
    run = await bench.start(call("a", "body"), call("b", "ok", "a"))
    await body.began.wait()

    await run.pause()
    assert run.status == "pausing"
    body.release.set()

    assert await bench.rest(run) == "paused"
    assert (body.cut_off, (await run.outputs())["a"]) == (0, "done")
    await run.resume()
    assert await bench.end(run) == "completed"
    assert body.runs == 1


async def test_pause_at_once_stops_what_runs_and_charges_nothing(bench: Bench) -> None:
    body = Body()
    bench.body("body", body)
    run = await bench.start(call("a", "body", retry_policy=ONCE))
    await body.began.wait()

    await run.pause("stop", now=True)
    await until(run, RunState.PAUSED)

    assert (body.cut_off, body.live) == (1, 0)
    body.release.set()
    await run.resume()
    assert await bench.end(run) == "completed"
    assert (body.runs, body.most) == (2, 1)


async def test_pause_at_once_asks_about_effects_outside(bench: Bench) -> None:
    body = Body()
    bench.body("body", body)
    run = await bench.start(call("a", "body", effects="external"))
    await body.began.wait()

    await run.pause(now=True)
    await until(run, RunState.PAUSED)

    await run.decide("done", node_id="a")
    await run.resume()
    assert await bench.end(run) == "completed"
    assert body.runs == 1


async def test_cancel_answers_at_once_and_a_second_one_is_no_error(bench: Bench) -> None:
    body = Body()
    bench.body("body", body)
    run = await bench.start(call("a", "body"))
    await body.began.wait()

    assert await run.cancel("enough") is True
    assert run.status == "cancelled"
    assert await bench.end(run) == "cancelled"
    assert (body.cut_off, run.row.cleanup) == (1, None)
    assert await run.cancel() is False
    assert events(run)[-1][0] == "run_processes_ended"


async def failed(bench: Bench, **fields: Any) -> Run:
    """Return a failed run of `a`, `b` and `c`; `b` fails."""

    def bad() -> None:
        raise RuntimeError("no")

    bench.body("bad", bad)
    run = await bench.start(
        call("a"), call("b", "bad", "a", retry_policy=ONCE, **fields), call("c", "ok", "b")
    )
    assert await bench.end(run) == "failed"
    return run


async def test_repaired_run_goes_on_with_another_version_and_others_do_not(bench: Bench) -> None:
    run = await failed(bench)
    before = run.row.definition_digest
    other = await failed(bench)
    assert other.row.definition_digest == before

    await run.repair("b", action={"kind": "python", "function": "test:ok"}, reason="it is ok")

    assert await bench.end(run) == "completed"
    assert run.row.definition_digest != before
    assert other.row.definition_digest == before
    assert (await run.outputs())["b"] == "ok"
    await other.retry("b")
    assert await bench.end(other) == "failed"


async def test_exhausted_node_gets_attempts_when_it_is_retried(bench: Bench) -> None:
    run = await failed(bench)
    bench.body("bad", lambda: "good now")
    await run.retry("b", requeue=True)
    assert await bench.end(run) == "completed"
    assert events(run, "run_task_requeued") == [("run_task_requeued", None)]


async def test_blocked_node_is_continued(bench: Bench) -> None:
    answers = iter(["draft", {"n": 1}])
    bench.body("body", lambda: next(answers))
    contract = {
        "kind": "structured_json",
        "schema": {"type": "object"},
        "enforcement": {"repair_budget": 0},
    }
    run = await bench.start(
        call("a", "body", output_contract=contract, retry_policy=ONCE), call("b", "ok", "a")
    )
    assert await bench.end(run) == "blocked"

    await run.continue_blocked("a")

    assert await bench.end(run) == "completed"
    assert (await run.outputs())["a"] == {"n": 1}


async def test_skipped_node_and_output_by_hand_let_the_rest_go_on(bench: Bench) -> None:
    run = await failed(bench)
    await run.skip("b", reason="not today")
    assert await bench.end(run) == "completed"
    skipped = (await run.outputs())["b"]
    assert isinstance(skipped, dict)
    assert skipped["status"] == "skipped"

    await run.set_output("b", {"known": True}, reason="looked it up", decided_by="eve")
    assert await bench.end(run) == "completed"
    assert (await run.outputs())["b"] == {"known": True}
    assert events(run, "run_reopened", "node_output_set") == [
        ("run_reopened", None),
        ("run_reopened", None),
        ("node_output_set", "b"),
    ]


async def test_large_output_by_hand_is_put_aside_and_a_huge_one_refused(bench: Bench) -> None:
    run = await failed(bench)
    large = "x" * 50_000
    await run.set_output("b", large, reason="known")
    assert await bench.end(run) == "completed"
    assert (await run.outputs())["b"] == large
    view = await bench.engine.parts.store.load(run.run_id, tenant=run.row.tenant)
    assert view.node(1).output is None
    with pytest.raises(InvalidRequest) as refused:
        await run.set_output("b", "x" * 20_000_000, reason="known")
    assert refused.value.code == "output_too_large"


async def test_disposition_is_kept_once(bench: Bench) -> None:
    run = await failed(bench)
    assert await run.dispose("a", "ok", reason="fine") is True
    assert await run.dispose("a", "accepted") is False
    assert run.status == "failed"


async def test_preview_writes_nothing(bench: Bench) -> None:
    run = await failed(bench)
    before = run.row
    found = await run.preview(Recover())
    assert found.reset_nodes == ("b", "c")
    assert run.row == before


async def test_preview_of_a_decision_says_who_was_first(bench: Bench) -> None:
    gate = {"node_id": "g", "depends_on": ["a"], "gate": {"required": True}}
    run = await bench.start(call("a"), gate)
    await bench.rest(run)
    await run.decide("approve", decided_by="ada")
    assert await bench.end(run) == "completed"
    late = DecideGate(decision="rework", node_id=NodeId("g"))
    with pytest.raises(Refused) as refused:
        await bench.engine.parts.engine.execute(run.run_id, late)
    found = await run.preview(late)
    assert found.refusal is not None
    assert "decided already: approve by ada" in found.refusal.message
    assert found.refusal.message == str(refused.value)


async def test_same_output_by_hand_again_changes_nothing(bench: Bench) -> None:
    run = await failed(bench)
    await run.set_output("b", {"known": True}, reason="looked it up")
    assert await bench.end(run) == "completed"
    before = run.row
    await run.set_output("b", {"known": True}, reason="looked it up")
    assert run.row == before


async def test_repaired_input_moves_the_run_to_its_own_concurrency_key(bench: Bench) -> None:
    run = await bench.start(
        call("a", "bad", retry_policy=ONCE),
        inputs={"city": {"type": "string"}},
        given={"city": "Rome"},
        concurrency={"key": "${inputs.city}", "limit": 1},
    )
    assert await bench.end(run) == "failed"
    assert run.row.concurrency_key.endswith("/Rome")
    await run.repair("a", inputs={"city": "Oslo"})
    assert run.row.concurrency_key.endswith("/Oslo")


async def test_dead_letter_is_sent_out_again(bench: Bench) -> None:
    run = await failed(bench, effects="external")
    bench.body("bad", lambda: "sent")
    await run.redeliver()
    assert await bench.end(run) == "completed"
    assert events(run, "stateful_dead_letter_retry_requeued") != []


# Forks


async def test_fork_goes_its_own_way_and_the_source_stays(bench: Bench) -> None:
    ran: list[object] = []

    def note(value: object) -> object:
        ran.append(value)
        return value

    bench.body("note", note)
    run = await bench.start(
        call("a", "note", arguments={"value": "${inputs.city}"}),
        call("b", "note", "a", arguments={"value": "${inputs.city}"}),
        inputs={"city": {"type": "string"}},
        given={"city": "Rome"},
    )
    assert await bench.end(run) == "completed"

    fork = await run.fork("b", {"city": "Oslo"}, reason="what if")

    assert await bench.end(fork) == "completed"
    assert ran == ["Rome", "Rome", "Oslo"]
    assert await fork.outputs() == {"a": "Rome", "b": "Oslo"}
    assert await run.outputs() == {"a": "Rome", "b": "Rome"}
    assert (fork.row.forked_from, fork.row.forked_from_node) == (run.run_id, "b")
    (noted,) = [event for event in run.events() if event.event == "run_forked"]
    assert (noted.metadata["run_id"], noted.metadata["node_id"]) == (fork.run_id, "b")
    store = bench.engine.parts.store
    (listed,) = store.list_forks(run.run_id, tenant=run.row.tenant, limit=10)
    assert listed.run_id == fork.run_id


async def test_fork_of_a_running_run_leaves_it_running(bench: Bench) -> None:
    body = Body()
    bench.body("body", body)
    run = await bench.start(call("a"), call("b", "body", "a"))
    await body.began.wait()

    fork = await run.fork(" b ")
    body.release.set()

    assert [await bench.end(run), await bench.end(fork)] == ["completed", "completed"]
    assert events(fork, "node_reused") == [("node_reused", "a")]
    with pytest.raises(NotFound):
        await run.fork("z")


# Deleting


async def test_deleted_run_leaves_nothing_and_shared_outputs_stay(bench: Bench) -> None:
    bench.body("large", lambda: "y" * 50_000)
    run = await bench.start(call("a", "large"), call("b", "ok", "a"))
    assert await bench.end(run) == "completed"
    fork = await run.fork("b")
    assert await bench.end(fork) == "completed"
    (path,) = kept(bench)
    os.utime(path, (0, 0))

    assert await run.delete() == 0
    with pytest.raises(NotFound):
        assert run.row
    assert (await fork.outputs())["a"] == "y" * 50_000
    assert await fork.delete() == 1
    assert kept(bench) == []


async def test_output_that_was_put_just_now_outlives_its_run(bench: Bench) -> None:
    bench.body("large", lambda: "z" * 50_000)
    run = await bench.start(call("a", "large"))
    assert await bench.end(run) == "completed"
    assert await run.delete() == 0
    assert len(kept(bench)) == 1


def kept(bench: Bench) -> list[Path]:
    folder = bench.engine.parts.settings.state_dir / "artifacts"
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_only_an_ended_run_is_deleted(bench: Bench) -> None:
    body = Body()
    bench.body("body", body)
    run = await bench.start(call("a", "body"))
    await body.began.wait()
    with pytest.raises(Refused) as refused:
        await run.delete()
    assert refused.value.code == "run_not_ended"
    body.release.set()
    assert await bench.end(run) == "completed"


# Many


async def test_bulk_tells_of_every_run_and_goes_on_after_a_refusal(bench: Bench) -> None:
    runs = [await failed(bench) for _ in range(3)]
    await runs[1].cancel()
    await runs[1].retry("b")
    assert await bench.end(runs[1]) == "failed"
    ended = await bench.start(call("a"))
    assert await bench.end(ended) == "completed"
    bench.body("bad", lambda: "good")

    results = [r async for r in bench.engine.bulk(Recover(), statuses=("failed", "completed"))]

    assert [(r.done, r.code) for r in results] == [
        (False, "AUTOMATION_V2_RUN_NOT_RECOVERABLE"),
        *[(True, "")] * 3,
    ]
    assert [await bench.end(run) for run in runs] == ["completed"] * 3


async def test_bulk_is_paged_and_can_be_continued(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.engine.bulk.PAGE", 2)
    runs = [await bench.start(call("a")) for _ in range(5)]
    for run in runs:
        await bench.end(run)
    first = [r async for r in bench.engine.bulk(Cancel(), limit=3)]
    rest = [r async for r in bench.engine.bulk(Cancel(), cursor=first[-1].cursor)]
    assert [r.run_id for r in [*first, *rest]] == [run.run_id for run in reversed(runs)]
    assert {(r.done, r.code) for r in [*first, *rest]} == {(True, "already_terminal")}
    old = runs[0].row.created_at_ms
    none = [r async for r in bench.engine.bulk(Cancel(), created_before_ms=old)]
    assert none == []
    assert [r async for r in bench.engine.bulk(Cancel(), automation_id="other")] == []


async def test_body_of_a_command_is_dead_before_the_run_is_paused(
    bench: Bench, tmp_path: Path
) -> None:
    mark = f"MARK={tmp_path.name}"
    up = asyncio.Event()
    bench.engine.parts.engine.listen_to_output(lambda *said: up.set() if "up" in said[3] else None)
    run = await bench.start(
        # In the middle of an `exec` a process has no environment to be known by.
        command("a", "echo up; sleep 60; true", action={"env": {"MARK": tmp_path.name}}),
        workspace=tmp_path,
    )
    async with asyncio.timeout(WAIT_S):
        await up.wait()
    assert processes_with(mark) != []

    await run.pause(now=True)
    await until(run, RunState.PAUSED)

    assert processes_with(mark) == []
    await run.cancel()
    assert await bench.end(run) == "cancelled"


def processes_with(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
    return found


async def test_commands_of_a_client_engine_reach_the_driver(bench: Bench, tmp_path: Path) -> None:
    """What a command line asks is done by the engine that drives the run."""
    from tandem.wiring import open_engine

    body = Body()
    bench.body("body", body)
    run = await bench.start(call("a", "body"))
    await body.began.wait()
    async with open_engine(bench.engine.parts.settings, drives=False) as parts:
        await parts.engine.execute(run.run_id, Pause(now=True))
        await until(run, RunState.PAUSED)
        await parts.engine.execute(run.run_id, RetryNode(node_id="a"))  # type: ignore[arg-type] # a NodeId
    body.release.set()
    assert await bench.end(run) == "completed"
    assert isinstance(bench.engine, Engine)
