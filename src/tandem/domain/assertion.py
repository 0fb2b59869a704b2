"""Signed tenant contexts: who asks for whom, said by a party that the engine trusts (http-api 1.3).

An assertion is a compact JWS. Its form is read first, then its signature is verified (behind
`ports.signatures`), and only then are its claims read and judged.
"""

import base64
import binascii
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

from tandem.domain.caller import ActorKind, Caller, Scope
from tandem.domain.errors import Forbidden
from tandem.domain.tenant import TenantContext, TenantSource
from tandem.domain.visibility import Assertor

TENANT_CONTEXT_DENIED: Final = "TENANT_CONTEXT_DENIED"
BYTES_MAX: Final = 16_384
SKEW_MS: Final = 30_000
"""So far the clocks of the two parties may differ."""
ALGORITHM: Final = "EdDSA"
TYPE: Final = "tandem-tenant-context+jws"
VERSION: Final = "v1"

S = Scope

ADMIN_NAMES: Final = frozenset(
    {
        *("owner", "admin", "hosted:owner", "hosted:admin", "enterprise:admin"),
        *("workspace:admin", "organization:admin", "hosted.owner", "hosted.admin"),
    }
)
_SCOPES_OF_NAMES: Final[Mapping[str, Scope]] = {
    **{scope.value: scope for scope in (S.VIEWER, S.OPERATOR, S.APPROVER, S.EDITOR)},
    "automation.write": S.EDITOR,
    "automation.share": S.EDITOR,
    "automation.run": S.OPERATOR,
    "automation.approve": S.APPROVER,
}


class ReplayMode(StrEnum):
    """What it means when an assertion comes again."""

    BOUND = "bound"
    """The same id has to come with the same bytes."""
    ONE_SHOT = "one_shot"
    """Each id counts once."""
    OFF = "off"


class AssertionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Whose assertions count, for whom they have to be, and how often they do."""

    issuer: str = "tandem-web"
    audience: str = "tandem-runtime"
    replay: ReplayMode = ReplayMode.BOUND


class Header(msgspec.Struct, frozen=True):
    """The protected header of the JWS."""

    alg: str
    typ: str
    kid: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """An assertion whose signature nobody has looked at yet. `signed` is what it covers."""

    key_id: str
    signed: bytes
    signature: bytes
    payload: bytes


class HumanActor(msgspec.Struct, frozen=True, kw_only=True):
    """The person for whom the issuer speaks."""

    actor_id: str


class AuthorityChain(msgspec.Struct, frozen=True, kw_only=True):
    """Who began what the request is part of."""

    initiated_by: HumanActor


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What the issuer says; what else it says is not needed here."""

    version: str
    issuer: str
    audience: str
    issued_at_ms: int
    expires_at_ms: int
    assertion_id: str
    tenant_context: TenantContext
    human_actor: HumanActor
    authority_chain: AuthorityChain
    roles: tuple[str, ...] = ()
    org_units: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    policy_version: str | None = None


