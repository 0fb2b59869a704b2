"""Where spans go: to what the standard variables of OpenTelemetry name, by OTLP over HTTP."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Final

import msgspec

from tandem.domain.errors import EngineError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from tandem.adapters.traces.runs import NextIds

NAME: Final = "tandem"
FLUSH_MAX_S: Final = 3.0
"""How long the last spans may keep a process that ends; a collector that is away costs no more."""
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracesUnavailable(EngineError):
    """Spans are asked for and cannot be sent; runs go on without."""

    code = "traces_unavailable"


class Tracing(msgspec.Struct, frozen=True, kw_only=True):
    """A tracer, and where it takes its ids from if they can be given."""

    tracer: "Tracer"
    ids: "NextIds | None"


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Say whether the standard variables ask for spans."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    return any(environment.get(name, "").strip() for name in _ENDPOINTS)


def standing(environment: Mapping[str, str]) -> str:
    """Say in one line whether spans are sent, and what is missing if not."""
    if not is_wanted(environment):
        return "off (OTEL_EXPORTER_OTLP_ENDPOINT turns them on)"
    try:
        _check(environment)
    except TracesUnavailable as error:
        return f"off: {error}"
    return "on, by OTLP over HTTP"


@contextmanager
def open_tracing(environment: Mapping[str, str]) -> Iterator[Tracing | None]:
    """Yield what makes spans; None when nobody wants any. At the end the last ones are sent.

    A program that has set a tracer provider of its own gets the spans there.

    Raises:
        TracesUnavailable: the variables ask for what is not installed or not supported.
    """
    host = _of_the_program()
    if host is not None:
        yield host
        return
    if not is_wanted(environment):
        yield None
        return
    _check(environment)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from tandem.adapters.traces.generator import GivenIds

    ids = GivenIds()
    service = environment.get("OTEL_SERVICE_NAME", "").strip() or NAME
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": service, "service.version": version("tandem-engine")}
        ),
        id_generator=ids,
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield Tracing(tracer=provider.get_tracer(NAME), ids=ids)
    finally:
        # The SDK would try for half a minute, and cannot be told to give up earlier.
        last = Thread(target=provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(FLUSH_MAX_S)


def _of_the_program() -> Tracing | None:
    """Return the tracer of a program that has set a provider; who has, has imported the module."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry.trace import (
        NoOpTracerProvider,
        ProxyTracerProvider,
        get_tracer_provider,
    )

    provider = get_tracer_provider()
    if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider):
        return None
    ids = getattr(provider, "id_generator", None)
    return Tracing(tracer=provider.get_tracer(NAME), ids=ids if hasattr(ids, "give") else None)


def _check(environment: Mapping[str, str]) -> None:
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if exporter != "otlp":
        raise TracesUnavailable(f"OTEL_TRACES_EXPORTER={exporter} is not supported; use otlp")
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "")
    if protocol.strip() not in ("", "http/protobuf"):
        raise TracesUnavailable(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not supported; use http/protobuf"
        )
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise TracesUnavailable(
            "spans are asked for, but nothing here can send them: pip install 'tandem-engine[otel]'"
        )
