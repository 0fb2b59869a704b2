"""All drives of a run are one trace, one span for each attempt, in the engine's time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode

from tandem.adapters.traces.generator import GivenIds
from tandem.adapters.traces.ids import drive_name, span_id_of, trace_id_of
from tandem.adapters.traces.runs import NS_PER_MS, RunTraces
from tandem.adapters.traces.sdk import TracesUnavailable, is_wanted, open_tracing, standing
from tandem.domain.command import Cancel, Pause, Resume
from tandem.domain.ids import RunId
from tandem.domain.lifecycle import RunState
from tandem.domain.redaction import REDACTED, Redactor
from tandem.engine.engine import Engine
from tandem.engine.limits import Limits
from tandem.testing.builders import automation, python_node
from tandem.testing.executor import Script
from tandem.testing.loop import Process
from tests.small_world import SmallWorld

S = RunState
CHAIN = automation(python_node("a"), python_node("b", "a"))
ONE = automation(python_node("a", retry_policy={"max_attempts": 2}))
LONG = Script(duration_ms=1_000)


class Scene:
    """A small world whose engines make spans that a test can read."""

    def __init__(self, path: Path, *, given: bool = True, sampler: Any = None) -> None:
        self.world = SmallWorld(path)
        self.exporter = InMemorySpanExporter()
        self.ids = GivenIds() if given else None
        provider = TracerProvider(
            **({"id_generator": self.ids} if self.ids else {}),
            **({"sampler": sampler} if sampler else {}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("tandem")
        self.traces: list[RunTraces] = []

    def engine(self, process: Process | None = None, limits: Limits | None = None) -> Engine:
        engine = self.world.engine(process, limits)
        traces = RunTraces(
            self.tracer,
            ids=self.ids,
            redactor=Redactor(["canary-7f3a9c"]),
            now_ms=self.world.clock.now_ms,
        )
        traces.listen_to(engine)
        self.traces.append(traces)
        return engine

    def spans(self, prefix: str = "") -> Sequence[ReadableSpan]:
        return [s for s in self.exporter.get_finished_spans() if s.name.startswith(prefix)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "tandem.db")


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span without the common prefix."""
    return {name.removeprefix("tandem."): value for name, value in (span.attributes or {}).items()}


def trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


def test_a_run_is_one_span_with_one_below_it_for_each_attempt(scene: Scene) -> None:
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, CHAIN, a=LONG, b=LONG)
            await world.until_status(run, S.COMPLETED)
            await world.until(lambda: engine.driven == 0)
        (drive,) = scene.spans("run ")
        first, second = scene.spans("node ")
        assert trace_of(drive) == trace_of(first) == trace_of(second) == trace_id_of(run)
        assert drive.parent is None
        assert drive.context is not None
        assert first.parent is not None
        assert first.parent.span_id == drive.context.span_id == span_id_of(drive_name(run, 1))
        assert (first.name, second.name) == ("node a", "node b")
        assert attributes(drive) == {
            "run.id": run,
            "run.epoch": 1,
            "run.interruptions": 0,
            "run.status": "completed",
            "automation.id": "simulated",
            "tenant.id": "local",
            "engine.id": engine.engine_id,
        }
        assert attributes(first) == {
            "run.id": run,
            "automation.id": "simulated",
            "node.id": "a",
            "node.kind": "python",
            "attempt.id": f"{run}/a/1",
            "attempt.number": 1,
            "attempt.outcome": "succeeded",
        }
        row = world.row(run)
        assert row.started_at_ms is not None
        assert drive.start_time == row.started_at_ms * NS_PER_MS
        assert drive.end_time == row.updated_at_ms * NS_PER_MS
        assert first.start_time is not None
        assert first.end_time is not None
        assert first.end_time - first.start_time == 1_000 * NS_PER_MS

    world.tell(story())


def test_drives_before_and_after_a_pause_are_one_trace_and_name_each_other(scene: Scene) -> None:
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, CHAIN, a=LONG, b=LONG)
            await world.until_status(run, S.RUNNING)
            await engine.execute(run, Pause(reason="look"))
            await world.until_status(run, S.PAUSED)
            await engine.execute(run, Resume(reason="go"))
            await world.until_status(run, S.COMPLETED)
            await world.until(lambda: engine.driven == 0)
        first, second = scene.spans("run ")
        assert trace_of(first) == trace_of(second)
        assert [attributes(span)["run.status"] for span in (first, second)] == [
            "paused",
            "completed",
        ]
        assert first.context is not None
        assert [link.context.span_id for link in second.links] == [first.context.span_id]
        assert not first.links

    world.tell(story())


def test_a_run_that_another_engine_takes_over_goes_on_in_the_same_trace(scene: Scene) -> None:
    world = scene.world

    async def story() -> None:
        dying = Process("dying")
        engine = scene.engine(dying)
        life = world.loop.create_task(world.live(engine))
        await world.until(lambda: engine.is_driving)
        run = await world.start(engine, CHAIN, a=LONG, b=LONG)
        await world.until_status(run, S.RUNNING)
        life.cancel()
        await world.until(life.done)
        async with scene.engine(Process("next")) as other:
            await world.until_status(run, S.COMPLETED)
            await world.until(lambda: other.driven == 0)
        drives = scene.spans("run ")
        assert {trace_of(span) for span in drives} == {trace_id_of(run)}
        assert [attributes(span)["run.epoch"] for span in drives] == [1, 2]
        assert attributes(drives[0])["engine.id"] != attributes(drives[1])["engine.id"]
        assert [link.context.span_id for link in drives[1].links] == [
            span_id_of(drive_name(run, 1))
        ]

    world.tell(story())


