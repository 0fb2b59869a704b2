"""The application in this process, over a real engine and a real store."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tandem.adapters.http.app import make_app
from tandem.adapters.http.local_access import LocalAccess
from tandem.adapters.http.service import Access, HttpLimits
from tandem.adapters.http.site import Site
from tandem.domain.ids import AttemptId, EngineId, RunId
from tandem.domain.outcome import Outcome, Succeeded
from tandem.engine.waiting import is_at_rest
from tandem.ports.executor import AttemptSpec, Progress
from tandem.serving import service_of
from tandem.settings import Settings
from tandem.wiring import Parts, open_engine
from tests.adapters.http.documented import hold_to_document


class Agents:
    """Plays the sessions of agents: each attempt ends as `outcomes` says for its node.

    A node in `held` ends when it is let go.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.started: asyncio.Queue[str] = asyncio.Queue()

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        self.started.put_nowait(attempt.node_id)
        if attempt.node_id in self.held:
            await self.held[attempt.node_id].wait()
        output = {"status": "completed", "summary": f"{attempt.node_id} is done"}
        return self.outcomes.get(attempt.node_id, Succeeded(output=output))

    async def end_leftovers(
        self, *, engine_ids: Collection[EngineId], attempt_ids: Collection[AttemptId]
    ) -> int:
        return 0


def node(node_id: str, *after: str, **more: Any) -> dict[str, Any]:
    """Return an agent node with one attempt."""
    found = {
        "node_id": node_id,
        "agent_id": "a1",
        "objective": f"do {node_id}",
        "depends_on": list(after),
        "retry_policy": {"max_attempts": 1},
    }
    return {name: value for name, value in {**found, **more}.items() if value is not None}


def spec(automation_id: str, *nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the body of a creation."""
    return {
        "automation_id": automation_id,
        "name": automation_id,
        "status": "active",
        "schedule": {"type": "manual"},
        "agents": [{"agent_id": "a1"}],
        "flow": {"nodes": list(nodes) or [node("n1"), node("n2", "n1")]},
        **more,
    }


GATE = {"required": True, "decisions": ["approve", "rework", "cancel"]}


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """An open server and a client of it."""

    http: httpx2.AsyncClient
    site: Site
    parts: Parts
    agents: Agents
    complaints: list[str]

    async def ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        return await self.http.request(method, path, **how)

    async def get(self, path: str, **how: Any) -> Any:
        """Return the document of a GET that has to succeed."""
        response = await self.http.get(path, **how)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, status: int = 200, **how: Any
    ) -> Any:
        """Return the document of a POST that has to be answered with `status`."""
        response = await self.http.post(path, json=dict(body or {}), **how)
        assert response.status_code == status, response.text
        return response.json()

    async def start(self, body: dict[str, Any]) -> str:
        """Keep an automation and start a run of it."""
        await self.post("/automations/v2", body)
        started = await self.post(f"/automations/v2/{body['automation_id']}/run_now")
        return str(started["run"]["run_id"])

    async def rest(self, run_id: str) -> Any:
        """Return the record of a run that has come to rest."""
        async with asyncio.timeout(WAIT_S):
            await self.parts.waiters.wait(RunId(run_id), until=is_at_rest)
        return (await self.get(f"/automations/v2/runs/{run_id}"))["run"]

    async def done(self, body: dict[str, Any]) -> str:
        """Return a run of the automation that has come to rest."""
        run_id = await self.start(body)
        await self.rest(run_id)
        return run_id


WAIT_S = 20.0


@asynccontextmanager
async def open_server(
    state_dir: Path,
    *,
    access: Access | None = None,
    limits: HttpLimits | None = None,
    is_open: bool = True,
    drives: bool = False,
    peer: str = "127.0.0.1",
) -> AsyncIterator[Server]:
    """Open a server over a store of its own; without `is_open` the engine never gets ready."""
    complaints: list[str] = []
    agents = Agents()
    site = Site(
        access=access or LocalAccess(),
        limits=limits or HttpLimits(),
        complain=complaints.append,
    )
    settings = Settings(
        state_dir=state_dir,
        isolation="subreaper",
        synchronous="OFF",
        output_bytes_max=100_000,
    )
    async with (
        open_engine(settings, drives=drives, agents=agents) as parts,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(make_app(site), client=(peer, 50_000)),
            base_url="http://127.0.0.1:39731",
            event_hooks={"response": [hold_to_document]},
        ) as http,
    ):
        if is_open:
            site.open(service_of(parts))
        yield Server(http=http, site=site, parts=parts, agents=agents, complaints=complaints)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server without a token whose engine does not drive."""
    async with open_server(tmp_path / "state") as found:
        yield found


@pytest.fixture
async def driving(tmp_path: Path) -> AsyncIterator[Server]:
    """A server without a token whose engine drives runs with agents of the test's own."""
    async with open_server(tmp_path / "state", drives=True) as found:
        yield found
