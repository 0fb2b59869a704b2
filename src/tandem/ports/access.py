"""What the store keeps of who may do what: tokens, used assertions, the audit."""

from collections.abc import Sequence
from typing import Protocol

from tandem.domain.assertion import AssertionUse, ReplayMode
from tandem.domain.audit import AuditEntry, AuditRecord
from tandem.domain.ids import TenantId, TokenId
from tandem.domain.token import Token


class AccessStore(Protocol):
    """Rows of tokens and of the audit. Every write is one transaction."""

    async def add_token(self, token: Token) -> None:
        """Keep a new token, and record in the audit who made it.

        Raises:
            Refused: there is a token with this id.
            StoreUnavailable: nothing was written.
        """
        ...

    async def revoke_token(
        self, token_id: TokenId, *, tenant: TenantId | None, by: str, now_ms: int
    ) -> Token:
        """End a token for good, and record it in the audit.

        Args:
            token_id: which one.
            tenant: whose it has to be; None for any.
            by: who ends it.
            now_ms: the moment.

        Raises:
            NotFound: no such token for this tenant.
            NothingToDo: it was revoked before.
            StoreUnavailable: nothing was written.
        """
        ...

    def find_token(self, token_id: TokenId) -> Token | None:
        """Return a token, whoever's it is and whatever it is worth, or None."""
        ...

    def list_tokens(self, *, tenant: TenantId | None, after_id: str, limit: int) -> Sequence[Token]:
        """Return tokens by id, those after `after_id`; without a tenant those of all."""
        ...

    async def note_token_use(self, token_id: TokenId, *, now_ms: int) -> None:
        """Note when a token was last used.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    async def use_assertion(self, use: AssertionUse, *, mode: ReplayMode, now_ms: int) -> None:
        """Note that an assertion came. Of two at once that exclude each other one is refused.

        Raises:
            Refused: it may not come again; the message says why.
            StoreUnavailable: nothing was written.
        """
        ...

    async def add_audit(self, entry: AuditEntry) -> AuditRecord:
        """Add a record to the audit; it is sealed to the one before it.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    def list_audit(
        self, *, tenant: TenantId | None, after_no: int, limit: int
    ) -> Sequence[AuditRecord]:
        """Return records in their order, those after `after_no`; without a tenant all."""
        ...

    async def forget_access(self, *, now_ms: int, limit: int) -> int:
        """Forget used assertions and keys of requests whose time is over; return how many.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...
