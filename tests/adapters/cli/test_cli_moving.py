"""`tandem db backup/export/import/gc/archive` and `runs verify`, as a person uses them."""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import TenantId
from tandem.testing.store_suite import Scene
from tests.adapters.cli.conftest import Call, sh

JOB = f"""
automation_id: job
nodes:
  - node_id: make
    action: {sh("mkdir -p out; echo result > out/file.txt; echo done")}
    output_contract: {{required_files: [out/file.txt]}}
  - node_id: big
    depends_on: [make]
    action: {sh("printf x%.0s $(seq 40000)")}
"""

Write = Callable[[str, str], str]


@pytest.fixture
def ran(call: Call, write: Write) -> str:
    """A run that ended well, with a file and a large output; returns its id."""
    answer = call("run", write("job.yaml", JOB), "--json")
    assert answer.code == 0, answer.err
    return str(call("runs", "list", "--json").json[0]["run_id"])


def age(folder: Path) -> None:
    """Make everything below a folder look a month old."""
    old = time.time() - 30 * 86_400
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (old, old))


def test_sound_run_is_verified(call: Call, ran: str) -> None:
    answer = call("runs", "verify", ran, "--json")

    assert answer.code == 0
    assert answer.json["ok"] is True
    assert answer.json["artifacts"] == 2
    assert len(answer.json["head"]) == 64
    assert "sound" in call("runs", "verify", ran).out


def test_changed_and_missing_files_are_found(call: Call, ran: str, state_dir: Path) -> None:
    Path("out/file.txt").write_text("other")
    (kept,) = (path for path in (state_dir / "artifacts").glob("*/??/*"))
    kept.unlink()

    answer = call("runs", "verify", ran, "--json")

    assert answer.code == 1
    assert {fault["node_id"] for fault in answer.json["faults"]} == {"make", "big"}


@pytest.mark.parametrize(
    ("tampering", "said"),
    [
        ("UPDATE lifecycle_event SET reason = 'fine' WHERE seq = 3", "event 3"),
        ("DELETE FROM lifecycle_event WHERE seq = 4", "gap: events 4 to 4"),
        ("DELETE FROM lifecycle_event WHERE seq = (SELECT max(seq) FROM lifecycle_event)", "end"),
        ("UPDATE lifecycle_event SET record_hash = NULL WHERE seq = 3", "no hash"),
        ("UPDATE node_run SET output = x'31' WHERE output IS NOT NULL", "the output of node"),
        ("UPDATE artifact SET ref = replace(ref, 'sha256:', 'sha256:0')", "registered as"),
    ],
)
def test_every_tampering_is_found(
    call: Call, ran: str, state_dir: Path, tampering: str, said: str
) -> None:
    with sqlite3.connect(state_dir / "tandem.db") as connection:
        assert connection.execute(tampering).rowcount >= 1

    answer = call("runs", "verify", ran)

    assert answer.code == 1
    assert said in answer.out


