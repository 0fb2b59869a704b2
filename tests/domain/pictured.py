"""The picture of a told run, as a store would read it."""

from typing import Any

from tandem.domain.automation_record import spec_record
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run_picture import RunPicture
from tandem.domain.run_record import run_record
from tandem.testing.tale import Tale


def picture_of(tale: Tale, **more: Any) -> RunPicture:
    """Return what is recorded of a run."""
    attempts = {**tale.started, **tale.ended}
    claims = [event for event in tale.events if event.event is RunEvent.RUN_CLAIMED]
    return RunPicture(
        view=tale.view,
        attempts=[attempts[key] for key in sorted(attempts)],
        gates=list(tale.gates.values()),
        events=tale.events,
        claim=claims[-1] if claims else None,
        **more,
    )


def record_of(tale: Tale, **more: Any) -> dict[str, Any]:
    """Return the record of a run."""
    return run_record(picture_of(tale, **more), spec_record(tale.view.plan.automation))
