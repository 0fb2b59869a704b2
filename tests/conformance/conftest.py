"""The published client, unpatched, against a real server process on a free port of this machine."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tandem_client import TandemClient

from tests.forked import Forked

STUB = Path(__file__).with_name("stub_server.py")
TOKEN = "tk-conformance"
START_S = 30.0
REST_S = 20.0
COMPAT = "/compat/0.7"

ENDED = ("completed", "failed", "blocked", "cancelled")
RESTING = ("completed", "failed", "cancelled", "paused")


class Process:
    """A server that was started for a test, with the folder that says what its agents do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scripts = folder / "scripts"
        self.scripts.mkdir(parents=True)
        self._process: Forked | None = None
        self.url = ""

    def start(self, port: int = 0, **env: str) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_")}
        with (self.folder / "server.log").open("a") as log:
            self._process = Forked(
                [sys.executable, str(STUB), str(port), str(self.scripts)],
                stdout=subprocess.PIPE,
                stderr=log,
                env={
                    **own,
                    "TANDEM_STATE_DIR": str(self.folder / "state"),
                    "TANDEM_API_TOKEN": TOKEN,
                    "TANDEM_PROCESS_ISOLATION": "subreaper",
                    **env,
                },
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, (self.folder / "server.log").read_text()
        self.url = found[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._end()

    def signal(self, number: int, *, after: str = "") -> None:
        """Send a signal, once the server has said something."""
        assert self._process is not None
        assert self._process.stdout is not None
        while after and after not in self._process.stdout.readline():
            continue
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return the exit code once the server has ended by itself."""
        assert self._process is not None
        return self._process.wait(timeout=15)

    def stop(self) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._end()

    def _end(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait()

    def script(self, node_id: str, **what: Any) -> None:
        """Say what attempts of a node do from now on; nothing lets them succeed."""
        path = self.scripts / f"{node_id}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(what))
        temporary.rename(path)

    def calls(self, run_id: str) -> list[str]:
        """Return the nodes of a run whose bodies were executed, in order."""
        path = self.scripts / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call["node"] for call in map(json.loads, lines) if call["run"] == run_id]


class Conformance(msgspec.Struct, frozen=True, kw_only=True):
    """The client, and the same server asked directly for what the client has no method for."""

    server: Process
    client: TandemClient
    raw: httpx.AsyncClient

    @property
    def api(self) -> Any:
        return self.client.automations_v2

    async def active(self, automation_id: str, **more: Any) -> str:
        """Keep an active automation of the script's shape."""
        spec = {**SPEC, "automation_id": automation_id, "status": "active", **more}
        await self.api.create(spec)
        return automation_id

    async def started(self, automation_id: str) -> str:
        return str((await self.api.run_now(automation_id)).run_id)

    async def until(self, run_id: str, *statuses: str) -> Any:
        """Return the true record of a run once it is in one of these states."""
        deadline = time.monotonic() + REST_S
        while time.monotonic() < deadline:
            run = (await self.raw.get(f"/automations/v2/runs/{run_id}")).json()["run"]
            if run["status"] in (statuses or RESTING):
                return run
            assert run["status"] not in ENDED, (run["status"], run.get("detail"))
            await asyncio.sleep(0.02)
        raise AssertionError(f"{run['status']} instead of {statuses}: {run.get('detail')}")

    async def running(self, run_id: str, node_id: str) -> None:
        """Return once the body of a node runs."""
        deadline = time.monotonic() + REST_S
        while node_id not in self.server.calls(run_id):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def post(self, path: str, body: dict[str, Any] | None = None, **how: Any) -> Any:
        return await self.raw.post(path, json=body or {}, **how)


SCHEDULE = {"type": "manual", "timezone": "UTC", "misfire_policy": {"type": "run_once"}}
AGENT = {
    "agent_id": "a1",
    "display_name": "A1",
    "tool_policy": {"allowlist": ["read"], "denylist": []},
    "mcp_policy": {"allowed_servers": []},
}


def node(node_id: str, *after: str, **more: Any) -> dict[str, Any]:
    found = {
        "node_id": node_id,
        "agent_id": "a1",
        "objective": f"do {node_id}",
        "depends_on": list(after),
        "retry_policy": {"max_attempts": 1},
    }
    return {**found, **more}


SPEC = {
    "name": "conformance",
    "schedule": SCHEDULE,
    "agents": [AGENT],
    "flow": {"nodes": [node("n1"), node("n2", "n1"), node("n3", "n2"), node("s1")]},
}
Start = Callable[..., Process]
"""Starts a server with these variables in its environment."""


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Start]:
    """Start servers; what still runs at the end of the test is stopped."""
    started: list[Process] = []

    def begin(**env: str) -> Process:
        process = Process(tmp_path / f"server{len(started)}")
        process.start(**env)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One server for all rows of a module."""
    process = Process(tmp_path_factory.mktemp("conformance"))
    process.start()
    yield process
    assert process.stop() == 0


@pytest.fixture
async def c(shared: Process) -> AsyncIterator[Conformance]:
    """The published client, which sees the view of 0.7, and the true view beside it."""
    for path in shared.scripts.glob("*.json"):
        path.unlink()
    async with open_client(shared) as found:
        yield found


def open_client(server: Process) -> Any:
    return _Opened(server)


class _Opened:
    def __init__(self, server: Process) -> None:
        self._server = server
        self._client = TandemClient(server.url + COMPAT, TOKEN)
        self._raw = httpx.AsyncClient(
            base_url=server.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=20
        )

    async def __aenter__(self) -> Conformance:
        await self._client.__aenter__()
        return Conformance(server=self._server, client=self._client, raw=self._raw)

    async def __aexit__(self, *error: object) -> None:
        await self._raw.aclose()
        await self._client.__aexit__(*error)
