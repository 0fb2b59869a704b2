"""Who asks, by the tokens of the store, and in hosted modes by signed tenant contexts, too.

The token is the first of three headers that is not empty, and nothing else is tried when it is
wrong (http-api 1.2). What is known of a token is asked again after a second, so a request costs no
statement, and a token that was revoked anywhere is refused everywhere within that second.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Final

import msgspec

from tandem.adapters.http.guard import is_loopback
from tandem.adapters.http.headers import (
    ASSERTION_HEADERS,
    RAW_TENANT_HEADERS,
    ROOT_TOKEN_ID,
    actor_of,
    first_of,
    presented,
)
from tandem.domain.assertion import (
    AssertionPolicy,
    Claims,
    ReplayMode,
    asserted_caller,
    denied,
    is_in_time,
    open_envelope,
    read_claims,
    use_of,
)
from tandem.domain.audit import AuditEntry, AuditEvent, DenialCount
from tandem.domain.caller import LOCAL_CALLER, Caller
from tandem.domain.errors import (
    AuditPersistenceFailed,
    AuthRequired,
    Forbidden,
    Refused,
    StoreUnavailable,
)
from tandem.domain.ids import LOCAL_TENANT, TenantId, TokenId
from tandem.domain.rate import Rate
from tandem.domain.token import Token, TokenState, read_token_id
from tandem.ports.access import AccessStore
from tandem.ports.clock import Clock
from tandem.ports.signatures import Signatures

KNOWN_MS: Final = 1_000
"""How long something that the store said of a token counts."""
KNOWN_MAX: Final = 1_000


class AuthMode(StrEnum):
    """Who may ask for whom (http-api 1.3)."""

    LOCAL = "local_single_tenant"
    """A token, if any is there, says for whom."""
    HOSTED = "hosted_single_tenant"
    """A token is needed, and a signed tenant context with every request."""
    ENTERPRISE = "enterprise_required"
    """As hosted."""


class StoredAccess:
    """Says who makes a request, by what the store knows.

    Args:
        store: of the tokens, the assertions and the audit.
        clock: judges what has expired.
        root_token: a token that may do everything, from the environment; empty for none.
        mode: whether tenant contexts are needed.
        signatures: verifies them.
        assertions: whose count.
        requests: how many a tenant may make.
        complain: hears that the use of a token could not be noted.
    """

    def __init__(
        self,
        *,
        store: AccessStore,
        clock: Clock,
        root_token: str = "",
        mode: AuthMode = AuthMode.LOCAL,
        signatures: Signatures | None = None,
        assertions: AssertionPolicy | None = None,
        requests: Rate | None = None,
        complain: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._root_token = root_token.encode()
        self._is_hosted = mode is not AuthMode.LOCAL
        self._signatures = signatures
        self._assertions = assertions or AssertionPolicy()
        self._requests = requests or Rate("requests", per_min=0)
        self._complain = complain or (lambda _: None)
        self._is_closed = bool(root_token) or self._is_hosted
        self._looked_at_ms = -KNOWN_MS
        self._tokens: OrderedDict[TokenId, tuple[int, Token | None]] = OrderedDict()
        self._noted: dict[TokenId, int] = {}
        self._claims: OrderedDict[bytes, Claims] = OrderedDict()
        self._denials = DenialCount()

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        """See `Access.caller_of`.

        Raises:
            AuthRequired: a token is needed, and none that is worth something came.
            Forbidden: the tenant context is missing, or does not count.
            InvalidRequest: a header names somebody in an impossible way.
            RateLimited: the tenant has asked often enough.
            AuditPersistenceFailed: a denial could not be recorded.
            StoreUnavailable: the store cannot say what the token is worth.
        """
        caller = await self._holder(headers, peer)
        if self._is_hosted:
            caller = await self._asserted(caller, headers, peer)
        caller = actor_of(caller, headers)
        self._requests.spend(caller.tenant, now_ms=self._clock.now_ms())
        return caller

    def still_holds(self, caller: Caller) -> bool:
        """See `Access.still_holds`: revoked and expired tokens do not, nor fewer scopes."""
        if not caller.token_id:
            return not self.is_closed
        if caller.token_id == ROOT_TOKEN_ID:
            return True
        token = self._find(TokenId(caller.token_id))
        return (
            token is not None
            and token.state(self._clock.now_ms()) is TokenState.ACTIVE
            and all(map(token.caller.may, caller.scopes))
        )

    @property
    def is_closed(self) -> bool:
        """Whether a token is needed. Once one was made that stays so, whatever becomes of it."""
        now_ms = self._clock.now_ms()
        if not self._is_closed and now_ms - self._looked_at_ms >= KNOWN_MS:
            self._is_closed = bool(self._store.list_tokens(tenant=None, after_id="", limit=1))
            self._looked_at_ms = now_ms
        return self._is_closed

    # The token

    async def _holder(self, headers: Mapping[str, str], peer: str) -> Caller:
        """Return who holds the token. Without any configured, what is sent does not matter (D3)."""
        if not self.is_closed:
            if peer and not is_loopback(peer):
                raise AuthRequired("without a token this server answers to its own machine only")
            return LOCAL_CALLER
        text = presented(headers)
        if not text:
            raise AuthRequired("a token is needed, and none came")
        if self._root_token and compare_digest(text.encode(), self._root_token):
            return msgspec.structs.replace(LOCAL_CALLER, source="api_token", token_id=ROOT_TOKEN_ID)
        token_id = read_token_id(text)
        token = self._find(token_id) if token_id is not None else None
        now_ms = self._clock.now_ms()
        if token is None or not token.is_text(text) or token.state(now_ms) is not TokenState.ACTIVE:
            await self._record_denials(token, peer)
            raise AuthRequired("the token is not known, has expired or was revoked")
        await self._note_use(token, now_ms)
        return token.caller

    def _find(self, token_id: TokenId) -> Token | None:
        """Return a token as it was within the last second."""
        now_ms = self._clock.now_ms()
        read_at_ms, token = self._tokens.get(token_id, (-KNOWN_MS, None))
        if not 0 <= now_ms - read_at_ms < KNOWN_MS:
            token = self._store.find_token(token_id)
            self._tokens[token_id] = now_ms, token
            self._tokens.move_to_end(token_id)
            if len(self._tokens) > KNOWN_MAX:
                self._tokens.popitem(last=False)
        return token

    async def _note_use(self, token: Token, now_ms: int) -> None:
        """Note the use of a token, once a minute; a request does not fail for it."""
        noted_ms = self._noted.get(token.token_id, token.last_used_at_ms)
        if not msgspec.structs.replace(token, last_used_at_ms=noted_ms).is_use_due(now_ms):
            return
        if len(self._noted) >= KNOWN_MAX:
            self._noted.clear()
        # Before the write: those who ask meanwhile need not write it again.
        self._noted[token.token_id] = now_ms
        try:
            await self._store.note_token_use(token.token_id, now_ms=now_ms)
        except StoreUnavailable as error:
            self._complain(f"the use of token {token.token_id} could not be noted: {error}")

    async def _record_denials(self, token: Token | None, peer: str) -> None:
        """Record who was turned away; a flood of them is counted and recorded once a minute."""
        detail = {} if token is None else {"token_id": token.token_id}
        tenant = LOCAL_TENANT if token is None else token.tenant
        for address, times in self._denials.add(peer, now_ms=self._clock.now_ms()):
            known = detail if address == peer else {}
            await self._record(
                AuditEvent.AUTH_DENIED, tenant, peer=address, detail={**known, "times": times}
            )

    # The tenant context

    async def _asserted(self, holder: Caller, headers: Mapping[str, str], peer: str) -> Caller:
        """Return for whom the holder of the token speaks; every refusal is on record first."""
        try:
            claims = await self._verified(headers)
        except Forbidden as refusal:
            await self._record(
                AuditEvent.TENANT_CONTEXT_DENIED,
                holder.tenant,
                actor=holder.name,
                peer=peer,
                detail={"why": str(refusal), "token_id": holder.token_id},
            )
            raise
        return asserted_caller(holder, claims)

    async def _verified(self, headers: Mapping[str, str]) -> Claims:
        if any(name in headers for name in RAW_TENANT_HEADERS):
            raise denied("a plain header names a tenant or an actor")
        text = first_of(headers, ASSERTION_HEADERS)
        if not text:
            raise denied("there is none")
        digest, now_ms = sha256(text.encode()).digest(), self._clock.now_ms()
        known = self._claims.get(digest)
        if known is not None and is_in_time(known, now_ms=now_ms):
            return known
        claims = self._read(text, now_ms)
        mode = self._assertions.replay
        if mode is not ReplayMode.OFF:
            try:
                use = use_of(claims, text)
                await self._store.use_assertion(use, mode=mode, now_ms=now_ms)
            except Refused as refusal:
                raise denied(str(refusal)) from refusal
        if mode is not ReplayMode.ONE_SHOT:
            self._claims[digest] = claims
            if len(self._claims) > KNOWN_MAX:
                self._claims.popitem(last=False)
        return claims

    def _read(self, text: str, now_ms: int) -> Claims:
        envelope = open_envelope(text)
        signatures = self._signatures
        if signatures is None or not signatures.verify(
            envelope.key_id, envelope.signed, envelope.signature
        ):
            raise denied("its signature is not that of a key that is trusted")
        return read_claims(envelope, self._assertions, now_ms=now_ms)

    async def _record(
        self,
        event: AuditEvent,
        tenant: TenantId,
        *,
        actor: str = "",
        peer: str,
        detail: dict[str, object],
    ) -> None:
        entry = AuditEntry(
            event=event,
            tenant=tenant,
            recorded_at_ms=self._clock.now_ms(),
            actor=actor,
            peer=peer,
            detail=detail,
        )
        try:
            await self._store.add_audit(entry)
        except StoreUnavailable as error:
            raise AuditPersistenceFailed(
                "the request was refused, and the refusal could not be recorded"
            ) from error
