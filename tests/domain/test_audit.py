"""The chain of the audit."""

import msgspec
import pytest

from tandem.domain import audit
from tandem.domain.audit import (
    AuditEntry,
    AuditEvent,
    AuditRecord,
    DenialCount,
    problems_of,
    seal,
)
from tandem.domain.ids import LOCAL_TENANT


def records(count: int) -> list[AuditRecord]:
    found: list[AuditRecord] = []
    for number in range(count):
        entry = AuditEntry(
            event=AuditEvent.TOKEN_CREATED,
            tenant=LOCAL_TENANT,
            recorded_at_ms=number,
            actor="ada",
            detail={"token_id": f"t{number}"},
        )
        found.append(seal(found[-1] if found else None, entry))
    return found


def test_a_whole_audit_has_no_problems() -> None:
    assert [record.audit_no for record in records(3)] == [1, 2, 3]
    assert problems_of(records(3)) == []
    assert problems_of([]) == []


def test_a_record_that_was_changed_or_taken_out_is_found() -> None:
    one, two, three = records(3)
    changed = msgspec.structs.replace(two, entry=msgspec.structs.replace(two.entry, actor="eve"))
    assert problems_of([one, changed, three]) == ["audit record 2 does not fit its hash"]
    assert problems_of([one, three]) == ["audit records 2 to 2 are missing"]
    assert problems_of([two, three]) == ["audit records 1 to 1 are missing"]


def test_of_many_denials_the_first_is_recorded_at_once_and_the_rest_as_one() -> None:
    denials = DenialCount()
    assert denials.add("a", now_ms=0) == [("a", 1)]
    assert denials.add("a", now_ms=1) == []
    assert denials.add("a", now_ms=59_999) == []
    assert denials.add("b", now_ms=2) == [("b", 1)]
    assert denials.add("a", now_ms=60_000) == [("a", 1), ("a", 2)]
    assert denials.add("c", now_ms=200_000) == [("c", 1)]


def test_addresses_beyond_those_that_are_counted_share_one_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "DENIAL_PEERS_MAX", 1)
    denials = DenialCount()
    denials.add("a", now_ms=0)
    assert denials.add("b", now_ms=1) == [("b", 1)]
    assert denials.add("c", now_ms=2) == []
    assert denials.add("a", now_ms=70_000) == [("a", 1), ("elsewhere", 1)]
