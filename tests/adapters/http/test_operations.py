"""Probes, metrics and what is told of requests, through the application in this process."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import StreamingResponse

from tandem.adapters.http import app, policy
from tandem.adapters.http.app import make_app
from tandem.adapters.http.call import Call, Endpoint
from tandem.adapters.http.local_access import LocalAccess
from tandem.adapters.http.service import HttpLimits
from tandem.adapters.http.site import Site
from tandem.adapters.logs.words import KEYS
from tandem.domain.caller import Scope
from tandem.observing import Observing
from tandem.serving import service_of
from tandem.settings import Settings
from tandem.wiring import Parts, open_engine

TOKEN = "canary-7f3a9c-token"
BEARER = {"authorization": f"Bearer {TOKEN}"}


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """A server with everything that looks after it."""

    http: httpx2.AsyncClient
    site: Site
    parts: Parts
    log: io.StringIO

    async def numbers(self) -> dict[str, float]:
        """Return what the metrics show, by name and labels."""
        response = await self.http.get("/metrics", headers=BEARER)
        assert response.status_code == 200, response.text
        return {
            " ".join([sample.name, *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log that tell of this event."""
        found = [json.loads(line) for line in self.log.getvalue().splitlines()]
        assert {key for line in found for key in line} <= set(KEYS), "the reference lacks one"
        return [line for line in found if line["event"] == event]


@asynccontextmanager
async def observed(
    folder: Path, *, peer: str = "127.0.0.1", is_open: bool = True, **fields: Any
) -> AsyncIterator[Observed]:
    """Open a server; `peer` is who asks it."""
    settings = Settings(
        state_dir=folder,
        isolation="subreaper",
        synchronous="OFF",
        log_format="json",
        **{"metrics_enabled": True, "log_level": "debug", "api_token": TOKEN, **fields},
    )
    log = io.StringIO()
    observing = Observing(settings, log)
    site = Site(
        access=LocalAccess(settings.api_token),
        limits=HttpLimits(metrics_are_public=settings.metrics_public),
        complain=observing.incident,
        observers=observing.observers,
        metrics=observing.metrics,
    )
    async with (
        open_engine(settings, prepare=observing.prepare) as parts,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(make_app(site), client=(peer, 50_000)),
            base_url="http://127.0.0.1:39731",
        ) as http,
    ):
        if is_open:
            site.open(service_of(parts))
        yield Observed(http=http, site=site, parts=parts, log=log)


# Probes


async def test_probes_need_no_token_and_no_name_of_ours(tmp_path: Path) -> None:
    async with observed(tmp_path, peer="10.0.0.7") as server:
        for path in ("/healthz", "/readyz"):
            response = await server.http.get(path, headers={"host": "10.42.0.3:39731"})
            assert response.status_code == 200, path
        assert (await server.http.get("/healthz")).json() == {"healthy": True}
        assert (await server.http.get("/readyz")).json() == {
            "ready": True,
            "checks": {"engine": True, "lease": True, "store": True},
        }


async def test_it_lives_before_it_is_ready(tmp_path: Path) -> None:
    async with observed(tmp_path, is_open=False) as server:
        assert (await server.http.get("/healthz")).status_code == 200
        response = await server.http.get("/readyz")
        assert (response.status_code, response.json()["ready"]) == (503, False)


async def test_a_server_that_is_about_to_end_lives_and_takes_nothing_more(tmp_path: Path) -> None:
    async with observed(tmp_path) as server:
        server.parts.engine.stop()
        response = await server.http.get("/readyz")
        assert (response.status_code, response.json()["checks"]["engine"]) == (503, False)
        assert (await server.http.get("/healthz")).status_code == 200


async def test_streams_that_say_goodbye_make_it_unready(tmp_path: Path) -> None:
    async with observed(tmp_path) as server:
        server.site.leave()
        assert (await server.http.get("/readyz")).status_code == 503


async def test_probes_tell_nothing_but_yes_and_no(tmp_path: Path) -> None:
    async with observed(tmp_path) as server:
        for path in ("/healthz", "/readyz"):
            text = (await server.http.get(path)).text
            assert str(tmp_path) not in text
            assert server.parts.engine.engine_id not in text


# Metrics


async def test_the_metrics_are_off_unless_they_are_asked_for(tmp_path: Path) -> None:
    async with observed(tmp_path, metrics_enabled=False) as server:
        response = await server.http.get("/metrics")
    assert (response.status_code, response.json()["code"]) == (404, "METRICS_DISABLED")


async def test_this_machine_scrapes_without_a_token(tmp_path: Path) -> None:
    async with observed(tmp_path) as server:
        response = await server.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "tandem_scheduler_active_runs 0.0" in response.text


async def test_another_machine_needs_a_token_unless_the_metrics_are_public(
    tmp_path: Path,
) -> None:
    async with observed(tmp_path / "a", peer="10.0.0.7") as server:
        assert (await server.http.get("/metrics")).status_code == 401
        assert (await server.http.get("/metrics", headers=BEARER)).status_code == 200
    async with observed(tmp_path / "b", peer="10.0.0.7", metrics_public=True) as server:
        assert (await server.http.get("/metrics")).status_code == 200


