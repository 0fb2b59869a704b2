"""What happens to runs, as lines of the log. The engine itself logs nothing: this listens."""

from collections.abc import Mapping
from logging import getLevelName
from typing import Any, Final

from tandem.adapters.logs.log import Log
from tandem.domain.change import Change
from tandem.domain.ids import AttemptId, attempt_id
from tandem.domain.lifecycle import TERMINAL, RunEvent
from tandem.domain.run import LifecycleEvent
from tandem.domain.view import RunView
from tandem.engine.attempt_times import AttemptTimes
from tandem.engine.engine import Engine

E = RunEvent

_ERRORS: Final = frozenset(
    {
        E.RUN_FAILED,
        E.RUN_FAILED_ACTIVATION,
        E.RUN_FAILED_PANIC,
        E.RUN_FAILED_SERVER_RESTART,
        E.RUN_FAILED_SHUTDOWN,
        E.RUN_FAILED_STALE,
        E.RUN_FAILED_STARTUP,
        E.RUN_BLOCKED_CORRUPT,
    }
)
_WARNINGS: Final = frozenset(
    {
        E.RUN_BLOCKED,
        E.RUN_CLAIM_EXPIRED,
        E.RUN_PAUSED_STALE,
        E.RUN_QUARANTINED,
        E.RUN_REQUEUED_AFTER_RESTART,
        E.NODE_BLOCKED,
        E.NODE_FAILED,
        E.NODE_INTERRUPTED,
        E.NODE_OUTCOME_UNKNOWN,
        E.NODE_VERIFY_FAILED,
        E.GATE_EXPIRED,
        E.GATE_GUARD_DENIED,
        E.WAIT_REGISTRATION_FAILED,
    }
)


def level_of(event: RunEvent) -> str:
    """Return how important an event is: that a node goes on is a detail, a run's way is not."""
    if event in _ERRORS:
        return "error"
    if event in _WARNINGS:
        return "warning"
    return "info" if event.value.startswith("run_") else "debug"


_NUMBERS: Final[Mapping[str, int]] = {
    name: getLevelName(name.upper()) for name in ("debug", "info", "warning", "error")
}
LEVEL_OF: Final[Mapping[RunEvent, int]] = {event: _NUMBERS[level_of(event)] for event in RunEvent}


class RunLog:
    """A listener of an engine that writes a line for each event that is important enough."""

    def __init__(self, log: Log, *, level: str, engine_id: str) -> None:
        self._log = log.bind(engine_id=engine_id)
        self._least = _NUMBERS[level]
        self._times = AttemptTimes()

    def listen_to(self, engine: Engine) -> None:
        """Write what this engine does from now on."""
        engine.listen(self.changed, left=self._times.left)

    def changed(self, view: RunView, change: Change) -> None:
        """Write what happened with a change."""
        took_ms = self._times.follow(change)
        for event in change.events:
            level = LEVEL_OF[event.event]
            if level >= self._least:
                self._log.log(level, event.event.value, **_facts(change, event, took_ms))


def _facts(
    change: Change, event: LifecycleEvent, took_ms: Mapping[AttemptId, int]
) -> dict[str, Any]:
    run = change.run
    facts: dict[str, Any] = {
        "at_ms": event.recorded_at_ms,
        "run_id": run.run_id,
        "automation_id": run.automation_id,
        "tenant": run.tenant,
        "status": run.status.value,
        "seq": event.seq,
    }
    if event.node_id is not None:
        facts["node_id"] = event.node_id
    if event.attempt is not None:
        facts["attempt"] = event.attempt
    if event.reason:
        facts["reason"] = event.reason
    duration_ms = _duration_ms(change, event, took_ms)
    if duration_ms is not None:
        facts["duration_ms"] = duration_ms
    return facts


def _duration_ms(
    change: Change, event: LifecycleEvent, took_ms: Mapping[AttemptId, int]
) -> int | None:
    """Return how long what ends with this event has taken: an attempt, or the run."""
    run = change.run
    if event.node_id is not None:
        if event.attempt is None:
            return None
        return took_ms.get(attempt_id(run.run_id, event.node_id, event.attempt))
    if run.started_at_ms is None or run.status not in TERMINAL or change.status_before in TERMINAL:
        return None
    return max(event.recorded_at_ms - run.started_at_ms, 0)
