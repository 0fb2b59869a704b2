"""Packing, importing, backing up and removing garbage, killed at every step and begun again."""

import asyncio
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import archive_program
import msgspec
import pytest
from tests.forked import Done, run_forked

from tandem.adapters.local.artifacts import FileArtifacts
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.artifact import ArtifactRef
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.lifecycle import RunState
from tandem.domain.outcome import Succeeded
from tandem.domain.settling import Settled
from tandem.ports.store import RunFilter
from tandem.settings import Settings
from tandem.testing.store_suite import Scene, chain, succeeded
from tandem.transfer import export_to

RUNS = 7
KILLS_MAX = 6


def begin(what: str, folder: Path, source: Path, kill_at: int) -> Done:
    return run_forked(archive_program.main, what, str(folder), str(source), str(kill_at))


def lines_of(folder: Path) -> list[Any]:
    store = SqliteStore(folder / "tandem.db", synchronous="OFF")
    try:
        assert store.check() == []
        return list(store.export())
    finally:
        store.close()


async def fill(folder: Path) -> ArtifactRef:
    """Make a store with runs that ended, one of them with a large output; return that."""
    folder.mkdir()
    artifacts = FileArtifacts(folder / "artifacts")
    ref = artifacts.put(LOCAL_TENANT, "n0", b"kept", media_type="application/json")
    for number in range(4):
        artifacts.put(LOCAL_TENANT, "x", f"garbage {number}".encode(), media_type="text/plain")
    store = SqliteStore(folder / "tandem.db", synchronous="OFF")
    scene = Scene(store)
    for number in range(RUNS):
        view = await scene.claimed(f"r{number}", chain(2))
        await store.apply(scene.next(view))
        large = Settled(node_no=0, number=1, outcome=Succeeded(output=None), output_ref=ref)
        await store.apply(scene.next(view, large if number == 0 else succeeded(0)))
        await store.apply(scene.next(view, succeeded(1)))
        assert scene.get(f"r{number}").status is RunState.COMPLETED
    store.close()
    return ref


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    asyncio.run(fill(tmp_path / "filled"))
    return tmp_path / "filled"


@pytest.mark.parametrize("every", [1, 2, 3])
def test_packing_that_is_killed_loses_nothing(filled: Path, every: int) -> None:
    before = lines_of(filled)
    kills = 0
    while begin("archive", filled, filled, every).returncode == -signal.SIGKILL:
        kills += 1
        assert lines_of(filled) == before
        if kills == KILLS_MAX:
            break  # also with nothing left to do it commits, and is killed
    assert kills > 0
    assert begin("archive", filled, filled, 0).returncode == 0
    assert lines_of(filled) == before
    store = SqliteStore(filled / "tandem.db", synchronous="OFF")
    runs = store.list_runs(RunFilter(tenant=LOCAL_TENANT))
    assert all(run.archived_at_ms is not None for run in runs)
    store.close()


@pytest.mark.parametrize("kill_at", [1, 2, 5])
def test_import_that_is_killed_is_made_again(filled: Path, tmp_path: Path, kill_at: int) -> None:
    source = tmp_path / "all.jsonl"
    export_to(Settings(state_dir=filled), source, with_contents=True, progress=lambda _: None)
    target = tmp_path / "target"

    assert begin("import", target, source, kill_at).returncode == -signal.SIGKILL
    again = begin("import", target, source, 0)

    assert again.returncode == 0, again.stderr
    tally = msgspec.json.decode(again.stdout)
    assert tally["imported"] + tally["same"] == RUNS
    assert tally["same"] == 2 * (kill_at // 2)
    assert lines_of(target) == lines_of(filled)


@pytest.mark.parametrize("kill_at", [1, 2, 3])
def test_import_of_the_original_that_is_killed_is_made_again(tmp_path: Path, kill_at: int) -> None:
    runs = {
        f"automation-v2-run-{number}": {
            "run_id": f"automation-v2-run-{number}",
            "automation_id": "nightly",
            "trigger_type": "scheduled",
            "status": "completed" if number % 2 else "running",
            "created_at_ms": 1_000 + number,
            "updated_at_ms": 2_000 + number,
            "checkpoint": {"completed_nodes": ["a"], "pending_nodes": ["b"]},
        }
        for number in range(6)
    }
    source = tmp_path / "automation_v2_runs.json"
    source.write_text(json.dumps({"schema_version": 1, "runs": runs}))
    target = tmp_path / "target"

    assert begin("import", target, source, kill_at).returncode == -signal.SIGKILL
    again = begin("import", target, source, 0)

    assert again.returncode == 0, again.stderr
    tally = msgspec.json.decode(again.stdout)
    assert tally["imported"] + tally["paused"] + tally["same"] == 6
    assert tally["same"] == 2 * (kill_at // 2)
    whole = tmp_path / "whole"
    assert begin("import", whole, source, 0).returncode == 0
    names = [
        [line.run["run_id"] for line in lines_of(folder) if hasattr(line, "run")]
        for folder in (target, whole)
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("kill_at", [1, 2, 5])
def test_garbage_collection_that_is_killed_never_takes_what_is_named(
    filled: Path, tmp_path: Path, kill_at: int
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(filled, folder)

    assert begin("gc", folder, folder, kill_at).returncode == -signal.SIGKILL
    assert begin("gc", folder, folder, 0).returncode == 0

    kept = [path.read_bytes() for path in (folder / "artifacts").glob("*/??/*")]
    assert kept == [b"kept"]


@pytest.mark.parametrize(("kill_at", "is_there"), [(1, False), (2, True)])
def test_backup_that_is_killed_is_whole_or_not_there(
    filled: Path, tmp_path: Path, kill_at: int, is_there: bool
) -> None:
    target = tmp_path / "copy" / "tandem.db"
    target.parent.mkdir()

    assert begin("backup", filled, target, kill_at).returncode == -signal.SIGKILL
    assert target.exists() is is_there
    if not is_there:
        assert begin("backup", filled, target, 0).returncode == 0

    assert lines_of(target.parent) == lines_of(filled)
