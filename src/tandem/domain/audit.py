"""The audit: what was done to tokens and triggers and who was turned away, in one chain.

Each record holds the hash of itself and of the one before it, as receipts of runs do. It is only
ever added to.
"""

from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

import msgspec

from tandem.domain.ids import TenantId
from tandem.domain.json import canonical

DENIAL_WINDOW_MS: Final = 60_000
DENIAL_PEERS_MAX: Final = 1_000
ELSEWHERE: Final = "elsewhere"
"""Stands for all addresses beyond those that are counted one by one."""


class AuditEvent(StrEnum):
    """What is recorded."""

    TOKEN_CREATED = "token_created"  # noqa: S105 # an event, no secret
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 # as above
    AUTH_DENIED = "auth_denied"
    """A token that is not valid was presented; `times` counts them within a minute."""
    TENANT_CONTEXT_DENIED = "tenant_context_denied"
    """A request with a valid token had no valid tenant context."""
    ACCESS_DENIED = "access_denied"
    """Somebody would have changed what is not theirs; `times` counts them within a minute."""
    WEBHOOK_TRIGGER_CREATED = "webhook_trigger_created"
    WEBHOOK_TRIGGER_CHANGED = "webhook_trigger_changed"
    WEBHOOK_TRIGGER_DISABLED = "webhook_trigger_disabled"
    WEBHOOK_TRIGGER_DELETED = "webhook_trigger_deleted"
    WEBHOOK_SECRET_ROTATED = "webhook_secret_rotated"  # noqa: S105 # as above
    WEBHOOK_SECRET_IMPORTED = "webhook_secret_imported"  # noqa: S105 # as above
    WEBHOOK_SETUP_BEGUN = "webhook_setup_begun"
    """A provider may hand over its verification token; the former one is forgotten."""
    WEBHOOK_TOKEN_TAKEN = "webhook_token_taken"  # noqa: S105 # as above
    WEBHOOK_TOKEN_REVEALED = "webhook_token_revealed"  # noqa: S105 # as above
    WEBHOOK_DELIVERY_ACCEPTED = "webhook_delivery_accepted"
    """A delivery started a run or woke a wait."""
    WEBHOOK_DELIVERY_REJECTED = "webhook_delivery_rejected"
    """A delivery whose sender was believed led to nothing, for a reason of ours."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be recorded. `actor` is who did it, `peer` the address that they came from."""

    event: AuditEvent
    tenant: TenantId
    recorded_at_ms: int
    actor: str = ""
    peer: str = ""
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as it is kept, with its number and its hash in hexadecimal digits."""

    audit_no: int
    entry: AuditEntry
    record_hash: str


class DenialCount:
    """Counts who is turned away, so that a flood of them does not become a flood of records.

    The first of an address is to be recorded at once, the rest of its minute as one record when
    the minute is over and somebody is turned away again.
    """

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, int]] = {}

    def add(self, peer: str, *, now_ms: int) -> list[tuple[str, int]]:
        """Count one, and return the addresses to be recorded now, each with its number."""
        due = [(peer, 1)]
        for other, (began_ms, more) in list(self._windows.items()):
            if now_ms - began_ms >= DENIAL_WINDOW_MS:
                del self._windows[other]
                if more:
                    due.append((other, more))
        if peer not in self._windows and len(self._windows) >= DENIAL_PEERS_MAX:
            peer = ELSEWHERE
        known = self._windows.get(peer)
        if known is None:
            self._windows[peer] = now_ms, 0
            return due
        self._windows[peer] = known[0], known[1] + 1
        return due[1:]


def seal(before: AuditRecord | None, entry: AuditEntry) -> AuditRecord:
    """Return the record of an entry that follows `before`."""
    number = before.audit_no + 1 if before is not None else 1
    head = before.record_hash if before is not None else ""
    return AuditRecord(audit_no=number, entry=entry, record_hash=_hash(head, number, entry))


def problems_of(records: Iterable[AuditRecord]) -> list[str]:
    """Return what is wrong with the audit, read from its first record on."""
    problems: list[str] = []
    head, last = "", 0
    for record in records:
        if record.audit_no != last + 1:
            problems.append(f"audit records {last + 1} to {record.audit_no - 1} are missing")
        elif record.record_hash != _hash(head, record.audit_no, record.entry):
            problems.append(f"audit record {record.audit_no} does not fit its hash")
        head, last = record.record_hash, record.audit_no
    return problems


def _hash(head: str, number: int, entry: AuditEntry) -> str:
    return sha256(head.encode() + canonical((number, entry))).hexdigest()