def test_export_and_import_carry_everything(
    call: Call, ran: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = call("runs", "show", ran, "--json").json
    made = call("db", "export", str(tmp_path / "all.jsonl"), "--contents", "--json")
    assert made.code == 0, made.err
    assert (made.json["runs"], made.json["contents"]) == (1, 1)

    monkeypatch.setenv("TANDEM_STATE_DIR", str(tmp_path / "second"))
    read = call("db", "import", str(tmp_path / "all.jsonl"), "--json")
    assert read.code == 0, read.err
    assert read.json["imported"] == 1
    again = call("runs", "show", ran, "--json").json
    for place in (shown, again):
        place.pop("now_ms", None)
    assert again["outputs"] == shown["outputs"]
    assert again["artifacts"] == shown["artifacts"]
    assert call("runs", "verify", ran).code == 0

    assert call("db", "export", str(tmp_path / "back.jsonl"), "--contents").code == 0
    lines = [
        (tmp_path / name).read_text().splitlines()[1:-1] for name in ("all.jsonl", "back.jsonl")
    ]
    assert lines[0] == lines[1]
    assert call("db", "import", str(tmp_path / "all.jsonl"), "--json").json["same"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: [*lines[:2], lines[2][:-20], *lines[3:]], "line 3"),
        (
            lambda lines: [lines[0], lines[1], lines[2].replace("job", "jab", 1), *lines[3:]],
            "digest",
        ),
        (
            lambda lines: [lines[0].replace('"version":1', '"version":2'), *lines[1:]],
            "newer engine",
        ),
        (lambda lines: [lines[0], *lines[2:]], "definition"),
    ],
)
def test_damaged_export_is_refused(
    call: Call,
    ran: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Callable[[list[str]], list[str]],
    said: str,
) -> None:
    whole = tmp_path / "all.jsonl"
    assert call("db", "export", str(whole)).code == 0
    lines = change(whole.read_text().splitlines())
    (tmp_path / "broken.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("TANDEM_STATE_DIR", str(tmp_path / "second"))

    answer = call("db", "import", str(tmp_path / "broken.jsonl"))

    assert answer.code == 5, answer.out
    assert said in answer.err


def test_backup_is_a_whole_store(
    call: Call, ran: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state_dir: Path
) -> None:
    copy = tmp_path / "second" / "tandem.db"
    copy.parent.mkdir()

    assert call("db", "backup", str(copy), "--json").code == 0
    assert call("db", "backup", str(copy)).code == 5
    assert sorted(path.name for path in copy.parent.iterdir()) == ["tandem.db"]

    monkeypatch.setenv("TANDEM_STATE_DIR", str(copy.parent))
    assert call("db", "check").code == 0
    assert call("runs", "show", ran, "--json").code == 0


def test_garbage_goes_and_what_is_named_stays(call: Call, ran: str, state_dir: Path) -> None:
    (kept,) = (path for path in (state_dir / "artifacts").glob("*/??/*"))
    garbage = kept.parent.parent / "ab" / f"ab{'0' * 62}"
    garbage.parent.mkdir(exist_ok=True)
    garbage.write_bytes(b"nobody's")
    fresh = kept.parent.parent / "cd" / f"cd{'0' * 62}"
    age(state_dir / "artifacts")
    age(state_dir / "scratch")
    fresh.parent.mkdir(exist_ok=True)
    fresh.write_bytes(b"just put there")

    planned = call("db", "gc", "--dry-run", "--json").json
    assert garbage.exists()
    done = call("db", "gc", "--json").json

    assert {**planned, "dry_run": False} == done
    assert done["artifacts"] == 1
    assert done["artifact_bytes"] == len(b"nobody's")
    assert done["scratch_folders"] == 2
    assert kept.exists()
    assert fresh.exists()
    assert not garbage.exists()
    assert list((state_dir / "scratch").iterdir()) == []
    assert call("db", "gc", "--json").json["artifacts"] == 0
    assert call("runs", "verify", ran).code == 0


def test_packed_run_is_shown_verified_and_exported_as_before(
    call: Call, ran: str, state_dir: Path, tmp_path: Path
) -> None:
    before = call("runs", "events", ran, "--json").lines
    shown = call("runs", "show", ran, "--json").json
    assert call("db", "export", str(tmp_path / "hot.jsonl")).code == 0

    assert call("db", "archive", "--older-than", "0", "--json").json["moved"] > 0

    with sqlite3.connect(state_dir / "tandem.db") as connection:
        for table in ("node_run", "attempt", "lifecycle_event"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
    assert call("runs", "events", ran, "--json").lines == before
    after = call("runs", "show", ran, "--json").json
    for place in (shown, after):
        place["run"].pop("archived_at_ms", None) if "run" in place else None
        place.pop("archived_at_ms", None)
    assert after == shown
    assert call("runs", "verify", ran).code == 0
    assert call("db", "check").code == 0
    assert call("db", "export", str(tmp_path / "packed.jsonl")).code == 0
    hot, packed = (
        (tmp_path / name).read_text().splitlines()[1:-1] for name in ("hot.jsonl", "packed.jsonl")
    )
    assert hot == packed


def test_run_that_was_alive_rests_after_its_import(
    call: Call, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = "automation_id: asks\nnodes: [{node_id: ask, gate: {required: true}}]\n"
    assert call("run", write("asks.yaml", gate), "--json").code == 9
    assert call("db", "export", str(tmp_path / "all.jsonl")).code == 0
    monkeypatch.setenv("TANDEM_STATE_DIR", str(tmp_path / "second"))

    read = call("db", "import", str(tmp_path / "all.jsonl"), "--json")

    assert read.json["paused"] == 1
    (run,) = call("runs", "list", "--json").json
    assert run["status"] == "paused"
    assert "alive elsewhere" in run["pause_reason"]
    assert call("runs", "verify", run["run_id"]).code == 0
    assert call("db", "check").code == 0
    assert call("db", "import", str(tmp_path / "all.jsonl"), "--json").json["same"] == 1


def test_file_of_the_original_is_imported(call: Call, tmp_path: Path) -> None:
    entry = {
        "run_id": "automation-v2-run-1",
        "automation_id": "weekly",
        "trigger_type": "manual",
        "status": "completed",
        "created_at_ms": 1_700_000_000_000,
        "updated_at_ms": 1_700_000_100_000,
        "checkpoint": {"completed_nodes": ["a"], "node_outputs": {"a": {"status": "completed"}}},
    }
    source = tmp_path / "automation_v2_runs.json"
    source.write_text(json.dumps({"schema_version": 1, "runs": {entry["run_id"]: entry}}))

    assert call("db", "import", str(source), "--json").json["imported"] == 1
    (run,) = call("runs", "list", "--json").json
    assert (run["status"], run["nodes_completed"]) == ("completed", 1)
    assert call("db", "import", str(source), "--json").json["same"] == 1


def original_run(**changes: Any) -> dict[str, Any]:
    """Return an entry as the original engine stored one."""
    checkpoint = {"completed_nodes": ["a"], "node_outputs": {"a": {"content": "made"}}}
    return {
        "run_id": "automation-v2-run-1",
        "automation_id": "weekly",
        "trigger_type": "manual",
        "status": "completed",
        "created_at_ms": 1_700_000_000_000,
        "updated_at_ms": 1_700_000_100_000,
        "checkpoint": checkpoint,
        **changes,
    }


def put_shard(folder: Path, month: str, run: dict[str, Any]) -> Path:
    """Write one history shard of the original."""
    file = folder / "automation_v2_runs" / "2026" / month / f"{run['run_id']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"schema_version": 1, "run": run}))
    return file


def test_shard_of_an_earlier_month_does_not_hide_how_a_run_ended(
    call: Call, tmp_path: Path
) -> None:
    shards = tmp_path / "automation-runs"
    early = {"status": "running", "updated_at_ms": 1_700_000_000_500, "checkpoint": {}}
    put_shard(shards, "01", original_run(**early))
    put_shard(shards, "02", original_run())

    answer = call("db", "import", str(shards), "--json")

    assert (answer.code, answer.json["differing"]) == (0, [])
    (run,) = call("runs", "list", "--json").json
    assert (run["status"], run["nodes_completed"]) == ("completed", 1)
    assert call("runs", "verify", run["run_id"]).code == 0
    assert call("db", "check").code == 0
    assert call("db", "import", str(shards), "--json").json["same"] == 2


@pytest.mark.parametrize("first", ["hot", "shard"])
def test_row_whose_outputs_the_original_dropped_does_not_cost_them(
    call: Call, tmp_path: Path, state_dir: Path, first: str
) -> None:
    hot = tmp_path / "automation_v2_runs.json"
    dropped = original_run(checkpoint={"completed_nodes": ["a"]})
    hot.write_text(json.dumps({"schema_version": 1, "runs": {dropped["run_id"]: dropped}}))
    put_shard(tmp_path / "automation-runs", "01", original_run())
    places = [str(hot), str(tmp_path / "automation-runs")]
    for place in places if first == "hot" else reversed(places):
        assert call("db", "import", place).code == 0
        assert call("db", "archive", "--older-than", "0").code == 0

    assert json.loads(call("runs", "output", "latest", "a").out) == {"content": "made"}
    assert [call("db", "import", place, "--json").json["same"] for place in places] == [1, 1]
    with sqlite3.connect(state_dir / "tandem.db") as connection:
        (kept,) = connection.execute("SELECT count(*) FROM imported_run").fetchone()
        (parts,) = connection.execute("SELECT count(*) FROM archive_part").fetchone()
    assert (kept, parts) == (2, 1)


def test_copy_of_a_run_that_goes_on_here_changes_nothing(call: Call, tmp_path: Path) -> None:
    shards = tmp_path / "automation-runs"
    early = {"status": "running", "updated_at_ms": 1_700_000_000_500, "checkpoint": {}}
    put_shard(shards, "01", original_run(**early))
    assert call("db", "import", str(shards)).code == 0
    assert call("runs", "cancel", "latest").code == 0
    put_shard(shards, "02", original_run())

    answer = call("db", "import", str(shards), "--json")

    assert (answer.code, answer.json["differing"]) == (5, ["automation-v2-run-1"])
    assert call("runs", "list", "--json").json[0]["status"] == "cancelled"


def test_file_that_was_cut_off_leaves_the_other_shards_alone(call: Call, tmp_path: Path) -> None:
    shards = tmp_path / "automation-runs"
    for number in range(3):
        file = put_shard(shards, "01", original_run(run_id=f"automation-v2-run-{number}"))
        if number == 1:
            file.write_text(file.read_text()[:50])

    answer = call("db", "import", str(shards), "--json")

    assert answer.code == 5
    assert answer.json["imported"] == 2
    (said,) = answer.json["unreadable"]
    assert "automation-v2-run-1.json is not JSON" in said
    assert "left out: " in call("db", "import", str(shards)).out


def test_named_file_is_understood_before_anything_of_it_is_written(
    call: Call, tmp_path: Path
) -> None:
    runs: dict[str, Any] = {f"r{n}": original_run(run_id=f"r{n}") for n in range(60)}
    file = tmp_path / "automation_v2_runs.json"
    file.write_text(json.dumps({**runs, "last": {"run_id": "last"}}))

    answer = call("db", "import", str(file))

    assert answer.code == 5
    assert "nothing of its file was imported" in answer.err
    assert call("runs", "list", "--json").json == []


@pytest.mark.parametrize(
    "changes",
    [
        {"updated_at_ms": True},
        {"updated_at_ms": 10**30},
        {"execution_claim_epoch": 2**64},
        {"run_id": "../../../elsewhere"},
        {"automation_snapshot": {"workspace_root": "/a\0b", "flow": {"nodes": [{"node_id": "a"}]}}},
    ],
)
def test_strange_entry_takes_no_other_along(
    call: Call, tmp_path: Path, changes: dict[str, Any]
) -> None:
    file = tmp_path / "automation_v2_runs.json"
    strange = original_run(**{"run_id": "strange", **changes})
    file.write_text(json.dumps({"a": strange, "b": original_run()}))

    answer = call("db", "import", str(file), "--json")

    assert (answer.code, answer.json["imported"]) == (0, 2), answer.err
    listed = call("runs", "list", "--json")
    assert (listed.code, len(listed.json)) == (0, 2)
    assert not any("/" in run["run_id"] for run in listed.json)
    assert call("db", "check").code == 0


def test_export_is_for_its_owner_alone(call: Call, ran: str, tmp_path: Path) -> None:
    assert call("db", "export", str(tmp_path / "all.jsonl")).code == 0
    assert (tmp_path / "all.jsonl").stat().st_mode & 0o777 == 0o600


def test_import_mends_a_large_output_that_was_damaged(
    call: Call, ran: str, state_dir: Path, tmp_path: Path
) -> None:
    assert call("db", "export", str(tmp_path / "all.jsonl"), "--contents").code == 0
    (kept,) = (path for path in (state_dir / "artifacts").glob("*/??/*"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert call("runs", "verify", ran).code == 1

    assert call("db", "import", str(tmp_path / "all.jsonl")).code == 0

    assert call("runs", "verify", ran).code == 0


def test_folder_of_an_attempt_of_another_tenant_is_no_garbage(call: Call, state_dir: Path) -> None:
    store = SqliteStore(state_dir / "tandem.db", synchronous="OFF")

    async def claim() -> None:
        scene = Scene(store)
        await scene.create("theirs", tenant=TenantId("somebody"))
        (view,) = await scene.claim()
        await store.apply(scene.next(view))

    asyncio.run(claim())
    store.close()
    scratch = state_dir / "scratch" / "theirs" / "n0" / "1"
    scratch.mkdir(parents=True)
    (scratch / "work").write_text("half done")
    age(state_dir / "scratch")

    assert call("db", "gc", "--json").json["scratch_folders"] == 0

    assert (scratch / "work").exists()


def test_output_that_was_just_put_there_is_no_garbage(
    call: Call, ran: str, state_dir: Path
) -> None:
    (kept,) = (path for path in (state_dir / "artifacts").glob("*/??/*"))
    fresh = kept.parent.parent / "cd" / f"cd{'0' * 62}"
    fresh.parent.mkdir(exist_ok=True)
    fresh.write_bytes(b"its run is about to name it")

    assert call("db", "gc", "--older-than", "0", "--json").json["artifacts"] == 0
    assert fresh.exists()

    an_hour_ago = time.time() - 3_601
    os.utime(fresh, (an_hour_ago, an_hour_ago))
    assert call("db", "gc", "--older-than", "0", "--json").json["artifacts"] == 1
    assert not fresh.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("gc", "--older-than", "9" * 20),
        ("archive", "--older-than", "9" * 20),
        ("audit", "--after", "9" * 20),
    ],
)
def test_number_that_no_store_can_hold_is_a_mistake_of_whoever_gave_it(
    call: Call, arguments: tuple[str, ...]
) -> None:
    assert call("db", *arguments).code == 2
