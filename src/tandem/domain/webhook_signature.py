"""Verifying deliveries: one function for each scheme, over the raw bytes (http-api 3.10).

Each answers an empty text, or the code of what is wrong. Comparisons take the same time wherever
two values differ, and every valid secret is tried.
"""

import binascii
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from tandem.domain.webhook import PROVIDER_SECRETS, Scheme

MISSING: Final = "missing_signature"
MALFORMED: Final = "malformed_signature"
STALE: Final = "stale_signature_timestamp"
BAD: Final = "bad_signature"
NO_SECRET: Final = "missing_secret_material"  # noqa: S105 # a code
NOT_IMPORTED: Final = "provider_secret_not_imported"
UNSIGNED: Final = "unsigned_dev_mode_disabled"

SIGNATURES_MAX: Final = 10
"""So many signatures of one delivery are compared."""
SELF_FEEDBACK_HEADER: Final = "x-tandem-allow-self-feedback"
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER: Final = re.compile(r"[0-9]{1,16}")
_BASE64_BYTES: Final = 44


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as it came: headers by lower-case name, and the body as it is on the wire."""

    headers: Mapping[str, str]
    body: bytes


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Under which a delivery is judged: the moment, how far a signed one may be off, the switch."""

    now_ms: int
    tolerance_ms: int = 300_000
    unsigned_allowed: bool = False


def verify(scheme: Scheme, secrets: Sequence[str], incoming: Incoming, terms: Terms) -> str:
    """Return an empty text for a delivery that is authentic, else why it is not."""
    if scheme is Scheme.UNSIGNED_DEV_MODE:
        return "" if terms.unsigned_allowed else UNSIGNED
    if not secrets:
        return NOT_IMPORTED if scheme in PROVIDER_SECRETS else NO_SECRET
    return _CHECKS[scheme](secrets, incoming, terms)


def pretend_to_verify(body: bytes) -> None:
    """Do what verifying costs, for an address that does not exist."""
    _is_signed(["whsec_nobody"], [b"0.", body], ["0" * 64])


def signature_of(secret: str, timestamp_ms: int, body: bytes, *, self_feedback: str = "") -> str:
    """Return the header `x-tandem-webhook-signature` of a body, as its sender makes it."""
    signed = [f"{timestamp_ms}.".encode(), body, _feedback_line(self_feedback)]
    return f"t={timestamp_ms},v1={_hmac(secret.encode(), signed).hex()}"


def key_of(secret: str) -> bytes:
    """Return the key of a Standard Webhooks secret: what follows `whsec_` is base64."""
    text = secret.removeprefix("whsec_")
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()


def _hmac_v1(secrets: Sequence[str], incoming: Incoming, terms: Terms) -> str:
    headers = incoming.headers
    header = headers.get("x-tandem-webhook-signature") or headers.get("x-tandem-signature")
    if not header:
        return MISSING
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    signatures = [value for name, _, value in pairs if name == "v1"]
    if not all(sign for _, sign, _ in pairs) or len(times) != 1 or not signatures:
        return MALFORMED
    if not _NUMBER.fullmatch(times[0]) or not all(map(_HEX.fullmatch, signatures)):
        return MALFORMED
    if _is_stale(int(times[0]), terms):
        return STALE
    allowed = headers.get(SELF_FEEDBACK_HEADER, "").strip()
    signed = [f"{times[0]}.".encode(), incoming.body, _feedback_line(allowed)]
    return "" if _is_signed(secrets, signed, signatures) else BAD


def _feedback_line(value: str) -> bytes:
    return f"\n{SELF_FEEDBACK_HEADER}:{value}".encode() if value else b""


def _standard(secrets: Sequence[str], incoming: Incoming, terms: Terms) -> str:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    message, timestamp, header = (incoming.headers.get(name, "").strip() for name in names)
    if not header:
        return MISSING
    signatures = [part[3:] for part in header.split() if part.startswith("v1,")]
    if not message or not _NUMBER.fullmatch(timestamp) or not signatures:
        return MALFORMED
    if any(len(text.encode()) != _BASE64_BYTES for text in signatures):
        return MALFORMED
    if _is_stale(int(timestamp) * 1_000, terms):
        return STALE
    signed = [f"{message}.{timestamp}.".encode(), incoming.body]
    found = False
    for secret in secrets:
        wanted = b64encode(_hmac(key_of(secret), signed))
        for text in signatures[:SIGNATURES_MAX]:
            found |= hmac.compare_digest(wanted, text.encode())
    return "" if found else BAD


def _prefixed_hex(name: str) -> Callable[[Sequence[str], Incoming, Terms], str]:
    def check(secrets: Sequence[str], incoming: Incoming, terms: Terms) -> str:
        header = incoming.headers.get(name, "").strip()
        if not header:
            return MISSING
        kind, _, signature = header.partition("=")
        if kind != "sha256" or not _HEX.fullmatch(signature):
            return MALFORMED
        return "" if _is_signed(secrets, [incoming.body], [signature]) else BAD

    return check


def _linear(secrets: Sequence[str], incoming: Incoming, terms: Terms) -> str:
    signature = incoming.headers.get("linear-signature", "").strip()
    if not signature:
        return MISSING
    if not _HEX.fullmatch(signature):
        return MALFORMED
    if not _is_signed(secrets, [incoming.body], [signature]):
        return BAD
    try:
        sent_at_ms = msgspec.json.decode(incoming.body, type=_LinearBody).sent_at_ms
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""  # that it is no JSON object is said later, to somebody who is authentic
    return STALE if sent_at_ms is not None and _is_stale(sent_at_ms, terms) else ""


class _LinearBody(msgspec.Struct):
    sent_at_ms: int | None = msgspec.field(name="webhookTimestamp", default=None)


def _shared(secrets: Sequence[str], incoming: Incoming, terms: Terms) -> str:
    given = incoming.headers.get("x-tandem-webhook-secret", "").strip()
    if not given:
        return MISSING
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(secret.encode(), given.encode())
    return "" if found else BAD


_CHECKS: Final[Mapping[Scheme, Callable[[Sequence[str], Incoming, Terms], str]]] = {
    Scheme.HMAC_SHA256_V1: _hmac_v1,
    Scheme.STANDARD_WEBHOOKS_V1: _standard,
    Scheme.GITHUB_HMAC_SHA256: _prefixed_hex("x-hub-signature-256"),
    Scheme.NOTION_HMAC_SHA256: _prefixed_hex("x-notion-signature"),
    Scheme.LINEAR_HMAC_SHA256: _linear,
    Scheme.SHARED_SECRET_HEADER_V1: _shared,
}


def _is_stale(signed_at_ms: int, terms: Terms) -> bool:
    return abs(terms.now_ms - signed_at_ms) > terms.tolerance_ms


def _is_signed(secrets: Sequence[str], signed: Sequence[bytes], signatures: Sequence[str]) -> bool:
    found = False
    for secret in secrets:
        wanted = _hmac(secret.encode(), signed).hex()
        for signature in signatures[:SIGNATURES_MAX]:
            found |= hmac.compare_digest(wanted, signature.lower())
    return found


def _hmac(key: bytes, parts: Sequence[bytes]) -> bytes:
    made = hmac.new(key, digestmod="sha256")
    for part in parts:
        made.update(part)
    return made.digest()
