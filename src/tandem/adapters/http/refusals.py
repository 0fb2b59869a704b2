"""Refusals of those who are known, for the audit; a flood of them is one record a minute."""

import msgspec

from tandem.domain.audit import AuditEntry, AuditEvent, DenialCount
from tandem.domain.caller import Caller
from tandem.domain.errors import AuditPersistenceFailed, StoreUnavailable
from tandem.domain.ids import AutomationId, TenantId
from tandem.ports.access import AccessStore


class _Refused(msgspec.Struct, frozen=True, array_like=True):
    """Who was refused what: those that are alike are counted together."""

    tenant: TenantId
    actor: str
    code: str
    automation_id: AutomationId


class Refusals:
    """Records who was refused what, and counts what repeats itself."""

    def __init__(self) -> None:
        self._counted = DenialCount()

    async def record(
        self,
        store: AccessStore,
        caller: Caller,
        *,
        code: str,
        automation_id: AutomationId,
        peer: str,
        now_ms: int,
    ) -> None:
        """Record a refusal.

        Args:
            store: keeps the audit.
            caller: who was refused.
            code: why.
            automation_id: what they would have changed; empty for a new one.
            peer: the address that they came from.
            now_ms: the moment.

        Raises:
            AuditPersistenceFailed: it could not be recorded.
        """
        refused = _Refused(caller.tenant, caller.name, code, automation_id)
        key = msgspec.json.encode(refused).decode()
        for name, times in self._counted.add(key, now_ms=now_ms):
            # Beyond those that are counted one by one only the number is known.
            of = refused if not name.startswith("[") else msgspec.json.decode(name, type=_Refused)
            detail = {"code": of.code, "automation_id": of.automation_id, "times": times}
            entry = AuditEntry(
                event=AuditEvent.ACCESS_DENIED,
                tenant=of.tenant,
                recorded_at_ms=now_ms,
                actor=of.actor,
                peer=peer if of == refused else "",
                detail=detail,
            )
            try:
                await store.add_audit(entry)
            except StoreUnavailable as error:
                raise AuditPersistenceFailed(
                    "the request was refused, and the refusal could not be recorded"
                ) from error
