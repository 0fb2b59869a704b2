"""The tokens of the API: making, listing and revoking them."""

from collections.abc import Collection, Sequence

from tandem.domain.caller import ActorKind, Scope
from tandem.domain.ids import TenantId, TokenId
from tandem.domain.token import ID_LENGTH, SECRET_BYTES, Token, new_token
from tandem.ports.access import AccessStore
from tandem.ports.clock import Clock
from tandem.ports.secrets import Secrets


class Tokens:
    """The tokens of a store, of all tenants."""

    def __init__(self, *, store: AccessStore, clock: Clock, secrets: Secrets) -> None:
        self._store = store
        self._clock = clock
        self._secrets = secrets

    async def create(
        self,
        *,
        tenant: TenantId,
        name: str,
        scopes: Collection[Scope],
        actor_id: str = "",
        kind: ActorKind = ActorKind.HUMAN,
        by: str = "",
        expires_in_ms: int | None = None,
    ) -> tuple[Token, str]:
        """Make a token; what is returned beside it is its text, which nobody can tell again.

        Args:
            tenant: for whom its holder acts.
            name: what it is for.
            scopes: what its holder may do.
            actor_id: who is recorded for what its holder does.
            kind: what its holder is.
            by: who makes it.
            expires_in_ms: how long it is valid; None for ever.

        Raises:
            InvalidRequest: it has no name, no scope, or is over when it begins.
            StoreUnavailable: nothing was written.
        """
        token, text = new_token(
            token_id=TokenId(self._secrets.new(ID_LENGTH // 2).hex()),
            secret=self._secrets.new(SECRET_BYTES),
            tenant=tenant,
            name=name,
            scopes=scopes,
            actor_id=actor_id,
            kind=kind,
            created_by=by,
            expires_in_ms=expires_in_ms,
            now_ms=self._clock.now_ms(),
        )
        await self._store.add_token(token)
        return token, text

    async def revoke(self, token_id: str, *, by: str = "", tenant: TenantId | None = None) -> Token:
        """End a token for good; servers of the store refuse it within a second.

        Raises:
            NotFound: there is none with this id, or it is not of this tenant.
            NothingToDo: it was revoked before.
            StoreUnavailable: nothing was written.
        """
        return await self._store.revoke_token(
            TokenId(token_id.strip()), tenant=tenant, by=by, now_ms=self._clock.now_ms()
        )

    def list(
        self, *, tenant: TenantId | None = None, after_id: str = "", limit: int = 100
    ) -> Sequence[Token]:
        """Return tokens by id, those after `after_id`; without a tenant those of all."""
        return self._store.list_tokens(tenant=tenant, after_id=after_id, limit=limit)
