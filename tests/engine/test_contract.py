"""The output contract decides what counts, whatever the body says."""

from pathlib import Path
from typing import Any

from tests.engine.conftest import Bench, call, command, events


async def test_a_schema_miss_is_repaired_with_its_reasons(bench: Bench) -> None:
    seen: list[list[str]] = []

    def body(context: Any) -> dict[str, object]:
        seen.append(list(context.repair))
        return {"count": 3 if context.repair else "three"}

    bench.body("body", body)
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    run = await bench.start(call("n", "body", output_contract={"schema": schema}))
    assert await bench.end(run) == "completed"
    assert seen[0] == []
    assert "count" in seen[1][0]
    assert events(run, "node_repair_requested") == [("node_repair_requested", "n")]


async def test_output_that_is_not_json_where_a_schema_is_declared_blocks(bench: Bench) -> None:
    run = await bench.start(
        command("n", "echo not json", output_contract={"schema": {"type": "object"}}),
        call("after", "ok", "n"),
        call("free"),
    )
    assert await bench.end(run) == "blocked"
    failure = run.row.last_failure
    assert failure is not None
    assert "not JSON" in failure.reason
    assert (await run.outputs()) == {"free": "ok"}
    assert ("node_blocked", "after") in events(run)


async def test_a_command_is_told_what_to_mend(bench: Bench, tmp_path: Path) -> None:
    script = 'mkdir -p out; test -n "$TANDEM_REPAIR" && echo "## Done" > out/r.md; true'
    contract = {"required_files": ["out/r.md"], "required_sections": ["done"]}
    run = await bench.start(command("n", script, output_contract=contract), workspace=tmp_path)
    assert await bench.end(run) == "completed"
    (artifact,) = bench.engine.parts.store.list_artifacts(run.run_id, tenant=run.row.tenant)
    assert artifact.ref.path == "out/r.md"
    assert artifact.ref.media_type == "text/markdown"


async def test_a_failing_verification_fails_the_run(bench: Bench, tmp_path: Path) -> None:
    contract = {"verification": {"argv": ["sh", "-c", "echo wrong >&2; exit 3"]}}
    run = await bench.start(command("n", "true", output_contract=contract), workspace=tmp_path)
    assert await bench.end(run) == "failed"
    failure = run.row.last_failure
    assert failure is not None
    assert failure.failure_kind == "verification_failed"
    assert "exited with code 3" in failure.reason


async def test_a_required_file_outside_the_workspace_is_refused_even_through_a_link(
    bench: Bench, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "secret").write_text("secret")
    (workspace / "link").symlink_to(tmp_path / "secret")
    run = await bench.start(
        command("n", "true", output_contract={"required_files": ["link"]}), workspace=workspace
    )
    assert await bench.end(run) == "blocked"
    assert "leads out of the workspace" in run.row.last_failure.reason  # type: ignore[union-attr]
