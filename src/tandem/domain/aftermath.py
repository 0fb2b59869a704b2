"""What the end of a run led to beside the run, as events of that run."""

from typing import Final

from tandem.domain.automation_review import RUN_DRIFT
from tandem.domain.command import NoteEnd
from tandem.domain.draft import Draft
from tandem.domain.lifecycle import RunEvent

REVIEWER: Final = "automation_lifecycle_review"
"""The system actor that asks for reviews (run-lifecycle 9.2)."""


def note_end(draft: Draft, command: NoteEnd) -> None:
    """Record each candidate that was applied without a person, and the review that was asked for.

    The state of the run stays what it is, also when it was recovered meanwhile.
    """
    for candidate_id in command.auto_applied:
        draft.happen(RunEvent.LEARNING_AUTO_APPLIED, metadata={"candidate_id": candidate_id})
    if command.review_request_id:
        draft.happen(
            RunEvent.REVIEW_REQUESTED,
            metadata={
                "review_request_id": command.review_request_id,
                "review_kind": RUN_DRIFT,
                "request_type": "lifecycle_review",
                "requested_by": REVIEWER,
            },
        )
