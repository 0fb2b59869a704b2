"""Spans really go out, by OTLP over HTTP, and a collector that is away holds nobody up."""

import gzip
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tandem import Automation, Engine
from tandem.adapters.traces import sdk
from tandem.adapters.traces.ids import trace_id_of
from tandem.domain.ids import RunId

Once = Callable[[], Awaitable[str]]
DOCUMENT = {
    "automation_id": "traced",
    "nodes": [{"node_id": "say", "action": {"kind": "python", "function": "test:ok"}}],
}


class Collector:
    """Takes spans on a port of this machine."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


@pytest.fixture
def run_once(tmp_path: Path) -> Once:
    async def run() -> str:
        functions = {"test:ok": lambda: "ok"}
        async with Engine.open(f"sqlite:///{tmp_path}/tandem.db", functions=functions) as engine:
            run = await engine.run(Automation.from_dict(DOCUMENT))
            assert await run.wait() == "completed"
            return run.run_id

    return run


async def test_the_spans_of_a_run_arrive_before_the_engine_is_closed(
    collector: Collector,
    run_once: Once,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "night-shift")
    run_id = await run_once()
    (sent,) = [spans for request in collector.requests for spans in request.resource_spans]
    resource = {item.key: item.value.string_value for item in sent.resource.attributes}
    assert resource["service.name"] == "night-shift"
    spans = [span for scope in sent.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["node say", "run traced"]
    assert {int.from_bytes(span.trace_id, "big") for span in spans} == {trace_id_of(RunId(run_id))}


async def test_a_collector_that_is_away_keeps_nobody_for_long(
    run_once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(sdk, "FLUSH_MAX_S", 0.2)
        began = time.monotonic()
        await run_once()
        assert time.monotonic() - began < 5
