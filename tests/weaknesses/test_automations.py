"""What the original gets wrong with stored automations and the start of runs, and ours does not.

Each scenario is run as it is, and with a mutant of our own code under which it must fail.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem import Automation, Engine, Run
from tandem.adapters.sqlite import admitting
from tandem.domain import claiming, start_check
from tandem.domain.command import Claim
from tandem.domain.draft import Draft
from tandem.domain.lifecycle import TERMINAL, RunState
from tandem.embedded import Engine as EmbeddedEngine
from tandem.engine import start
from tandem.engine.engine import Engine as CoreEngine
from tests.engine.conftest import WAIT_S, call

Scenario = Callable[[Path], Awaitable[None]]
QUEUED = 120


@pytest.fixture(autouse=True)
def writes_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant lives in this process; a writer of its own would not have it."""
    monkeypatch.setenv("TANDEM_STORE_WRITER", "inline")


def job(*nodes: dict[str, Any], **fields: Any) -> Any:
    return Automation.from_dict({"automation_id": "job", **fields, "nodes": list(nodes)})


async def _end(run: Run) -> str:
    async with asyncio.timeout(WAIT_S):
        return await run.wait_at_rest()


def _open(folder: Path, functions: dict[str, Any]) -> EmbeddedEngine:
    return Engine.open(state_dir=folder, functions={"test:ok": lambda: "ok", **functions})


# W-08: a run executes the version that it was created with


async def edited_while_it_runs(folder: Path) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        started.set()
        await go.wait()
        return "slow"

    async with _open(folder, {"test:slow": slow}) as engine:
        stored = await engine.apply(job(call("a", "slow"), call("b", "ok", "a")))
        run = await stored.run()
        async with asyncio.timeout(WAIT_S):
            await started.wait()
        await engine.apply(job(call("a", "slow"), call("c", "ok", "a"), call("d", "ok", "c")))
        go.set()
        assert await _end(run) == RunState.COMPLETED
        assert sorted(await run.outputs()) == ["a", "b"]
        assert (run.row.automation_version, run.row.nodes_total) == (1, 2)
        assert (await engine.parts.store.load(run.run_id, tenant=run.row.tenant)).plan.digest == (
            run.row.definition_digest
        )


async def test_w08_a_run_executes_the_version_it_was_created_with(tmp_path: Path) -> None:
    await edited_while_it_runs(tmp_path)


async def test_w08_a_run_executes_the_version_it_was_created_with_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CoreEngine.execute_on_automation

    async def follow(engine: CoreEngine, automation_id: Any, command: Any, **how: Any) -> Any:
        change = await original(engine, automation_id, command, **how)
        engine.store.committer.connection.execute(  # type: ignore[attr-defined]
            "UPDATE run SET definition_digest = ? WHERE automation_id = ?",
            (change.row.definition_digest, automation_id),
        )
        return change

    monkeypatch.setattr(CoreEngine, "execute_on_automation", follow)
    with pytest.raises(AssertionError):
        await edited_while_it_runs(tmp_path)


# W-27: a paused automation holds all its queued runs


async def paused_with_many_queued(folder: Path) -> None:
    done: list[str] = []

    async with _open(folder, {"test:note": lambda: done.append("job")}) as engine:
        stored = await engine.apply(job(call("a", "note")))
        await stored.pause("maintenance", by="eve")
        runs = [await stored.run() for _ in range(QUEUED)]
        other = await engine.run(Automation.from_dict({"automation_id": "x", "nodes": [call("a")]}))
        assert await _end(other) == RunState.COMPLETED
        for run in runs:
            assert await _end(run) == RunState.QUEUED
        assert done == []
        rows = [run.row for run in runs]
        assert {row.resource_key for row in rows} == {"automation:job"}
        reasons = {run.events()[-1].reason for run in runs}
        assert reasons == {"automation `job` is paused by eve: maintenance"}
        await stored.resume()
        for run in runs:
            async with asyncio.timeout(WAIT_S):
                assert await run.wait() == RunState.COMPLETED
        assert len(done) == QUEUED


async def test_w27_a_paused_automation_holds_all_its_queued_runs(tmp_path: Path) -> None:
    await paused_with_many_queued(tmp_path)


async def test_w27_a_paused_automation_holds_all_its_queued_runs_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitting, "hold_of", lambda _row: None)
    with pytest.raises(AssertionError):
        await paused_with_many_queued(tmp_path)


# W-29: a run that fails at its claim has the full record


async def context_missing_at_the_claim(folder: Path) -> None:
    heard: list[str] = []
    work = folder / "work"
    work.mkdir()
    async with _open(folder, {}) as engine:
        engine.parts.engine.listen(
            lambda _view, change: heard.extend(e.event for e in change.events)
        )
        lacking = job(call("a"), metadata={"sharedContextPackIds": ["pack"]})
        run = await engine.run(lacking, workspace=work)
        assert await _end(run) == RunState.FAILED
        row = run.row
        words = "runtime context partition missing for automation run"
        assert row.detail == words
        assert row.finished_at_ms is not None
        assert row.last_failure is not None
        assert row.last_failure.failure_kind == "startup_runtime_context_missing"
        assert [event.event for event in run.events()] == ["run_created", "run_failed_startup"]
        assert heard == ["run_failed_startup"]
        file = work / ".tandem" / "runs" / run.run_id / "status.json"
        assert file.exists()
        assert msgspec.json.decode(file.read_bytes())["detail"] == words


async def test_w29_a_run_that_fails_at_its_claim_has_the_full_record(tmp_path: Path) -> None:
    await context_missing_at_the_claim(tmp_path)


async def test_w29_a_run_that_fails_at_its_claim_has_the_full_record_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CoreEngine._announce

    def only_of_driven_runs(engine: CoreEngine, view: Any, change: Any) -> None:
        if change.status_before is not RunState.QUEUED:
            original(engine, view, change)

    monkeypatch.setattr(CoreEngine, "_announce", only_of_driven_runs)
    with pytest.raises(AssertionError):
        await context_missing_at_the_claim(tmp_path)


async def test_w29_is_caught_when_the_claim_does_not_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_draft: Draft, _command: Claim) -> bool:
        return False

    monkeypatch.setattr(claiming, "refuse_claim", never)
    with pytest.raises(AssertionError):
        await context_missing_at_the_claim(tmp_path)


# W-38: the clean-up at the first start touches nothing that may be another run's


async def declared_output_of_another_run(folder: Path) -> None:
    work = folder / "work"
    (work / ".tandem" / "runs" / "other" / "artifacts").mkdir(parents=True)
    kept = [
        work / "report.md",
        work / "out.md",
        work / ".tandem" / "runs" / "other" / "artifacts" / "a.md",
    ]
    for path in kept:
        path.write_text("of another run")
    node = call(
        "a",
        metadata={
            "artifact": {"path": "report.md"},
            "builder": {"output_files": [".tandem/runs/other/artifacts/a.md"]},
        },
    )
    async with _open(folder, {}) as engine:
        run = await engine.run(job(node, output_targets=["out.md"]), workspace=work)
        # Whether files that it did not write let it count as completed is another matter.
        assert await _end(run) in TERMINAL
    for path in kept:
        assert path.exists()


async def test_w38_a_first_start_removes_nothing_of_other_runs(tmp_path: Path) -> None:
    await declared_output_of_another_run(tmp_path)


async def test_w38_a_first_start_removes_nothing_of_other_runs_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        start, "own_leftovers", lambda automation, _run_id: tuple(start_check._declared(automation))
    )
    with pytest.raises(AssertionError):
        await declared_output_of_another_run(tmp_path)
