"""What keeps a claimed run from starting, and what reaches its bodies when it starts."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.adapters.local.files import LocalFiles
from tandem.domain.errors import Refused
from tandem.domain.start_check import WorkspaceState
from tests.engine.conftest import Bench, call, command, events

CONTEXT = {"routines": [{"routine_id": "r", "visible_context_objects": ["o"]}]}


async def test_a_missing_workspace_fails_the_run_with_its_words(
    bench: Bench, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    run = await bench.start(call("a"), workspace=gone)
    assert await bench.end(run) == "failed"
    words = f"workspace_root `{gone}` for automation `test` does not exist"
    assert (run.detail, run.row.stop_kind, run.row.stop_reason) == (
        words,
        "guardrail_stopped",
        words,
    )
    assert events(run) == [
        ("run_created", None),
        ("run_execution_claimed", None),
        ("run_failed_startup", None),
    ]


async def test_a_workspace_that_is_a_file_fails_the_run(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    run = await bench.start(call("a"), workspace_root=str(file))
    assert await bench.end(run) == "failed"
    assert run.detail == f"workspace_root `{file}` for automation `test` is not a directory"


async def test_a_run_goes_on_once_its_workspace_is_there(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "later"
    run = await bench.start(call("a"), workspace=folder)
    assert await bench.end(run) == "failed"
    folder.mkdir()
    await run.resume()
    assert await bench.end(run) == "completed"


async def test_a_plan_package_that_is_not_ready_fails_the_run(bench: Bench) -> None:
    report = {
        "ready_for_activation": False,
        "issues": [{"blocking": True, "message": "no owner", "code": "owner_missing"}],
    }
    run = await bench.start(call("a"), metadata={"plan_package_validation": report})
    assert await bench.end(run) == "failed"
    assert run.detail == "plan package not ready for activation: no owner (owner_missing)"
    assert events(run)[-1] == ("run_failed_activation_validation", None)
    assert run.row.stop_kind == "guardrail_stopped"


async def test_the_context_of_the_definition_reaches_function_and_command(bench: Bench) -> None:
    seen: list[Any] = []
    bench.body("look", lambda context: seen.append(context.runtime_context))
    run = await bench.start(
        call("f", "look"),
        command("c", 'cat "$TANDEM_RUNTIME_CONTEXT"', action={"output": {"format": "json"}}),
        metadata={"context_materialization": CONTEXT},
    )
    assert await bench.end(run) == "completed"
    assert seen == [CONTEXT]
    assert (await run.outputs())["c"] == CONTEXT


async def test_a_run_without_a_context_is_told_of_none(bench: Bench) -> None:
    run = await bench.start(command("c", 'echo "${TANDEM_RUNTIME_CONTEXT-unset}"'))
    assert await bench.end(run) == "completed"
    assert "unset" in str((await run.outputs())["c"])


async def test_a_missing_context_fails_the_run_with_status_file_and_listeners(
    bench: Bench, tmp_path: Path
) -> None:
    heard: list[tuple[str, str]] = []
    bench.engine.parts.engine.listen(
        lambda view, change: heard.extend((view.run.run_id, e.event) for e in change.events)
    )
    run = await bench.start(
        call("a"), metadata={"shared_context_pack_ids": ["p"]}, workspace=tmp_path
    )
    assert await bench.end(run) == "failed"
    assert (run.run_id, "run_failed_startup") in heard
    status = msgspec.json.decode(
        (tmp_path / ".tandem" / "runs" / run.run_id / "status.json").read_bytes()
    )
    assert status["status"] == "failed"
    assert status["last_failure"]["node_id"] == "runtime_context"
    given = await bench.engine.run(
        bench.engine.parts.store.read(run.run_id, tenant="local").plan.automation,  # type: ignore[arg-type]
        runtime_context=CONTEXT,
    )
    assert await bench.end(given) == "completed"


def test_files_of_the_workspace_are_looked_at_and_removed_within_it(tmp_path: Path) -> None:
    files = LocalFiles()
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    assert files.state_of(str(tmp_path)) is WorkspaceState.READY
    assert files.state_of(str(tmp_path / "file")) is WorkspaceState.NOT_A_DIRECTORY
    assert files.state_of(str(tmp_path / "file" / "below")) is WorkspaceState.MISSING
    assert files.state_of(str(tmp_path / "none")) is WorkspaceState.MISSING
    assert files.state_of("/no\0where") is WorkspaceState.MISSING
    assert files.real_path("/no\0where") == "/no\0where"
    for name in ("file", "folder", "none"):
        files.remove_file(str(tmp_path), name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
    with pytest.raises(Refused, match="path inside the workspace"):
        files.remove_file(str(tmp_path / "folder"), "../folder")