def test_a_failed_attempt_says_why_and_each_try_is_a_span(scene: Scene) -> None:
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, ONE, a=Script(duration_ms=10, ending="fail"))
            await world.until_status(run, S.FAILED)
            await world.until(lambda: engine.driven == 0)
        tries = scene.spans("node ")
        assert [attributes(span)["attempt.number"] for span in tries] == [1, 2]
        assert {span.status.status_code for span in tries} == {StatusCode.ERROR}
        assert attributes(tries[0])["attempt.failure_class"] == "execution_error"
        assert scene.spans("run ")[-1].status.status_code is StatusCode.ERROR

    world.tell(story())


def test_nothing_stays_open_whatever_ends_a_run(scene: Scene) -> None:
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            runs = [await world.start(engine, CHAIN, a=LONG, b=LONG) for _ in range(4)]
            await world.until_status(runs[-1], S.RUNNING)
            await engine.execute(runs[0], Cancel(reason="enough"))
            await world.until_status(runs[0], S.CANCELLED)
        assert engine.driven == 0
        assert scene.traces[0].open_spans == 0
        assert {attributes(span)["run.status"] for span in scene.spans("run ")} == {
            "cancelled",
            "queued",
        }

    world.tell(story())


def test_a_run_that_is_stopped_from_elsewhere_ends_its_spans(scene: Scene) -> None:
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, CHAIN, a=LONG, b=LONG)
            await world.until_status(run, S.RUNNING)
            other = world.engine(Process("other"))
            await other.execute(run, Cancel(reason="from elsewhere"))
            await world.until(lambda: engine.driven == 0)
            assert scene.traces[0].open_spans == 0
        assert attributes(scene.spans("run ")[0])["run.status"] == "cancelled"

    world.tell(story())


def test_a_drive_that_ends_without_a_change_ends_its_spans(scene: Scene) -> None:
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, CHAIN, a=LONG, b=LONG)
            await world.until(lambda: scene.traces[0].open_spans == 2)
            scene.traces[0].left(run, 7)
            assert scene.traces[0].open_spans == 2
            scene.traces[0].left(run, 1)
            assert scene.traces[0].open_spans == 0
            await world.until_status(run, S.COMPLETED)
        assert attributes(scene.spans("run ")[0])["run.status"] == "left"
        assert attributes(scene.spans("node ")[0])["attempt.outcome"] == "left"

    world.tell(story())


def test_a_tracer_with_ids_of_its_own_keeps_the_drives_of_a_run_together(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "tandem.db", given=False)
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, CHAIN, a=LONG, b=LONG)
            await world.until_status(run, S.RUNNING)
            await engine.execute(run, Pause(reason="look"))
            await world.until_status(run, S.PAUSED)
            await engine.execute(run, Resume(reason="go"))
            await world.until_status(run, S.COMPLETED)
            await world.until(lambda: engine.driven == 0)
        assert {trace_of(span) for span in scene.spans()} == {trace_id_of(run)}
        assert len(scene.spans()) == 4

    world.tell(story())


def test_what_is_not_sampled_is_not_sent_and_says_so_to_bodies(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "tandem.db", sampler=ParentBased(ALWAYS_OFF))
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, CHAIN, a=LONG, b=LONG)
            await world.until(lambda: bool(world.bodies.live))
            spec = world.bodies.live[0].spec
            found = scene.traces[0].traceparent(run, spec.attempt_id)
            assert found.endswith("-00")
            await world.until_status(run, S.COMPLETED)
        assert scene.spans() == []

    world.tell(story())


def test_no_span_holds_a_secret(scene: Scene) -> None:
    world = scene.world
    named = automation(python_node("canary-7f3a9c"))

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, named)
            await world.until_status(run, S.COMPLETED)
            await world.until(lambda: engine.driven == 0)
        told = "".join(span.to_json() for span in scene.spans())
        assert "canary-7f3a9c" not in told
        assert REDACTED in told

    world.tell(story())


def test_the_context_of_an_attempt_is_that_of_its_span(scene: Scene) -> None:
    world = scene.world

    async def story() -> None:
        engine = scene.engine()
        async with engine:
            run = await world.start(engine, CHAIN, a=LONG, b=LONG)
            await world.until(lambda: bool(world.bodies.live))
            attempt_id = world.bodies.live[0].spec.attempt_id
            found = scene.traces[0].traceparent(run, attempt_id)
            assert found == f"00-{trace_id_of(run):032x}-{span_id_of(attempt_id):016x}-01"
            assert scene.traces[0].traceparent(run, f"{attempt_id}/probe") == ""  # type: ignore[arg-type]
            assert scene.traces[0].traceparent(RunId("other"), attempt_id) == ""
            await world.until_status(run, S.COMPLETED)

    world.tell(story())


# What the environment says


ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({ENDPOINT: "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://127.0.0.1:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://127.0.0.1:4318"}, False),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) is wanted
    assert standing(environment).startswith("on" if wanted else "off")


def test_what_cannot_be_sent_is_said() -> None:
    asked = {"OTEL_TRACES_EXPORTER": "zipkin"}
    assert standing(asked) == "off: OTEL_TRACES_EXPORTER=zipkin is not supported; use otlp"
    with pytest.raises(TracesUnavailable, match="zipkin"), open_tracing(asked):
        pass
    asked = {ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert "use http/protobuf" in standing(asked)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.adapters.traces.sdk.find_spec", lambda _name: None)
    assert "pip install 'tandem-engine[otel]'" in standing({ENDPOINT: "http://127.0.0.1:4318"})
