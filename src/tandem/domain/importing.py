"""What happens to a run that comes from another store while it is alive there.

Two stores must never drive one run, so it rests until a person says that it goes on here.
"""

from typing import Final

from tandem.domain.command import Adopt, Command, Pause, ProcessesEnded
from tandem.domain.ids import EngineId
from tandem.domain.lifecycle import DRIVEN, LIVE, RunState
from tandem.domain.operating import goes_on_by_itself
from tandem.domain.run import Run

IMPORTED_LIVE: Final = (
    "imported while it was alive elsewhere; resume it only when it does not go on there"
)


def next_to_rest(run: Run) -> Command | None:
    """Return the next command that brings an imported run to rest, None when it rests."""
    if run.status in DRIVEN:
        return Adopt(dead=run.engine_id or EngineId(""))
    if run.cleanup is not None:
        return ProcessesEnded(engine_id=run.cleanup)
    held_by_person = run.status is RunState.PAUSED and not goes_on_by_itself(run)
    return Pause(reason=IMPORTED_LIVE) if run.status in LIVE and not held_by_person else None
