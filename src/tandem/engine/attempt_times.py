"""How long attempts took, for those who listen: the change that ends one does not say it."""

from collections.abc import Mapping

from tandem.domain.change import Change
from tandem.domain.ids import AttemptId, RunId


class AttemptTimes:
    """Remembers when the attempts of one engine started, as long as it drives their runs."""

    def __init__(self) -> None:
        self._started: dict[RunId, dict[AttemptId, int]] = {}

    def follow(self, change: Change) -> Mapping[AttemptId, int]:
        """Note what starts; return the milliseconds of each attempt that ended with the change.

        Attempts that another engine started are left out.
        """
        run_id = change.run.run_id
        if change.attempts_started:
            known = self._started.setdefault(run_id, {})
            for attempt in change.attempts_started:
                known[attempt.attempt_id] = attempt.started_at_ms
        if not change.attempts_ended:
            return {}
        known = self._started.get(run_id, {})
        return {
            attempt.attempt_id: max(attempt.ended_at_ms - known.pop(attempt.attempt_id), 0)
            for attempt in change.attempts_ended
            if attempt.attempt_id in known and attempt.ended_at_ms is not None
        }

    def left(self, run_id: RunId, _epoch: int) -> None:
        """Forget a run that this engine drives no more."""
        self._started.pop(run_id, None)
