"""`tandem doctor`, `tandem db check`, and stores that cannot be used."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import TenantId
from tandem.settings import SETTINGS
from tandem.testing.store_suite import Scene

from .conftest import Call, sh

Write = Callable[[str, str], str]


@pytest.fixture
def hello(write: Write) -> str:
    return write("hello.yaml", f"nodes: [{{node_id: say, action: {sh('echo hello')}}}]\n")


def test_doctor_shows_the_machine_and_every_setting(call: Call, state_dir: Path) -> None:
    found = call("doctor", "--json").json
    assert found["sqlite"] == apsw.sqlite_lib_version()
    assert found["store"] == {
        "path": str(state_dir / "tandem.db"),
        "size_bytes": (state_dir / "tandem.db").stat().st_size,
        "error": None,
    }
    assert found["fsync_ms"] >= 0
    assert found["isolation"] in ("pid_namespace", "subreaper")
    assert found["file_system"] not in ("", "unknown")
    by_name = {setting["name"]: setting for setting in found["settings"]}
    assert list(by_name) == [setting.name for setting in SETTINGS]
    assert by_name["TANDEM_STATE_DIR"]["source"] == "environment"
    assert by_name["TANDEM_STOP_GRACE_MS"] == {
        "name": "TANDEM_STOP_GRACE_MS",
        "value": "2000",
        "source": "default",
        "unit": "ms",
        "sentence": "The time between SIGTERM and SIGKILL for a command that is stopped.",
    }


def test_doctor_prints_for_people(call: Call) -> None:
    out = call("doctor").out
    assert "sqlite    3." in out
    assert "  TANDEM_STOP_GRACE_MS = 2000 ms  [default]\n" in out


def test_doctor_says_that_a_value_came_by_an_older_name(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_STORAGE_BACKEND", "sqlite")
    out = call("doctor").out
    source = "environment, older name TANDEM_STORAGE_BACKEND"
    assert f"  TANDEM_DATABASE_URL = (empty)  [{source}]\n" in out


def test_store_that_this_version_does_not_know_is_a_usage_error(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_STORAGE_POSTGRES_URL", "postgresql://me:secret@host/db")
    for command in (["doctor"], ["runs", "list"]):
        answer = call(*command)
        assert answer.code == 2
        assert "older name TANDEM_STORAGE_POSTGRES_URL" in answer.err
        assert "this version knows SQLite only" in answer.err
        assert "secret" not in answer.err


def test_doctor_keeps_to_the_isolation_that_is_set(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_PROCESS_ISOLATION", "subreaper")
    assert call("doctor", "--json").json["isolation"] == "subreaper"


def test_doctor_says_whether_spans_are_sent(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    off = "off (OTEL_EXPORTER_OTLP_ENDPOINT turns them on)"
    assert call("doctor", "--json").json["traces"] == off
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert "traces    on, by OTLP over HTTP\n" in call("doctor").out
    monkeypatch.setenv("TANDEM_TRACES", "off")
    assert call("doctor", "--json").json["traces"] == "off (TANDEM_TRACES=off)"


def test_setting_that_is_not_allowed_is_a_usage_error(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_STOP_GRACE_MS", "soon")
    answer = call("runs", "list")
    assert answer.code == 2
    assert answer.err == (
        "error: TANDEM_STOP_GRACE_MS='soon' is not a whole number from 0 to 600000\n"
    )


def test_healthy_store_is_ok(call: Call, hello: str, state_dir: Path) -> None:
    call("run", hello)
    answer = call("db", "check")
    assert (answer.code, answer.out) == (0, f"{state_dir}/tandem.db: ok, 1 run replayed\n")


def test_row_that_its_events_do_not_lead_to_is_found(
    call: Call, hello: str, state_dir: Path
) -> None:
    call("run", hello)
    change(state_dir, "UPDATE run SET status = 'failed'")
    answer = call("db", "check", "--json")
    assert answer.code == 6
    [problem] = answer.json["problems"]
    assert problem.endswith("its events lead to completed, its row says failed")


def create(state_dir: Path, *run_ids: str) -> None:
    """Create runs, each of a tenant of its own."""
    state_dir.mkdir(exist_ok=True)
    store = SqliteStore(state_dir / "tandem.db", synchronous="OFF")

    async def all_of_them() -> None:
        scene = Scene(store)
        for run_id in run_ids:
            await scene.create(run_id, tenant=TenantId(f"tenant of {run_id}"))

    asyncio.run(all_of_them())
    store.close()


def test_runs_of_all_tenants_are_replayed(
    call: Call, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(state_dir, "ours", "theirs")
    sound = call("db", "check", "--json")
    assert (sound.code, sound.json["runs"], sound.json["runs_total"]) == (0, 2, 2)
    assert "ok, 2 runs replayed\n" in call("db", "check").out
    monkeypatch.setattr("tandem.adapters.cli.upkeep._RUNS_MAX", 1)
    assert "ok, 1 of 2 runs replayed, the newest of all tenants" in call("db", "check").out
    change(state_dir, "UPDATE run SET status = 'running' WHERE run_id = 'theirs'")

    found = call("db", "check", "--json")

    assert found.code == 6
    assert "run theirs: its events lead to queued" in found.json["problems"][0]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE run SET status = 'dozing' WHERE run_id = 'odd'", "its row cannot be read"),
        ("UPDATE lifecycle_event SET event = 'boo' WHERE run_no = 2", "its events cannot be read"),
    ],
)
def test_run_that_cannot_be_read_is_named(
    call: Call, state_dir: Path, damage: str, said: str
) -> None:
    create(state_dir, "fine", "odd")
    change(state_dir, damage)

    found = call("db", "check")

    assert found.code == 6, found.err
    assert f"run odd: {said}" in found.out


def test_run_whose_packed_rows_are_damaged_is_named(
    call: Call, hello: str, state_dir: Path
) -> None:
    call("run", hello)
    call("db", "archive", "--older-than", "0")
    change(state_dir, "UPDATE archive_part SET rows = x'00'")

    found = call("db", "check")

    assert found.code == 6, found.err
    assert "its events cannot be read: the packed rows of run number 1" in found.out


def test_missing_event_is_found(call: Call, hello: str, state_dir: Path) -> None:
    call("run", hello)
    change(state_dir, "DELETE FROM lifecycle_event WHERE seq = 3")
    answer = call("db", "check")
    assert answer.code == 6
    assert "event 3 is missing" in answer.out


def change(state_dir: Path, sql: str) -> None:
    connection = apsw.Connection(str(state_dir / "tandem.db"))
    connection.execute(sql).fetchall()
    connection.close()


@pytest.mark.parametrize(
    "command", [["run", "hello.yaml"], ["resume"], ["runs", "list"], ["db", "check"], ["doctor"]]
)
def test_store_of_a_newer_version_is_left_alone(
    call: Call, hello: str, state_dir: Path, command: list[str]
) -> None:
    state_dir.mkdir()
    change(state_dir, "PRAGMA user_version = 99")
    answer = call(*command)
    assert answer.code == 6
    assert "has version 99" in answer.err + answer.out
    assert "use a newer engine, or another store" in answer.err + answer.out
    connection = apsw.Connection(str(state_dir / "tandem.db"))
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchall() == [(0,)]
    connection.close()


def test_file_that_is_no_store_is_refused(call: Call, state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "tandem.db").write_text("this is not a database, not at all\n" * 100)
    answer = call("runs", "list")
    assert answer.code == 6
    assert "cannot open the store" in answer.err
    assert "Traceback" not in answer.err


def test_store_whose_pages_were_overwritten_is_a_finding_of_the_check(
    call: Call, hello: str, state_dir: Path
) -> None:
    call("run", hello)
    connection = apsw.Connection(str(state_dir / "tandem.db"))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    [(size,)] = connection.execute("PRAGMA page_size").fetchall()
    [(page,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'run'")
    connection.close()
    with (state_dir / "tandem.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)

    answer = call("db", "check", "--json")

    assert answer.code == 6
    assert (answer.json["ok"], answer.err) == (False, "")
    assert any("malformed" in problem for problem in answer.json["problems"])


@pytest.fixture
def open_room() -> Iterator[Path]:
    """A folder that everybody can enter; pytest shuts its own whenever a session starts."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("command", [["run", "hello.yaml"], ["runs", "list"], ["doctor"]])
def test_read_only_state_directory_is_explained(
    hello: str, open_room: Path, command: list[str]
) -> None:
    shutil.copy(hello, open_room)
    state_dir = open_room / "state"
    state_dir.mkdir()
    state_dir.chmod(0o555)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m",
         "tandem", *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=open_room,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TANDEM_STATE_DIR": str(state_dir)},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 6, said
    assert "is not writable; set TANDEM_STATE_DIR to one that is" in said
    assert "Traceback" not in said
