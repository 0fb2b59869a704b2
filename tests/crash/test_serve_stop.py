"""A server that is told to end: with streams open, bodies running, within its grace time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.forked import Forked

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.run import Run
from tandem.ports.store import RunFilter

PROGRAM = Path(__file__).with_name("serve_program.py")
WAIT_S = 30.0
GRACE_S = 2

SCHEDULE = {"type": "manual", "timezone": "UTC", "misfire_policy": {"type": "run_once"}}


class Server:
    """A real `tandem serve` with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.lines: list[dict[str, Any]] = []
        self._process: Forked | None = None
        self.http = httpx.Client(timeout=WAIT_S)

    def start(self) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_")}
        self._process = Forked(
            [sys.executable, str(PROGRAM), "serve", "--port", "0"],
            stderr=subprocess.PIPE,
            env={
                **own,
                "TANDEM_STATE_DIR": str(self.state),
                "TANDEM_PROCESS_ISOLATION": "subreaper",
                "TANDEM_SCHEDULER_SHUTDOWN_TIMEOUT_SECS": str(GRACE_S),
                "TANDEM_OBSERVABILITY_PROMETHEUS_ENABLED": "1",
            },
        )
        self.http.base_url = httpx.URL(str(self.hear("serving")["url"]))

    def hear(self, event: str) -> dict[str, Any]:
        """Read the log until it tells of this event; every line of it is JSON."""
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        raise AssertionError(self.lines)

    def stop(self) -> tuple[int, float]:
        """Ask it to end; return its exit code and how long that took."""
        assert self._process is not None
        assert self._process.stderr is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        self.lines += map(json.loads, self._process.stderr)
        code = self._process.wait(timeout=WAIT_S)
        self._process.stderr.close()
        self._process = None
        return code, time.monotonic() - began

    def kill(self) -> None:
        self.http.close()
        if self._process is not None:
            assert self._process.stderr is not None
            self._process.kill()
            self._process.stderr.close()
            self._process.wait()

    def begin(self, *scripts: str) -> str:
        """Start a run of commands that follow each other."""
        nodes = [
            {
                "node_id": f"n{number}",
                "depends_on": [f"n{number - 1}"] if number else [],
                "action": {"kind": "command", "shell": True, "script": script},
            }
            for number, script in enumerate(scripts)
        ]
        spec = {
            "automation_id": "stopped",
            "name": "stopped",
            "status": "active",
            "schedule": SCHEDULE,
            "agents": [],
            "flow": {"nodes": nodes},
        }
        assert self.http.post("/automations/v2", json=spec).status_code == 200
        started = self.http.post("/automations/v2/stopped/run_now", json={})
        return str(started.json()["run"]["run_id"])

    def row(self) -> Run:
        """Return the only run, read from the file of a server that has ended."""
        with closing(SqliteStore(self.state / "tandem.db")) as store:
            (run,) = store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        return run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    yield found
    found.kill()


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("path", ["/automations/v2/events", "/polite", "/rude"])
def test_a_server_with_open_streams_ends_in_time_and_goes_on_when_it_is_back(
    server: Server, path: str
) -> None:
    server.start()
    pid_file, gone = server.folder / "pid", server.folder / "gone"
    run_id = server.begin(
        f"if [ -e {gone} ]; then exit 0; fi; echo $$ > {pid_file}.new; "
        f"mv {pid_file}.new {pid_file}; sleep 600"
    )
    wait_for(pid_file.exists)
    with server.http.stream("GET", path) as response:
        parts = response.iter_raw()
        assert next(parts)
        shown = server.http.get("/metrics").text
        assert "tandem_http_streams_open 1.0" in shown
        code, took_s = server.stop()
        if path != "/rude":
            goodbye = b": goodbye" if path == "/polite" else b"stream.closed"
            assert goodbye in b"".join(parts)
    assert code == 0
    assert took_s < GRACE_S + 3
    assert not is_alive(int(pid_file.read_text()))
    row = server.row()
    assert (row.run_id, row.status, row.engine_id) == (run_id, "queued", None)
    told = [line["event"] for line in server.lines]
    assert told[-1] == "stopped"
    assert {"serving", "no_token", "stopping", "run_interrupted_shutdown"} <= set(told)

    gone.touch()
    server.start()
    wait_for(
        lambda: (
            server.http.get(f"/automations/v2/runs/{run_id}").json()["run"]["status"] == "completed"
        )
    )
    assert server.stop()[0] == 0
    assert server.row().epoch == 2


def test_what_ends_within_the_grace_time_counts_and_nothing_new_begins(server: Server) -> None:
    server.start()
    began, second = server.folder / "began", server.folder / "second"
    server.begin(f"touch {began}; sleep 0.7", f"touch {second}")
    wait_for(began.exists)
    code, took_s = server.stop()
    assert code == 0
    assert took_s < GRACE_S
    assert not second.exists()
    row = server.row()
    assert (row.status, row.nodes_completed) == ("queued", 1)
