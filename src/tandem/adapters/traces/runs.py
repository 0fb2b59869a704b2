"""A listener that makes a span of each drive of a run, and of each of its attempts below it.

Nothing is made of events. All times are those of the changes, so of the engine's clock.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)

from tandem.adapters.traces.ids import drive_name, remote, span_id_of, trace_id_of
from tandem.domain.change import Change
from tandem.domain.ids import AttemptId, RunId
from tandem.domain.lifecycle import DRIVEN, RunEvent, RunState
from tandem.domain.redaction import Redactor
from tandem.domain.run import Attempt, AttemptEnd, Run
from tandem.domain.view import RunView
from tandem.engine.engine import Engine

NS_PER_MS: Final = 1_000_000
_GOOD: Final = frozenset({AttemptEnd.SUCCEEDED, AttemptEnd.STOPPED})
_BAD_RUNS: Final = frozenset({RunState.FAILED, RunState.BLOCKED})


class NextIds(Protocol):
    """Where a tracer takes the ids of its next span from."""

    def give(self, trace_id: int, span_id: int) -> None:
        """Have the next span made with these ids."""
        ...


class _Drive(msgspec.Struct):
    epoch: int
    span: Span
    context: Context
    attempts: dict[AttemptId, Span]


class RunTraces:
    """Makes the spans of one engine.

    Args:
        tracer: of whatever provider.
        ids: where the tracer takes its ids from. Without, it makes its own: the drives of a run
            are one trace all the same, below a span that nobody ever sees.
        redactor: sees every text of a span.
        now_ms: the engine's clock, for drives that end without a change.
    """

    def __init__(
        self,
        tracer: Tracer,
        *,
        ids: NextIds | None,
        redactor: Redactor,
        now_ms: Callable[[], int],
    ) -> None:
        self._tracer = tracer
        self._ids = ids
        self._redactor = redactor
        self._now_ms = now_ms
        self._drives: dict[RunId, _Drive] = {}

    def listen_to(self, engine: Engine) -> None:
        """Make spans of what this engine does from now on."""
        engine.listen(self.changed, left=self.left)

    @property
    def open_spans(self) -> int:
        """How many spans have begun and not ended."""
        return sum(1 + len(drive.attempts) for drive in self._drives.values())

    def traceparent(self, run_id: RunId, attempt_id: AttemptId) -> str:
        """Return the context of an attempt as bodies get it (W3C); empty when it has no span."""
        drive = self._drives.get(run_id)
        span = drive.attempts.get(attempt_id) if drive is not None else None
        if span is None:
            return ""
        context = span.get_span_context()
        flags = int(context.trace_flags) & 1
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"

    def changed(self, view: RunView, change: Change) -> None:
        """Begin and end spans as the change says."""
        run = change.run
        if change.moved and any(e.event is RunEvent.RUN_CLAIMED for e in change.events):
            self._begin_drive(run)
        drive = self._drives.get(run.run_id)
        if drive is None:
            return
        for attempt in change.attempts_ended:
            self._end_attempt(drive, attempt)
        for attempt in change.attempts_started:
            self._begin_attempt(drive, view, run, attempt)
        if run.status not in DRIVEN or run.epoch != drive.epoch:
            self._end_drive(run.run_id, drive, run.status.value, run.updated_at_ms)

    def left(self, run_id: RunId, epoch: int) -> None:
        """End what is still open of a run that this engine drives no more."""
        drive = self._drives.get(run_id)
        if drive is not None and drive.epoch == epoch:
            self._end_drive(run_id, drive, "left", self._now_ms())

    def _begin_drive(self, run: Run) -> None:
        before = self._drives.get(run.run_id)
        if before is not None:
            # This engine lost the run and has it again before its former driver has noticed.
            self._end_drive(run.run_id, before, "left", run.updated_at_ms)
        if run.status is not RunState.RUNNING:
            return
        name = drive_name(run.run_id, run.epoch)
        links = (
            [Link(remote(run.run_id, drive_name(run.run_id, run.epoch - 1)))]
            if run.epoch > 1
            else []
        )
        span = self._begin(
            f"run {run.automation_id}",
            run.run_id,
            name,
            at_ms=run.updated_at_ms,
            links=links,
            attributes={
                "tandem.run.id": run.run_id,
                "tandem.run.epoch": run.epoch,
                "tandem.run.interruptions": run.interruptions,
                "tandem.automation.id": run.automation_id,
                "tandem.tenant.id": run.tenant,
                "tandem.engine.id": run.engine_id or "",
            },
        )
        context = set_span_in_context(span, Context())
        self._drives[run.run_id] = _Drive(run.epoch, span, context, {})

    def _begin_attempt(self, drive: _Drive, view: RunView, run: Run, attempt: Attempt) -> None:
        node = view.plan.nodes[attempt.node_no].node
        drive.attempts[attempt.attempt_id] = self._begin(
            f"node {node.node_id}",
            run.run_id,
            attempt.attempt_id,
            at_ms=attempt.started_at_ms,
            parent=drive.context,
            attributes={
                "tandem.run.id": run.run_id,
                "tandem.automation.id": run.automation_id,
                "tandem.node.id": node.node_id,
                "tandem.node.kind": node.kind.value,
                "tandem.attempt.id": attempt.attempt_id,
                "tandem.attempt.number": attempt.number,
            },
        )

    def _begin(
        self,
        shown: str,
        run_id: RunId,
        name: str,
        *,
        at_ms: int,
        attributes: dict[str, str | int],
        links: list[Link] | None = None,
        parent: Context | None = None,
    ) -> Span:
        if self._ids is not None:
            self._ids.give(trace_id_of(run_id), span_id_of(name))
        if parent is None:
            parent = Context()
            if self._ids is None:
                parent = set_span_in_context(NonRecordingSpan(remote(run_id, run_id)), parent)
        return self._tracer.start_span(
            self._redactor.text(shown),
            context=parent,
            attributes={
                key: self._redactor.text(value) if isinstance(value, str) else value
                for key, value in attributes.items()
            },
            links=links,
            start_time=at_ms * NS_PER_MS,
        )

    def _end_attempt(self, drive: _Drive, attempt: Attempt) -> None:
        span = drive.attempts.pop(attempt.attempt_id, None)
        if span is None:
            return
        outcome = attempt.outcome
        span.set_attribute("tandem.attempt.outcome", outcome.value if outcome else "unknown")
        if attempt.failure_class:
            span.set_attribute("tandem.attempt.failure_class", attempt.failure_class)
        if outcome not in _GOOD:
            span.set_status(Status(StatusCode.ERROR, self._redactor.text(attempt.message)))
        at_ms = attempt.ended_at_ms if attempt.ended_at_ms is not None else self._now_ms()
        span.end(at_ms * NS_PER_MS)

    def _end_drive(self, run_id: RunId, drive: _Drive, status: str, at_ms: int) -> None:
        del self._drives[run_id]
        for span in drive.attempts.values():
            span.set_attribute("tandem.attempt.outcome", "left")
            span.end(at_ms * NS_PER_MS)
        drive.span.set_attribute("tandem.run.status", status)
        if status in _BAD_RUNS:
            drive.span.set_status(Status(StatusCode.ERROR))
        drive.span.end(at_ms * NS_PER_MS)
