"""Reviews of automations: ended runs are counted until a person has looked at the automation.

Only automations with a record are counted (run-lifecycle 9.2: no record, nothing counted). The
store counts in the transaction of the end, so no end is lost or counted twice (W-34).
"""

from typing import Final
from urllib.parse import quote, unquote

import msgspec

from tandem.domain.ids import AutomationId, ChangeId, RunId, TenantId
from tandem.domain.run import Run

RUN_DRIFT: Final = "run_drift"
_SCHEME: Final = "review:"


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one automation of one tenant.

    `runs_max` is how many runs may end before somebody has to look; 0 counts only. `runs_total`
    counts all ends ever and is never set back. `review_reason` and `review_run_id` name the end
    that made the review due. Moments are in milliseconds.
    """

    tenant: TenantId
    automation_id: AutomationId
    runs_max: int
    runs_since_review: int = 0
    runs_total: int = 0
    review_required: bool = False
    review_kind: str = ""
    review_requested_at_ms: int | None = None
    review_request_id: str = ""
    review_reason: str = ""
    review_run_id: RunId = RunId("")
    health_last_checked_at_ms: int | None = None
    reviewed_at_ms: int | None = None
    reviewed_by: str = ""
    review_note: str = ""
    created_at_ms: int
    updated_at_ms: int


def count_end(review: Review, run: Run, *, change_id: ChangeId) -> Review:
    """Count the end of a run, and ask for a review when it is due (run-lifecycle 9.2).

    Each arrival in a terminal state counts, so a recovered run that ends again counts again.
    """
    count = review.runs_since_review + 1
    now_ms = run.updated_at_ms
    counted = msgspec.structs.replace(
        review,
        runs_since_review=count,
        runs_total=review.runs_total + 1,
        health_last_checked_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    if review.review_required or not 0 < review.runs_max <= count:
        return counted
    return msgspec.structs.replace(
        counted,
        review_required=True,
        review_kind=RUN_DRIFT,
        review_requested_at_ms=now_ms,
        review_request_id=f"lifecycle-review-{change_id}",
        review_reason=run.detail or run.stop_reason,
        review_run_id=run.run_id,
    )


def acknowledge(review: Review, *, runs_max: int | None, by: str, note: str, now_ms: int) -> Review:
    """Return the record after a person has looked; counting begins anew.

    `runs_max` is the bound from now on; the one of before when it is None.
    """
    return msgspec.structs.replace(
        review,
        runs_max=review.runs_max if runs_max is None else runs_max,
        runs_since_review=0,
        review_required=False,
        review_kind="",
        review_requested_at_ms=None,
        review_request_id="",
        review_reason="",
        review_run_id=RunId(""),
        reviewed_at_ms=now_ms,
        reviewed_by=by,
        review_note=note,
        updated_at_ms=now_ms,
    )


def holds(review: Review | None, run: Run) -> bool:
    """Say whether a run may not be claimed before the review of its automation.

    A run that has begun goes on: it was let in before, and half a run helps nobody.
    """
    return review is not None and review.review_required and run.started_at_ms is None


def hold_sentence(review: Review) -> str:
    """Say to a person what holds new runs back."""
    return (
        f"automation {review.automation_id} is to be reviewed: {review.runs_since_review} runs "
        "have ended since somebody last looked at it"
    )


def review_key(tenant: TenantId, automation_id: AutomationId) -> str:
    """Return the key that runs wait for which the review of their automation holds."""
    return f"{_SCHEME}{quote(tenant, safe='')}/{quote(automation_id, safe='')}"


def is_review_key(key: str) -> bool:
    """Say whether this key names the review of an automation."""
    return key.startswith(_SCHEME)


def parse_review_key(key: str) -> tuple[TenantId, AutomationId]:
    """Return tenant and automation of a key for which `is_review_key` holds."""
    tenant, _, automation_id = key.removeprefix(_SCHEME).partition("/")
    return TenantId(unquote(tenant)), AutomationId(unquote(automation_id))
