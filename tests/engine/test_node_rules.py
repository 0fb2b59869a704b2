"""The rules of nodes on a real engine: files, reviews, profiles, violations."""

import asyncio
from pathlib import Path
from typing import Any

from tests.engine.conftest import Bench, call, command, events

ONCE = {"retry_policy": {"max_attempts": 1}}


async def test_a_promised_file_that_is_gone_at_the_end_is_written_again(
    bench: Bench, tmp_path: Path
) -> None:
    contract = {"required_files": ["out.txt"]}
    run = await bench.start(
        command("write", "date > out.txt; echo x >> writes", output_contract=contract),
        command("spoil", "test -e spoilt || rm out.txt; touch spoilt", "write"),
        workspace=tmp_path,
    )

    assert await bench.end(run) == "completed"
    assert (tmp_path / "out.txt").read_text().strip()
    assert (tmp_path / "writes").read_text() == "x\nx\n"
    assert events(run, "run_completion_repair_requested", "node_recovered") == [
        ("run_completion_repair_requested", "write"),
        ("node_recovered", "write"),
    ]


async def test_a_run_without_its_output_target_fails(bench: Bench, tmp_path: Path) -> None:
    run = await bench.start(command("n", "true"), workspace=tmp_path, output_targets=["report.md"])

    assert await bench.end(run) == "failed"
    assert run.row.detail == "output target `report.md`: it was not written"


async def test_an_output_target_outside_the_workspace_is_refused(
    bench: Bench, tmp_path: Path
) -> None:
    run = await bench.start(command("n", "true"), workspace=tmp_path, output_targets=["../x"])

    assert await bench.end(run) == "failed"
    assert "not a path inside the workspace" in run.row.detail


async def test_an_output_target_is_found_in_an_output_that_was_put_aside(
    bench: Bench, tmp_path: Path
) -> None:
    bench.body("big", lambda: {"report": "report.md", "padding": "x" * 40_000})
    (tmp_path / "report.md").write_text("fresh")
    run = await bench.start(call("n", "big"), workspace=tmp_path, output_targets=["report.md"])

    assert await bench.end(run) == "completed"


async def test_a_run_without_a_workspace_has_no_files(bench: Bench) -> None:
    run = await bench.start(call("n"), output_targets=["report.md"])

    assert await bench.end(run) == "failed"
    assert "report.md" in run.row.detail


async def test_a_rejected_draft_is_written_again_with_the_reason(bench: Bench) -> None:
    told: list[list[str]] = []

    def draft(context: Any) -> str:
        told.append(list(context.repair))
        return "a draft"

    def review() -> dict[str, Any]:
        return {"approved": len(told) > 1, "reason": "no sources"}

    bench.body("draft", draft)
    bench.body("review", review)
    run = await bench.start(
        call("d", "draft"), call("r", "review", "d", stage_kind="review"), call("after", "ok", "r")
    )

    assert await bench.end(run) == "completed"
    assert told == [[], ["review `r` did not approve: no sources"]]
    assert events(run, "node_approval_rollback") == [("node_approval_rollback", "r")]
    assert len(events(run, "run_execution_claimed")) == 1


async def test_a_rejection_stops_what_was_made_from_the_draft(bench: Bench) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    drafts: list[int] = []

    async def slow() -> str:
        if begun.is_set():
            return "from the second draft"
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    async def review() -> dict[str, Any]:
        await begun.wait()
        return {"approved": len(drafts) > 1}

    bench.body("draft", lambda: drafts.append(1))
    bench.body("slow", slow)
    bench.body("review", review)
    run = await bench.start(
        call("d", "draft"), call("r", "review", "d", stage_kind="review"), call("s", "slow", "d")
    )

    assert await bench.end(run) == "completed"
    assert ended.is_set()
    assert (await run.outputs())["s"] == "from the second draft"


async def test_guided_lets_a_missing_section_pass_and_strict_does_not(bench: Bench) -> None:
    bench.body("text", lambda: "# Title")
    node = call("n", "text", output_contract={"required_sections": ["Sources"]}, **ONCE)

    guided = await bench.start(node)
    assert await bench.end(guided) == "completed"
    assert events(guided, "node_relaxed") == [("node_relaxed", "n")]
    strict = await bench.start(node, execution={"profile": "strict"})
    assert await bench.end(strict) == "blocked"


async def test_yolo_accepts_a_rejecting_review(bench: Bench) -> None:
    bench.body("review", lambda: {"approved": False})
    run = await bench.start(
        call("d"), call("r", "review", "d", stage_kind="review"), execution={"profile": "yolo"}
    )

    assert await bench.end(run) == "completed"


async def test_a_schema_violation_holds_the_run_until_it_is_resumed(bench: Bench) -> None:
    bench.body("body", lambda context: {"n": 1} if context.repair else [])
    contract = {"schema": {"type": "object"}}
    metadata = {"on_schema_violation": "pause"}
    run = await bench.start(call("n", "body", output_contract=contract, metadata=metadata))

    assert await bench.rest(run) == "paused"
    assert run.row.pause_reason == "schema_validation_failed"
    await run.resume()
    assert await bench.end(run) == "completed"