class AssertionUse(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an assertion that was accepted, until it is over."""

    issuer: str
    assertion_id: str
    digest: bytes
    expires_at_ms: int


def open_envelope(text: str) -> Envelope:
    """Take an assertion apart.

    Raises:
        Forbidden: it is no JWS of this kind.
    """
    parts = text.split(".")
    if len(text) > BYTES_MAX or len(parts) != 3:
        raise denied("it is not a compact JWS")
    try:
        head, payload, signature = map(_decode, parts)
        header = msgspec.json.decode(head, type=Header)
    except (ValueError, binascii.Error):
        raise denied("it cannot be read") from None
    if (header.alg, header.typ) != (ALGORITHM, TYPE):
        raise denied(f"it is not of the type {TYPE} with {ALGORITHM}")
    return Envelope(
        key_id=header.kid,
        signed=f"{parts[0]}.{parts[1]}".encode(),
        signature=signature,
        payload=payload,
    )


def read_claims(envelope: Envelope, policy: AssertionPolicy, *, now_ms: int) -> Claims:
    """Return the claims of an assertion whose signature holds.

    Raises:
        Forbidden: they are incomplete, not for this engine, not for now, or contradict each other.
    """
    try:
        claims = msgspec.json.decode(envelope.payload, type=Claims)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise denied(f"its claims are not complete: {error}") from None
    problem = _problem(claims, policy, now_ms=now_ms)
    if problem:
        raise denied(problem)
    return claims


def _problem(claims: Claims, policy: AssertionPolicy, *, now_ms: int) -> str:
    context, person = claims.tenant_context, claims.human_actor.actor_id
    checks = (
        (claims.version == VERSION, "its version is not known"),
        (claims.issuer == policy.issuer, "its issuer is not trusted"),
        (claims.audience == policy.audience, "it is meant for somebody else"),
        (claims.issued_at_ms <= now_ms + SKEW_MS, "it is not valid yet"),
        (is_in_time(claims, now_ms=now_ms), "it has expired"),
        (claims.issued_at_ms < claims.expires_at_ms, "it ends before it begins"),
        (claims.assertion_id.strip() != "", "it has no id"),
        (context.source is TenantSource.EXPLICIT, "its tenant is not explicit"),
        (bool(context.org_id and context.workspace_id), "its tenant has no name"),
        (bool(context.deployment_id), "its tenant names no deployment"),
        (person.strip() != "", "it names no person"),
        (context.actor_id == person, "its tenant and its person do not belong together"),
        (claims.authority_chain.initiated_by.actor_id != "", "nobody began what it is for"),
    )
    return next((words for holds, words in checks if not holds), "")


def is_in_time(claims: Claims, *, now_ms: int) -> bool:
    """Say whether an assertion that was accepted still counts."""
    return now_ms < counts_until_ms(claims)


def counts_until_ms(claims: Claims) -> int:
    """Return from when on an assertion that was accepted counts no more."""
    return claims.expires_at_ms + SKEW_MS


def use_of(claims: Claims, text: str) -> AssertionUse:
    """Return what is kept of an assertion."""
    return AssertionUse(
        issuer=claims.issuer,
        assertion_id=claims.assertion_id,
        digest=sha256(text.encode()).digest(),
        expires_at_ms=counts_until_ms(claims),
    )


def replay_problem(known: bytes | None, use: AssertionUse, mode: ReplayMode) -> str:
    """Return why an assertion may not come again, empty when it may.

    Args:
        known: the digest of what came with this id before.
        use: what comes now.
        mode: what counts.
    """
    if known is None or mode is ReplayMode.OFF:
        return ""
    if mode is ReplayMode.ONE_SHOT:
        return "it was used before"
    return "" if known == use.digest else "another one came with its id"


def asserted_caller(holder: Caller, claims: Claims) -> Caller:
    """Return the person whom the holder of a token speaks for.

    They may do what their roles and capabilities say, as far as the token allows it; with none
    that is known they may look.
    """
    wanted = {S.VIEWER}
    for name in (*claims.roles, *claims.capabilities):
        if name in ADMIN_NAMES:
            wanted.add(S.ADMIN)
        elif name in _SCOPES_OF_NAMES:
            wanted.add(_SCOPES_OF_NAMES[name])
    person = Caller(
        tenant=claims.tenant_context.tenant,
        kind=ActorKind.HUMAN,
        scopes=frozenset(wanted),
        actor_id=claims.human_actor.actor_id,
        source=holder.source,
        token_id=holder.token_id,
        asserted=Assertor(
            person=claims.human_actor.actor_id,
            roles=frozenset(claims.roles),
            org_units=frozenset(claims.org_units),
            capabilities=frozenset(claims.capabilities),
        ),
    )
    both = frozenset(scope for scope in Scope if person.may(scope) and holder.may(scope))
    until_ms = counts_until_ms(claims)
    if holder.until_ms is not None:
        until_ms = min(until_ms, holder.until_ms)
    return msgspec.structs.replace(person, scopes=both, until_ms=until_ms)


def denied(why: str) -> Forbidden:
    """Return the refusal of a tenant context."""
    return Forbidden(f"the tenant context was refused: {why}", code=TENANT_CONTEXT_DENIED)


def _decode(part: str) -> bytes:
    if "=" in part:
        raise ValueError("padding has no place in a JWS")
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
