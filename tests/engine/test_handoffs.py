"""Handoffs through a whole engine: which of them start a run, and where their files go."""

import json
from pathlib import Path

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


async def test_batches_of_one_id_and_second_have_a_run_each_and_copies_none(
    tmp_path: Path,
) -> None:
    node = {"node_id": "n1", "action": {"kind": "command", "argv": ["true"]}}
    work = tmp_path / "work"
    work.mkdir()
    watching = Automation.model_validate(
        {
            "automation_id": "leads",
            "workspace_root": str(work),
            "watch_conditions": [{"kind": "handoff_available"}],
            "flow": {"nodes": [node]},
        }
    )
    async with open_engine(Settings(state_dir=tmp_path), drives=False) as parts:
        await parts.automations.save(watching, by="ann")
        runs = []
        for number in (1, 2, 3, 2):
            parts.engine.handoffs.deposit(batch(number))
            await parts.engine.handoffs.tend()
            runs.append(await end_runs(parts))
        assert runs == [1, 2, 3, 3]
        assert list((work / "shared" / "handoffs" / "approved").iterdir()) == []

    archived = (work / "shared" / "handoffs" / "archived").iterdir()
    told = sorted(json.loads(file.read_text())["source_run_id"] for file in archived)
    assert told == ["run-1", "run-2", "run-3"]
