"""Tokens: the text that is shown once, what is kept of it, and what it is worth at a moment.

A text is `tdm_<token id>_<secret><checksum>`: the prefix and the checksum let scanners find one
that leaked, without asking anybody. Only its SHA-256 is kept; the secret has 256 random bits, so
nothing slower is needed.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final
from zlib import crc32

import msgspec

from tandem.domain.caller import ActorKind, Caller, Scope
from tandem.domain.errors import Forbidden, InvalidRequest
from tandem.domain.ids import TenantId, TokenId
from tandem.domain.name import name_problem

PREFIX: Final = "tdm"
SECRET_BYTES: Final = 32
ID_LENGTH: Final = 12
NAME_MAX: Final = 100
ACTOR_MAX: Final = 256
USE_NOTED_EVERY_MS: Final = 60_000
"""How often the last use of a token is written, at most."""

_SECRET_LENGTH: Final = 43
_CHECKSUM_LENGTH: Final = 6
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(
    rf"({PREFIX}_([0-9a-f]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}})"
    rf"([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)


class TokenState(StrEnum):
    """What a token is worth at a moment."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a token. `digest` is the SHA-256 of its text, never the text itself.

    `actor_id` is who is recorded for what its holder does; `kind` is what they are.
    `last_used_at_ms` may be a minute behind.
    """

    token_id: TokenId
    tenant: TenantId
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    actor_id: str = ""
    kind: ActorKind = ActorKind.HUMAN
    created_at_ms: int
    created_by: str = ""
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    revoked_by: str = ""
    last_used_at_ms: int | None = None

    def state(self, now_ms: int) -> TokenState:
        """Say what it is worth at this moment."""
        if self.revoked_at_ms is not None:
            return TokenState.REVOKED
        if self.expires_at_ms is not None and now_ms >= self.expires_at_ms:
            return TokenState.EXPIRED
        return TokenState.ACTIVE

    def is_text(self, text: str) -> bool:
        """Say whether this is the text of the token, in a time that tells nothing."""
        return compare_digest(self.digest, digest_of(text))

    def is_use_due(self, now_ms: int) -> bool:
        """Say whether a use at this moment is to be written."""
        return self.last_used_at_ms is None or now_ms - self.last_used_at_ms >= USE_NOTED_EVERY_MS

    @property
    def caller(self) -> Caller:
        """Who asks when this token is presented."""
        return Caller(
            tenant=self.tenant,
            kind=self.kind,
            scopes=self.scopes,
            actor_id=self.actor_id,
            source="api_token",
            token_id=self.token_id,
            until_ms=self.expires_at_ms,
        )


def new_token(
    *,
    token_id: TokenId,
    secret: bytes,
    tenant: TenantId,
    name: str,
    scopes: Collection[Scope],
    actor_id: str = "",
    kind: ActorKind = ActorKind.HUMAN,
    created_by: str = "",
    expires_in_ms: int | None = None,
    now_ms: int,
) -> tuple[Token, str]:
    """Return a new token and its text, which nobody can tell again.

    Raises:
        InvalidRequest: it has no name, or an impossible one, no scope, or is over when it begins.
    """
    name = name.strip()
    if problem := name_problem(name, chars_max=NAME_MAX):
        raise InvalidRequest(f"a token needs a name of 1 to {NAME_MAX} characters: {problem}")
    actor_id = actor_id.strip()
    if actor_id and (problem := name_problem(actor_id, chars_max=ACTOR_MAX)):
        raise InvalidRequest(f"the actor of a token is a name of its own: {problem}")
    if not scopes:
        raise InvalidRequest(f"a token needs a scope: {', '.join(Scope)}")
    if expires_in_ms is not None and expires_in_ms <= 0:
        raise InvalidRequest("a token has to be valid for some time")
    text = token_text(token_id, secret)
    token = Token(
        token_id=token_id,
        tenant=tenant,
        name=name,
        digest=digest_of(text),
        scopes=frozenset(scopes),
        actor_id=actor_id,
        kind=kind,
        created_at_ms=now_ms,
        created_by=created_by,
        expires_at_ms=None if expires_in_ms is None else now_ms + expires_in_ms,
    )
    return token, text


def require_no_more(
    maker: Caller, scopes: Collection[Scope], *, kind: ActorKind, actor_id: str
) -> None:
    """Refuse to let somebody make a token that may do more than they may.

    A person may make one for anybody. Whoever is none makes tokens of its own kind only, because
    people may decide gates; an agent with a name makes none for another one.

    Raises:
        Forbidden: the token would have a scope, a kind or a name that its maker has not.
    """
    lacking = sorted(scope for scope in scopes if not maker.may(scope))
    if lacking:
        raise _too_wide(f"nobody hands out a scope that they do not have: {', '.join(lacking)}")
    if maker.kind is ActorKind.HUMAN:
        return
    if kind is not maker.kind:
        raise _too_wide(f"whoever is of kind {maker.kind} makes no token of kind {kind}")
    if maker.actor_id and actor_id.strip() != maker.actor_id:
        raise _too_wide(f"`{maker.actor_id}` makes tokens for itself only")


def token_record(token: Token, *, now_ms: int) -> dict[str, Any]:
    """Return a token as programs are shown it; its digest is nobody's business."""
    shown: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(token, digest=b""))
    del shown["digest"]
    return {**shown, "scopes": sorted(token.scopes), "state": token.state(now_ms).value}


def _too_wide(why: str) -> Forbidden:
    return Forbidden(why, code="TOKEN_TOO_WIDE")


def token_text(token_id: TokenId, secret: bytes) -> str:
    """Return the text of a token with this secret of 32 bytes."""
    assert len(secret) == SECRET_BYTES
    body = f"{PREFIX}_{token_id}_{_base62(int.from_bytes(secret), _SECRET_LENGTH)}"
    return body + _checksum(body)


def read_token_id(text: str) -> TokenId | None:
    """Return the id that a text names, None when it is no text of a token."""
    found = _FORM.fullmatch(text)
    if found is None or found[3] != _checksum(found[1]):
        return None
    return TokenId(found[2])


def digest_of(text: str) -> bytes:
    """Return what is kept of the text of a token."""
    return sha256(text.encode()).digest()


def _checksum(body: str) -> str:
    return _base62(crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
