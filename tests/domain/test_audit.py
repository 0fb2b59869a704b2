"""The chain of the audit."""

import msgspec

from tandem.domain.audit import AuditEntry, AuditEvent, AuditRecord, problems_of, seal
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
