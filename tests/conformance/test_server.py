"""Row 52 of the conformance script, and what else only a process can show."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from tandem_client import SyncTandemClient

from .conftest import COMPAT, SPEC, TOKEN, Start, open_client


@pytest.mark.parametrize("writer", ["inline", "process"])
async def test_row_52_a_killed_server_resumes_and_completes_no_node_twice(
    start_server: Start, writer: str
) -> None:
    server = start_server(TANDEM_STORE_WRITER=writer)
    async with open_client(server) as c:
        await c.active("row-52")
        server.script("n2", wait=True)
        run_id = await c.started("row-52")
        await c.running(run_id, "n2")
    server.kill()
    server.script("n2")
    server.start(TANDEM_STORE_WRITER=writer)
    async with open_client(server) as c:
        run = await c.until(run_id, "completed")
        events = (await c.raw.get(f"/automations/v2/runs/{run_id}/history")).json()["events"]
    completed = [
        event["metadata"]["node_id"] for event in events if event["event"] == "node_completed"
    ]
    assert sorted(completed) == ["n1", "n2", "n3", "s1"]
    assert server.calls(run_id).count("n1") == 1
    named = [event["event"] for event in run["checkpoint"]["lifecycle_history"]]
    assert named.count("run_queued_for_resume_after_restart") == 1
    assert [event["event"] for event in events].count("run_completed") == 1


async def test_sigterm_ends_the_server_while_requests_are_open(start_server: Start) -> None:
    server = start_server()
    async with open_client(server) as c:
        await c.active("term")
        server.script("n1", wait=True)
        run_id = await c.started("term")
        await c.running(run_id, "n1")
        pausing = asyncio.create_task(c.api.pause_run(run_id))
        await pausing
    assert server.stop() == 0


def test_the_synchronous_client_works_again_and_again(start_server: Start) -> None:
    server = start_server()
    client = SyncTandemClient(server.url + COMPAT, TOKEN)
    for _ in range(3):
        assert client.automations_v2.list().count == 0
    client.close()


@contextmanager
def serve(*arguments: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """Start `tandem serve`; what still runs at the end of the block is killed."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_API")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tandem", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**own, "TANDEM_LOG_FORMAT": "console", **env},
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def url_of(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("serving on "), line
    return line.removeprefix("serving on ").strip()


def test_serving_to_others_needs_a_token() -> None:
    with serve("--host", "0.0.0.0", "--port", "0") as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "TANDEM_API_TOKEN" in said


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with serve("--port", str(taken.getsockname()[1])) as process:
            _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot listen on" in said


def test_a_server_without_a_token_says_so_and_runs_commands() -> None:
    say = {"node_id": "say", "action": {"kind": "command", "argv": ["echo", "hello"]}}
    spec = {**SPEC, "agents": [], "flow": {"nodes": [say]}, "automation_id": "hello"}
    with serve("--port", "0") as process, httpx.Client(base_url=url_of(process)) as http:
        assert process.stderr is not None
        assert "no token is there" in process.stderr.readline()
        assert http.post("/automations/v2", json=spec).status_code == 200
        run_id = http.post("/automations/v2/hello/run_now", json={}).json()["run"]["run_id"]
        run = {"status": "queued"}
        while run["status"] in ("queued", "running"):
            run = http.get(f"/automations/v2/runs/{run_id}").json()["run"]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert run["status"] == "completed"
    assert process.returncode == 0
    assert "stopped" in said


def test_an_agent_node_is_kept_and_its_run_is_refused_with_what_to_do() -> None:
    with serve("--port", "0") as process, httpx.Client(base_url=url_of(process)) as http:
        kept = http.post("/automations/v2", json={**SPEC, "automation_id": "agents"})
        refused = http.post("/automations/v2/agents/run_now", json={"dry_run": False})
        dry = http.post("/automations/v2/agents/run_now", json={"dry_run": True})
    assert (kept.status_code, dry.status_code, refused.status_code) == (200, 200, 400)
    body = refused.json()
    assert body["code"] == "AUTOMATION_V2_RUN_CREATE_FAILED"
    assert {problem["code"] for problem in body["problems"]} == {"agents_not_installed"}
    assert "tandem-engine[agents]" in refused.text


async def test_a_second_signal_leaves_at_once(start_server: Start) -> None:
    server = start_server()
    async with open_client(server) as c:
        await c.active("hurry")
        server.script("n1", wait=True)
        run_id = await c.started("hurry")
        await c.running(run_id, "n1")
    server.signal(signal.SIGTERM)
    server.signal(signal.SIGTERM, after="stopping")
    assert server.wait() == 128 + signal.SIGTERM
