"""The meters of one process, in a registry of its own."""

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from tandem.adapters.metrics import series
from tandem.adapters.metrics.series import Series
from tandem.domain.change import Change
from tandem.domain.errors import EngineError
from tandem.domain.lifecycle import TERMINAL, RunEvent
from tandem.domain.view import RunView
from tandem.engine.attempt_times import AttemptTimes
from tandem.engine.engine import Engine

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE: Final = "(none)"


class Meters:
    """Counts what it is told, and asks the engine that it watches when it is read.

    `changed` is a listener of the engine, `problem` is told what `on_problem` is.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._engine: Engine | None = None
        self._times = AttemptTimes()
        build = self._gauge(series.BUILD)
        build.labels(version("tandem-engine"), platform.python_version()).set(1)
        self._problems = self._counter(series.PROBLEMS)
        self._lag = self._histogram(series.LAG)
        self._claimed = self._counter(series.CLAIMED)
        self._ended = self._counter(series.ENDED)
        self._attempts = self._counter(series.ATTEMPTS)
        self._attempt_seconds = self._histogram(series.ATTEMPT_SECONDS)
        self._write_seconds = self._histogram(series.WRITE_SECONDS)
        self._write_batch = self._histogram(series.WRITE_BATCH)
        self._requests = self._counter(series.REQUESTS)
        self._request_seconds = self._histogram(series.REQUEST_SECONDS)
        self._streams = self._gauge(series.STREAMS)
        for status in TERMINAL:
            self._ended.labels(status.value)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def watch(self, engine: Engine) -> None:
        """Show this engine and the queue of its store."""
        self._engine = engine
        engine.listen(self.changed, left=self._times.left)

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus (`CONTENT_TYPE`)."""
        return generate_latest(_WithoutBirths(self._registry))

    # What is told

    def changed(self, view: RunView, change: Change) -> None:
        """Count what a change says: every claim, end and attempt once."""
        if change.moved:
            if any(event.event is RunEvent.RUN_CLAIMED for event in change.events):
                self._claimed.inc()
            if change.run.status in TERMINAL and change.status_before not in TERMINAL:
                self._ended.labels(change.run.status.value).inc()
        took_ms = self._times.follow(change)
        for attempt in change.attempts_ended:
            kind = _kind_of(view, attempt.node_no)
            outcome = attempt.outcome.value if attempt.outcome is not None else "unknown"
            self._attempts.labels(kind, outcome).inc()
            if attempt.attempt_id in took_ms:
                self._attempt_seconds.labels(kind).observe(took_ms[attempt.attempt_id] / 1_000)

    def problem(self) -> None:
        """Count a problem beside the runs."""
        self._problems.inc()

    def written(self, place: str, writes: int, seconds: float) -> None:
        """Measure writes that went to disk together."""
        self._write_seconds.labels(place).observe(seconds)
        self._write_batch.labels(place).observe(writes)

    def lagged(self, seconds: float) -> None:
        """Note how much too late the loop was."""
        self._lag.observe(seconds)

    def answered(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count a request; without `seconds` it was a stream, whose length says nothing."""
        method = method if method in METHODS else "other"
        route = route or NO_ROUTE
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._request_seconds.labels(method, route).observe(seconds)

    def streaming(self, more: int) -> None:
        """Note that so many more streams are open, or fewer."""
        self._streams.inc(more)

    # What is asked

    def collect(self) -> Iterator[Metric]:
        """Ask the engine and its store; for the registry."""
        engine = self._engine
        if engine is None:
            return
        yield _now(series.DRIVEN, engine.driven)
        yield _now(series.PLACES, engine.limits.runs_max)
        yield _now(series.LEASE_AGE, engine.lease_age_ms / 1_000)
        yield _now(series.LEASE_LEFT, engine.lease_left_ms / 1_000)
        failed = CounterMetricFamily(
            series.SWEEPS_FAILED.name,
            series.SWEEPS_FAILED.sentence,
            labels=series.SWEEPS_FAILED.labels,
        )
        for part, times in engine.sweep_failures.items():
            failed.add_metric([part], times)
        yield failed
        try:
            found = engine.scheduler_metrics()
        except EngineError:
            yield _now(series.READABLE, 0)
            return
        yield _now(series.READABLE, 1)
        yield _now(series.ACTIVE, found.active_runs)
        yield _now(series.WAIT_AVG, found.avg_wait_ms)
        yield _now(series.WAIT_P95, found.p95_wait_ms)
        for shown, value in (
            (series.ADMITTED, found.admitted_total),
            (series.COMPLETED, found.completed_total),
        ):
            yield CounterMetricFamily(shown.name, shown.sentence, value=value)
        queued = GaugeMetricFamily(
            series.QUEUED.name, series.QUEUED.sentence, labels=series.QUEUED.labels
        )
        for reason, runs in sorted(found.queued_runs_by_reason.items()):
            queued.add_metric([reason], runs)
        yield queued

    def describe(self) -> Iterable[Metric]:
        """Name nothing: what is asked is asked at each scrape only."""
        return ()

    def _counter(self, shown: Series) -> Counter:
        return Counter(shown.name, shown.sentence, shown.labels, registry=self._registry)

    def _gauge(self, shown: Series) -> Gauge:
        return Gauge(shown.name, shown.sentence, shown.labels, registry=self._registry)

    def _histogram(self, shown: Series) -> Histogram:
        return Histogram(
            shown.name,
            shown.sentence,
            shown.labels,
            registry=self._registry,
            buckets=shown.bounds,
        )


class _WithoutBirths(CollectorRegistry):
    """Leaves out when each counter was made, which doubles their number and nobody asks for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._inner = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._inner.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


def _now(shown: Series, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(shown.name, shown.sentence, value=value)


def _kind_of(view: RunView, node_no: int) -> str:
    """Return what kind of body a node has; a view may lack its nodes."""
    if node_no >= len(view.plan.nodes):
        return "unknown"
    return view.plan.nodes[node_no].node.kind.value
