"""The `Idempotency-Key` of a request: the same key again does nothing new.

What a request does and its key are one transaction, so there is no state in between: a request
that was cut off either did everything, and its repetition finds that, or it did nothing.
"""

from typing import Final

import msgspec

from tandem.domain.errors import InvalidRequest, Refused
from tandem.domain.ids import RunId
from tandem.domain.json import canonical, digest

KEY_MAX: Final = 255
KEPT_MS: Final = 86_400_000
"""How long a key is remembered: a day."""
KEY_REUSED: Final = "IDEMPOTENCY_KEY_REUSED"
ALREADY_DONE: Final = "already_done"


class RequestKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key of one request. `operation` is what is asked of what; keys of two never meet.

    `fingerprint` is the digest of everything that the request says.
    """

    operation: str
    key: str
    fingerprint: str


class UsedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was used, and the run that the request created or changed."""

    operation: str
    key: str
    fingerprint: str
    run_id: RunId
    created_at_ms: int


def request_key(operation: str, key: str, request: object) -> RequestKey | None:
    """Return the key of a request, None when it has none.

    Raises:
        InvalidRequest: the key is too long or not printable.
    """
    key = key.strip()
    if not key:
        return None
    if len(key) > KEY_MAX or not key.isprintable():
        raise InvalidRequest(
            f"an Idempotency-Key has at most {KEY_MAX} printable characters",
            code="VALIDATION_FAILED",
        )
    return RequestKey(operation=operation, key=key, fingerprint=digest(canonical(request)))


def is_repeated(known: UsedKey | None, asked: RequestKey, *, now_ms: int) -> bool:
    """Say whether a request has been done already.

    Raises:
        Refused: the key belongs to a request that said something else.
    """
    if known is None or now_ms - known.created_at_ms >= KEPT_MS:
        return False
    if known.fingerprint != asked.fingerprint:
        raise Refused(
            f"the Idempotency-Key `{asked.key}` was used for another request; "
            "a new request needs a new key",
            code=KEY_REUSED,
            details={"runID": known.run_id},
        )
    return True
