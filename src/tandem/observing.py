"""What a server tells of itself: its log and its meters, put together at one place."""

import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from tandem.adapters.http.service import Observer
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.logs.log import make_log, take_over
from tandem.adapters.logs.requests import RequestLog
from tandem.adapters.logs.runs import RunLog
from tandem.adapters.metrics.lag import LagWatch
from tandem.adapters.metrics.meters import Meters
from tandem.domain.redaction import Redactor
from tandem.settings import Settings
from tandem.wiring import Parts


class Observing:
    """The log, and the meters if the settings ask for them; entered, it watches the loop.

    Args:
        settings: of this process.
        stream: where the log goes; the standard error of this process if not given.
    """

    def __init__(self, settings: Settings, stream: TextIO | None = None) -> None:
        stream = stream or sys.stderr
        self._settings = settings
        is_json = settings.log_is_json(on_screen=stream.isatty())
        self.log = make_log(
            stream,
            kind="json" if is_json else "console",
            level=settings.log_level,
            redactor=Redactor(settings.secret_values()),
            now_ms=SystemClock().now_ms,
        )
        self._says = is_json
        self._meters = Meters() if settings.metrics_enabled else None
        self._lag = LagWatch(self._meters.lagged) if self._meters is not None else None

    @property
    def observers(self) -> Sequence[Observer]:
        """Those who hear of requests."""
        log: Observer = RequestLog(self.log)
        return (log,) if self._meters is None else (log, self._meters)

    @property
    def metrics(self) -> Callable[[], bytes] | None:
        """What `GET /metrics` shows, if anything."""
        return None if self._meters is None else self._meters.text

    def say(self, event: str, **facts: Any) -> None:
        """Write what people are told in words, where the log is for machines."""
        if self._says:
            self.log.info(event, **facts)

    def incident(self, text: str) -> None:
        """Write a mistake of ours that was answered with a number only."""
        self.log.error("http_incident", message=text)

    def problem(self, words: str) -> None:
        """Write and count what went wrong beside the runs."""
        self.log.warning("engine_problem", message=words)
        if self._meters is not None:
            self._meters.problem()

    def prepare(self, parts: Parts) -> None:
        """Listen to an engine that has not started yet."""
        engine_id = parts.engine.engine_id
        RunLog(self.log, level=self._settings.log_level, engine_id=engine_id).listen_to(
            parts.engine
        )
        if self._meters is not None:
            self._meters.watch(parts.engine)
            parts.store.listen(self._meters.written)

    async def __aenter__(self) -> Self:
        take_over(self.log, level=self._settings.log_level)
        if self._lag is not None:
            await self._lag.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lag is not None:
            await self._lag.__aexit__(kind, error, trace)
