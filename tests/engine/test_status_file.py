"""status.json shows the run in its workspace, and never fails it."""

import json
import shutil
from pathlib import Path

from tests.engine.conftest import Bench, call, events

KEYS = {
    "run_id",
    "automation_id",
    "status",
    "detail",
    "completed_nodes",
    "pending_nodes",
    "blocked_nodes",
    "node_attempts",
    "last_failure",
    "learning_summary",
    "updated_at_ms",
}


async def test_it_has_exactly_the_keys_of_the_contract(bench: Bench, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    run = await bench.start(
        call("a"),
        {"node_id": "ask", "depends_on": ["a"], "gate": {"required": True}},
        workspace=workspace,
    )
    assert await bench.rest(run) == "awaiting_approval"
    path = workspace / ".tandem" / "runs" / run.run_id / "status.json"
    shown = json.loads(path.read_text())
    assert set(shown) == KEYS
    assert shown["status"] == "awaiting_approval"
    assert shown["completed_nodes"] == ["a"]
    assert shown["pending_nodes"] == ["ask"]
    assert shown["node_attempts"] == {"a": 1}
    assert (workspace / ".tandem" / ".gitignore").read_text() == "*\n"
    await run.decide("approve")
    assert await bench.end(run) == "completed"
    assert json.loads(path.read_text())["status"] == "completed"


async def test_a_run_without_a_workspace_has_it_in_the_state_folder(
    bench: Bench, tmp_path: Path
) -> None:
    run = await bench.start(call("a"))
    assert await bench.end(run) == "completed"
    assert (tmp_path / "store" / ".tandem" / "runs" / run.run_id / "status.json").exists()


async def test_a_link_in_its_way_is_refused_and_the_run_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    workspace.mkdir()
    outside.mkdir()
    (workspace / ".tandem").symlink_to(outside)
    run = await bench.start(call("a"), workspace=workspace)
    assert await bench.end(run) == "completed"
    assert list(outside.iterdir()) == []
    assert events(run)[-1] == ("run_completed", None)


async def test_a_removed_folder_is_made_again(bench: Bench, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    run = await bench.start(call("a"), workspace=workspace)
    assert await bench.end(run) == "completed"
    shutil.rmtree(workspace / ".tandem")
    run = await bench.start(call("a"), workspace=workspace)
    assert await bench.end(run) == "completed"
    assert (workspace / ".tandem" / "runs" / run.run_id / "status.json").exists()
