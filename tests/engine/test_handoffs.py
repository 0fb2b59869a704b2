"""Handoffs through a whole engine: which of them start a run, and where their files go."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tandem.domain.automation import Automation
from tandem.domain.command import Cancel
from tandem.domain.handoff import Handoff
from tandem.domain.ids import LOCAL_TENANT
from tandem.ports.store import RunFilter
from tandem.settings import Settings
from tandem.wiring import Parts, open_engine


def batch(number: int) -> Handoff:
    """Return the next batch of a producer with one id and a clock of whole seconds."""
    return Handoff(
        handoff_id="lead-batch",
        source_automation_id="leads-scan",
        source_run_id=f"run-{number}",
        source_node_id="publish",
        target_automation_id="leads",
        artifact_type="lead_batch",
        created_at_ms=1_700_000_000_000,
    )


async def end_runs(parts: Parts) -> int:
    """End what runs; return how many runs there are."""
    runs = parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
    for run in runs:
        if run.finished_at_ms is None:
            await parts.engine.execute(run.run_id, Cancel())
    return len(runs)


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Yield an engine with an automation that watches for batches."""
    node = {"node_id": "n1", "action": {"kind": "command", "argv": ["true"]}}
    watching = Automation.model_validate(
        {
            "automation_id": "leads",
            "workspace_root": str(tmp_path / "work"),
            "watch_conditions": [{"kind": "handoff_available"}],
            "flow": {"nodes": [node]},
        }
    )
    (tmp_path / "work").mkdir()
    async with open_engine(Settings(state_dir=tmp_path), drives=False) as opened:
        await opened.automations.save(watching, by="ann")
        yield opened


def sources_in(folder: Path) -> list[str]:
    """Return which runs the handoffs of a folder are from."""
    return sorted(json.loads(file.read_text())["source_run_id"] for file in folder.iterdir())


async def test_batches_of_one_id_and_second_have_a_run_each_and_copies_none(
    parts: Parts, tmp_path: Path
) -> None:
    runs = []
    for number in (1, 2, 3, 2):
        parts.engine.handoffs.deposit(batch(number))
        await parts.engine.handoffs.tend()
        runs.append(await end_runs(parts))

    assert runs == [1, 2, 3, 3]
    folders = tmp_path / "work" / "shared" / "handoffs"
    assert sources_in(folders / "approved") == []
    assert sources_in(folders / "archived") == ["run-1", "run-2", "run-3"]


async def test_batch_that_still_waits_is_not_replaced_by_the_next_one_of_its_id(
    parts: Parts, tmp_path: Path
) -> None:
    approved = tmp_path / "work" / "shared" / "handoffs" / "approved"
    for number in (1, 2, 2, 1):
        parts.engine.handoffs.deposit(batch(number))
    assert sources_in(approved) == ["run-1", "run-2"]

    for count in (1, 2, 2):
        await parts.engine.handoffs.tend()
        assert await end_runs(parts) == count
    assert sources_in(approved) == []
