"""The store of who may do what, on the tables of one SQLite file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tandem.adapters.sqlite.access import (
    AddAudit,
    AddToken,
    ForgetAccess,
    NoteTokenUse,
    RevokeToken,
    UseAssertion,
    audit_of,
    token_of,
)
from tandem.adapters.sqlite.tables import Found
from tandem.adapters.sqlite.writer import Writer
from tandem.domain.assertion import AssertionUse, ReplayMode
from tandem.domain.audit import AuditEntry, AuditRecord
from tandem.domain.ids import TenantId, TokenId
from tandem.domain.request_key import KEPT_MS
from tandem.domain.token import Token


class AccessRows(ABC):
    """What `ports.access.AccessStore` promises; the store of the runs is made of it, too."""

    _writer: Writer

    @abstractmethod
    def _find(self, name: str, *values: object) -> Found: ...

    async def add_token(self, token: Token) -> None:
        """See `AccessStore.add_token`."""
        await self._writer.submit(AddToken(token))

    async def revoke_token(
        self, token_id: TokenId, *, tenant: TenantId | None, by: str, now_ms: int
    ) -> Token:
        """See `AccessStore.revoke_token`."""
        revoked = await self._writer.submit(RevokeToken(token_id, tenant, by, now_ms))
        return revoked.token

    def find_token(self, token_id: TokenId) -> Token | None:
        """See `AccessStore.find_token`."""
        found = self._find("find_token", token_id)
        return token_of(found[0]) if found else None

    def list_tokens(self, *, tenant: TenantId | None, after_id: str, limit: int) -> Sequence[Token]:
        """See `AccessStore.list_tokens`."""
        if tenant is None:
            found = self._find("list_tokens", after_id, limit)
        else:
            found = self._find("list_tokens_of_tenant", tenant, after_id, limit)
        return [token_of(row) for row in found]

    async def note_token_use(self, token_id: TokenId, *, now_ms: int) -> None:
        """See `AccessStore.note_token_use`."""
        await self._writer.submit(NoteTokenUse(token_id, now_ms))

    async def use_assertion(self, use: AssertionUse, *, mode: ReplayMode, now_ms: int) -> None:
        """See `AccessStore.use_assertion`."""
        await self._writer.submit(UseAssertion(use, mode, now_ms))

    async def add_audit(self, entry: AuditEntry) -> AuditRecord:
        """See `AccessStore.add_audit`."""
        return await self._writer.submit(AddAudit(entry))

    def list_audit(
        self, *, tenant: TenantId | None, after_no: int, limit: int
    ) -> Sequence[AuditRecord]:
        """See `AccessStore.list_audit`."""
        if tenant is None:
            found = self._find("list_audit", after_no, limit)
        else:
            found = self._find("list_audit_of_tenant", tenant, after_no, limit)
        return [audit_of(row) for row in found]

    async def forget_access(self, *, now_ms: int, limit: int) -> int:
        """See `AccessStore.forget_access`."""
        old = self._find("has_old_assertion_use", now_ms)
        if not old and not self._find("has_old_request_key", now_ms - KEPT_MS):
            return 0  # without a transaction: there is nothing most of the time
        return await self._writer.submit(ForgetAccess(now_ms, limit))
