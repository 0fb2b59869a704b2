"""Reviews on the tables: ends are counted with the end, and held runs and creations are refused.

What is due and what is held is judged by `domain.review`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sqlite import keys
from tandem.domain.automation_review import (
    Review,
    acknowledge,
    count_end,
    hold_sentence,
    review_key,
)
from tandem.domain.change import Change
from tandem.domain.errors import NotFound, Refused
from tandem.domain.ids import AutomationId, TenantId
from tandem.domain.lifecycle import TERMINAL
from tandem.domain.run import Run

OPEN_MAX: Final = 1_000
REVIEW_REQUIRED: Final = "review_required"

Statements = Mapping[str, str]


class HasStatements(Protocol):
    """The tables, as far as a write of reviews needs them."""

    sql: Statements


def follow(connection: apsw.Connection, sql: Statements, change: Change) -> None:
    """Count the end of a run, and note that it is to be learned from, with the end itself."""
    run = change.run
    if run.status not in TERMINAL or change.status_before in TERMINAL:
        return
    request_id = ""
    before = find_review(connection, sql, run.tenant, run.automation_id)
    if before is not None:
        after = count_end(before, run, change_id=change.change_id)
        put_review(connection, sql, after)
        if after.review_required and not before.review_required:
            request_id = after.review_request_id
    _rows(connection, sql["put_learning_due"], (run.run_no, request_id))


def refuse_creation(connection: apsw.Connection, sql: Statements, run: Run) -> None:
    """Refuse a new run of an automation that is to be reviewed (run-lifecycle 9.2).

    Raises:
        Refused: a person has to look first.
    """
    review = find_review(connection, sql, run.tenant, run.automation_id)
    if review is not None and review.review_required:
        raise Refused(
            f"{hold_sentence(review)}, so no new run is created; "
            f"look at its runs, then `tandem governance acknowledge {run.automation_id}`",
            code=REVIEW_REQUIRED,
        )


def find_review(
    connection: apsw.Connection, sql: Statements, tenant: TenantId, automation_id: AutomationId
) -> Review | None:
    """Return the record of an automation, or None."""
    found = _rows(connection, sql["find_review"], (tenant, automation_id))
    return review_of(found[0]) if found else None


def list_open(
    connection: apsw.Connection, sql: Statements, tenant: TenantId
) -> Mapping[AutomationId, Review]:
    """Return the reviews of a tenant that hold runs back, by automation."""
    found = _rows(connection, sql["list_open_reviews"], (tenant, OPEN_MAX))
    return {review.automation_id: review for review in map(review_of, found)}


def put_review(connection: apsw.Connection, sql: Statements, review: Review) -> None:
    """Write the record as it is now."""
    _rows(connection, sql["put_review"], msgspec.structs.astuple(review))


def review_of(row: Sequence[Any]) -> Review:
    """Read a row, whose columns are in the order of the fields."""
    values = dict(zip(Review.__struct_fields__, row, strict=True))
    return msgspec.convert(values, Review, strict=False)


class Enrol(msgspec.Struct, frozen=True, tag=True):
    """Count the runs of an automation from now on; the result is its record."""

    tenant: TenantId
    automation_id: AutomationId
    runs_max: int
    now_ms: int

    def perform(self, tables: HasStatements, connection: apsw.Connection) -> Review:
        """See `Write`."""
        known = find_review(connection, tables.sql, self.tenant, self.automation_id)
        review = known or Review(
            tenant=self.tenant,
            automation_id=self.automation_id,
            runs_max=self.runs_max,
            created_at_ms=self.now_ms,
            updated_at_ms=self.now_ms,
        )
        review = msgspec.structs.replace(review, runs_max=self.runs_max, updated_at_ms=self.now_ms)
        put_review(connection, tables.sql, review)
        return review

    def landed(
        self, tables: HasStatements, connection: apsw.Connection, result: Review | None
    ) -> bool:
        """See `Write`."""
        found = find_review(connection, tables.sql, self.tenant, self.automation_id)
        return result is not None and found is not None and found.runs_max == self.runs_max

    def receive(self, tables: HasStatements, connection: apsw.Connection, raw: bytes) -> Review:
        """See `Write`."""
        return unpack(raw, Review)


class AcknowledgeReview(msgspec.Struct, frozen=True, tag=True):
    """Note that a person has looked at an automation; runs that were held are queued again."""

    tenant: TenantId
    automation_id: AutomationId
    runs_max: int | None
    by: str
    note: str
    now_ms: int

    def perform(self, tables: HasStatements, connection: apsw.Connection) -> Review:
        """See `Write`."""
        sql = tables.sql
        known = find_review(connection, sql, self.tenant, self.automation_id)
        if known is None:
            raise NotFound(
                f"the runs of automation {self.automation_id} are not counted for reviews; "
                f"`tandem governance enrol {self.automation_id}` lets them be"
            )
        review = acknowledge(
            known, runs_max=self.runs_max, by=self.by, note=self.note, now_ms=self.now_ms
        )
        put_review(connection, sql, review)
        key = review_key(self.tenant, self.automation_id)
        keys.wake(connection, sql, key, claims=keys.ANY_NUMBER, now_ms=self.now_ms)
        return review

    def landed(
        self, tables: HasStatements, connection: apsw.Connection, result: Review | None
    ) -> bool:
        """See `Write`."""
        found = find_review(connection, tables.sql, self.tenant, self.automation_id)
        return (
            result is not None
            and found is not None
            and (found.reviewed_at_ms == self.now_ms and found.reviewed_by == self.by)
        )

    def receive(self, tables: HasStatements, connection: apsw.Connection, raw: bytes) -> Review:
        """See `Write`."""
        return unpack(raw, Review)


def _rows(connection: apsw.Connection, sql: str, values: Sequence[Any]) -> list[Any]:
    return connection.execute(sql, values).fetchall()
