"""When a run may be deleted."""

from tandem.domain.errors import Refused
from tandem.domain.lifecycle import TERMINAL
from tandem.domain.run import Run


def refuse_deletion(run: Run) -> None:
    """Refuse to delete a run that goes on, or of which something may still live.

    Raises:
        Refused: it has not ended, or its processes are still being ended.
    """
    if run.status not in TERMINAL:
        raise Refused(
            f"cannot delete run {run.run_id}: it is {run.status.value}; cancel it first",
            code="run_not_ended",
        )
    if run.cleanup:
        raise Refused(
            f"cannot delete run {run.run_id}: its processes are still being ended; "
            "try again shortly",
            code="run_cleanup_pending",
        )
