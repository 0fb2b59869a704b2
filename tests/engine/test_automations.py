"""Stored automations through the Python API."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tandem import Automation, Engine
from tandem.domain.errors import NotFound, Refused
from tandem.domain.execution import ExecutionProfile
from tests.engine.conftest import WAIT_S, Bench, call, command, events


def job(*nodes: dict[str, Any], **fields: Any) -> Any:
    chosen = list(nodes) or [call("a")]
    return Automation.from_dict({"automation_id": "job", **fields, "nodes": chosen})


async def test_a_saved_automation_runs_and_names_its_version(bench: Bench) -> None:
    stored = await bench.engine.apply(job(), by="ann")
    await bench.engine.apply(job(call("a"), call("b")), by="ann", expected_version=1)
    run = await stored.run(reason="because")
    assert await bench.end(run) == "completed"
    row = run.row
    assert (row.automation_version, row.nodes_total, row.trigger_reason) == (2, 2, "because")
    assert row.definition_version.startswith("automation:job@")
    assert len(stored.definition(1).nodes) == 1
    assert [record.event for record in stored.records()] == [
        "automation_created",
        "automation_updated",
    ]
    assert [row.automation_id for row in bench.engine.automations()] == ["job"]
    assert bench.engine.automation("job").row == stored.row
    with pytest.raises(NotFound):
        bench.engine.automation("none")


async def test_a_pause_pauses_the_running_run_and_holds_the_next(bench: Bench) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def body() -> str:
        started.set()
        await go.wait()
        return "done"

    bench.body("slow", body)
    stored = await bench.engine.apply(job(call("a", "slow"), call("b", "ok", "a")))
    running = await stored.run()
    async with asyncio.timeout(WAIT_S):
        await started.wait()
    await stored.pause("too loud", by="eve")
    assert running.status == "pausing"
    go.set()
    assert await bench.rest(running) == "paused"
    assert events(running, "node_completed") == [("node_completed", "a")]
    assert running.row.pause_reason == "too loud"
    queued = await stored.run()
    assert await bench.rest(queued) == "queued"
    assert (queued.row.queue_reason, queued.row.resource_key) == (
        "automation_paused",
        "automation:job",
    )
    await stored.resume()
    assert await bench.end(queued) == "completed"
    await running.resume()
    assert await bench.end(running) == "completed"


async def test_a_draft_runs_dry_only_and_tells_what_would_run(bench: Bench, tmp_path: Path) -> None:
    nodes = (call("a", effects="external"), command("b", "true", "a"))
    stored = await bench.engine.apply(
        job(*nodes, status="draft", inputs={"n": {"type": "integer", "default": 3}})
    )
    with pytest.raises(Refused, match="draft"):
        await stored.run()
    told = await stored.dry_run(workspace=tmp_path / "none")
    assert [(node.stage, node.node_id, node.effects) for node in told.nodes] == [
        (1, "a", "external"),
        (2, "b", "workspace"),
    ]
    assert told.inputs == {"n": 3}
    assert told.obstacles == [
        f"workspace_root `{tmp_path / 'none'}` for automation `job` does not exist"
    ]
    assert not told.can_run
    run = bench.engine.get_run(told.run.run_id)
    assert (run.status, run.detail, run.row.trigger_type) == (
        "completed",
        "dry_run",
        "manual_dry_run",
    )
    assert events(run) == [("run_created", None), ("run_completed_dry", None)]
    assert (await bench.engine.dry_run(job(), workspace=tmp_path)).can_run


async def test_a_dry_run_tells_of_what_is_not_installed(bench: Bench) -> None:
    agent = {"node_id": "think", "agent_id": "x", "objective": "think"}
    automation = Automation.from_dict(
        {
            "automation_id": "job",
            "agents": [{"agent_id": "x"}],
            "nodes": [agent],
        }
    )
    told = await bench.engine.dry_run(automation)
    assert [problem.code for problem in told.problems] == ["agents_not_installed"]
    assert not told.can_run


async def test_a_deleted_automation_is_gone_and_its_runs_stay(bench: Bench) -> None:
    stored = await bench.engine.apply(job())
    run = await stored.run()
    assert await bench.end(run) == "completed"
    await stored.delete()
    with pytest.raises(NotFound):
        await stored.run()
    assert bench.engine.get_run(run.run_id).status == "completed"
    assert bench.engine.automations() == []


async def test_the_profile_comes_from_the_request_the_definition_or_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_DEFAULT_EXECUTION_PROFILE", "yolo")
    functions = {"test:ok": lambda: "ok"}
    async with Engine.open(state_dir=tmp_path, functions=functions) as engine:
        strict = job(execution={"profile": "strict"})
        rows = [
            (await engine.run(automation, profile=profile)).row
            for automation, profile in ((strict, "guided"), (strict, None), (job(), None))
        ]
    found = [(row.requested_execution_profile, row.effective_execution_profile) for row in rows]
    profile = ExecutionProfile
    assert found == [
        (profile.GUIDED, profile.GUIDED),
        (None, profile.STRICT),
        (None, profile.YOLO),
    ]


async def test_a_saved_repair_is_the_next_version_and_never_undoes_another_one(
    bench: Bench,
) -> None:
    once = {"retry_policy": {"max_attempts": 1}}
    stored = await bench.engine.apply(job(call("a"), call("b", "bad", "a", **once)), by="ann")
    run, late = await stored.run(), await stored.run()
    assert await bench.end(run) == await bench.end(late) == "failed"
    mended = {"kind": "python", "function": "test:ok"}

    await run.repair("b", action=mended, save=True, reason="it is ok")

    assert await bench.end(run) == "completed"
    row = bench.engine.automation("job").row
    assert (row.version, row.definition_digest) == (2, run.row.definition_digest)
    assert stored.records()[-1].reason == f"it is ok (run {run.run_id}, node b)"
    assert await bench.end(await bench.engine.automation("job").run()) == "completed"
    with pytest.raises(Refused, match="is at version 2 now"):
        await late.repair("b", action=mended, save=True)
    assert late.status == "failed"
    assert events(late, "run_step_repaired") == []
    await late.repair("b", action=mended)
    assert await bench.end(late) == "completed"
