"""Bodies are told the span in which they run, when somebody makes spans."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import opentelemetry.trace
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tandem.adapters.traces.executor import TracedExecutor
from tests.engine.conftest import Bench, command

JSON = {"output": {"format": "json"}}


@pytest.fixture
def program_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """A program that has set a tracer provider of its own; put back afterwards."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


async def test_bodies_of_an_embedded_engine_are_told_their_span(
    program_provider: InMemorySpanExporter, bench: Bench
) -> None:
    run = await bench.start(command("say", 'printf \'"%s"\' "$TRACEPARENT"', action=JSON))
    assert await bench.end(run) == "completed"
    (span,) = [s for s in program_provider.get_finished_spans() if s.name == "node say"]
    assert span.context is not None
    assert (await run.outputs())[
        "say"
    ] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


async def test_without_a_provider_no_listener_is_there(bench: Bench) -> None:
    run = await bench.start(command("say", 'printf \'"%s"\' "${TRACEPARENT-none}"', action=JSON))
    assert await bench.end(run) == "completed"
    assert (await run.outputs())["say"] == "none"
    assert not isinstance(bench.engine.parts.engine._executor, TracedExecutor)


async def test_requests_carry_the_span_of_their_attempt(
    program_provider: InMemorySpanExporter, bench: Bench, echo: str
) -> None:
    action = {"kind": "http", "method": "GET", "url": echo}
    run = await bench.start({"node_id": "ask", "action": action})
    assert await bench.end(run) == "completed"
    (span,) = [s for s in program_provider.get_finished_spans() if s.name == "node ask"]
    assert span.context is not None
    told = (await run.outputs())["ask"]["body"]["traceparent"]  # type: ignore[call-overload, index]
    assert told == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that answers with the headers that it was sent."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({k.lower(): v for k, v in self.headers.items()}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
