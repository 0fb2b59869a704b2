"""The examples do what they say, with real worker processes and commands."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tandem import Automation, Engine, Run

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def workspace(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / str(request.param)
    shutil.copytree(
        EXAMPLES / str(request.param), folder, ignore=shutil.ignore_patterns("out", ".tandem")
    )
    return folder


async def at_rest(engine: Engine, folder: Path, **inputs: object) -> Run:
    document = Automation.from_file(folder / f"{folder.name}.yaml")
    run = await engine.run(document, inputs, workspace=folder)
    async with asyncio.timeout(60):
        await run.wait_at_rest()
    return run


def engine_for(folder: Path) -> Engine:
    return Engine.open(f"sqlite:///{folder.parent}/tandem.db", in_process=False)


@pytest.mark.parametrize("workspace", ["release-notes"], indirect=True)
async def test_release_notes_of_a_sample_repository(workspace: Path) -> None:
    async with engine_for(workspace) as engine:
        run = await at_rest(engine, workspace)
        assert run.status == "awaiting_approval", run.row
        await run.decide("approve")
        async with asyncio.timeout(60):
            assert await run.wait() == "completed"
    notes = (workspace / "out" / "RELEASE_NOTES.md").read_text()
    assert "6 changes." in notes
    assert "## Fixed\n\n- Fix the size of outputs over the bound" in notes


@pytest.mark.parametrize("workspace", ["data-quality"], indirect=True)
async def test_data_quality_finds_the_bad_rows_and_blocks_over_the_bound(workspace: Path) -> None:
    async with engine_for(workspace) as engine:
        run = await at_rest(engine, workspace)
        assert run.status == "completed", run.row
        report = (workspace / "out" / "report.md").read_text()
        assert "3 of 8 rows have a finding." in report
        assert "- line 7: order_id 1005 is there twice" in report
        run = await at_rest(engine, workspace, bad_rows_max=1)
        assert run.status == "blocked", run.row


@pytest.mark.parametrize("workspace", ["nightly-check"], indirect=True)
async def test_nightly_check_is_repaired_once(workspace: Path) -> None:
    async with engine_for(workspace) as engine:
        run = await at_rest(engine, workspace)
        assert run.status == "completed", run.row
        kinds = [event.event for event in run.events()]
        assert kinds.count("node_repair_requested") == 1
    assert "## Clock" in (workspace / "out" / "nightly.md").read_text()
    status = workspace / ".tandem" / "runs" / run.run_id / "status.json"
    assert '"status": "completed"' in status.read_text()