@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded", "x-real-ip", "via"])
async def test_a_proxy_on_this_machine_does_not_open_the_metrics(tmp_path: Path, name: str) -> None:
    async with observed(tmp_path) as server:
        assert (await server.http.get("/metrics", headers={name: "10.0.0.7"})).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:39731", ""])
async def test_a_page_that_took_this_address_for_its_name_reads_no_metrics(
    tmp_path: Path, host: str
) -> None:
    async with observed(tmp_path) as server:
        assert (await server.http.get("/metrics", headers={"host": host})).status_code == 401


async def test_requests_are_counted_by_template_also_those_that_are_refused(
    tmp_path: Path,
) -> None:
    async with observed(tmp_path) as server:
        await server.http.get("/automations/v2/runs/one", headers=BEARER)
        await server.http.get("/automations/v2/runs/two", headers=BEARER)
        await server.http.get("/automations/v2/runs/three")
        await server.http.get("/no/such/path", headers=BEARER)
        found = await server.numbers()
    template = "/automations/v2/runs/{run_id}"
    assert found[f"tandem_http_requests_total GET {template} 404"] == 2
    assert found["tandem_http_requests_total GET (none) 401"] == 1
    assert found["tandem_http_requests_total GET (none) 404"] == 1
    assert found[f"tandem_http_request_seconds_count GET {template}"] == 2


async def test_a_stream_is_open_until_its_reader_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = asyncio.Event()

    async def stream(_: Call) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b": hello\n\n"
            await goes_on.wait()

        return StreamingResponse(parts(), media_type="text/event-stream")

    endpoint = Endpoint(method="GET", path="/stream", handler=stream, says="", answers="")
    monkeypatch.setitem(policy.POLICY, endpoint.name, Scope.VIEWER)  # type: ignore[arg-type]
    began = asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        began.set()

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/stream",
        "raw_path": b"/stream",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {TOKEN}".encode())],
        "client": ("127.0.0.1", 1),
    }
    async with observed(tmp_path) as server, asyncio.timeout(10):
        streaming = make_app(server.site, (*app.endpoints(), endpoint))
        async with asyncio.TaskGroup() as group:
            group.create_task(streaming(scope, receive, send))
            await began.wait()
            assert (await server.numbers())["tandem_http_streams_open"] == 1
            goes_on.set()
        found = await server.numbers()
    assert found["tandem_http_streams_open"] == 0
    assert found["tandem_http_requests_total GET /stream 200"] == 1
    assert "tandem_http_request_seconds_count GET /stream" not in found


# The log


async def test_an_answer_names_its_request_and_so_do_the_lines_about_it(tmp_path: Path) -> None:
    async with observed(tmp_path) as server:
        given = await server.http.get("/healthz", headers={"x-request-id": "abc-1"})
        made = await server.http.get("/healthz", headers={"x-request-id": "no spaces\x7f"})
        first, second = server.lines("http_request")
    assert given.headers["x-request-id"] == first["request_id"] == "abc-1"
    assert made.headers["x-request-id"] == second["request_id"]
    assert len(second["request_id"]) == 32
    assert (first["method"], first["route"], first["status"]) == ("GET", "/healthz", 200)
    assert first["duration_ms"] >= 0


async def test_what_a_request_leads_to_carries_its_id(tmp_path: Path) -> None:
    node = {"node_id": "ask", "gate": {"required": True}}
    spec = {
        "automation_id": "gated",
        "name": "gated",
        "status": "active",
        "schedule": {"type": "manual", "timezone": "UTC", "misfire_policy": {"type": "run_once"}},
        "agents": [],
        "flow": {"nodes": [node]},
    }
    async with observed(tmp_path) as server, asyncio.timeout(10):
        made = await server.http.post("/automations/v2", json=spec, headers=BEARER)
        assert made.status_code == 200, made.text
        asked = await server.http.post("/automations/v2/gated/run_now", json={}, headers=BEARER)
        run_id = asked.json()["run"]["run_id"]
        while not server.lines("run_parked_at_gate"):
            await asyncio.sleep(0)
        cancelled = await server.http.post(
            f"/automations/v2/runs/{run_id}/cancel",
            json={"reason": "enough"},
            headers={**BEARER, "x-request-id": "cancel-1"},
        )
        assert cancelled.status_code == 200, cancelled.text
        stopped = server.lines("run_stopped") + server.lines("run_cancelled")
    assert {line["request_id"] for line in stopped} == {"cancel-1"}
    assert {line["run_id"] for line in stopped} == {run_id}


async def test_no_line_and_no_number_holds_the_token(tmp_path: Path) -> None:
    async with observed(tmp_path) as server:
        for path in (f"/automations/v2?token={TOKEN}", f"/{TOKEN}", f"/automations/v2/{TOKEN}"):
            await server.http.get(path, headers={**BEARER, "x-request-id": TOKEN})
        server.site.complain(f"incident in Authorization: Bearer {TOKEN}")
        shown = (await server.http.get("/metrics")).text
        assert len(server.lines("http_request")) == 4
    assert TOKEN not in shown
    assert TOKEN not in server.log.getvalue()
