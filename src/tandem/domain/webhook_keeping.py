"""What may be asked of a webhook trigger, and what comes of it."""

from typing import Final, assert_never

import msgspec

from tandem.domain.errors import InvalidRequest, Refused
from tandem.domain.webhook import (
    NOTION,
    OVERLAP_MAX_S,
    SETUP_SPAN_MS,
    TriggerPatch,
    WebhookTrigger,
    patched,
)

PENDING: Final = "pending"
VERIFIED: Final = "verified"


class SealedSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret as the store keeps it; `valid_until_ms` None means until it is replaced."""

    version: int
    sealed: bytes
    valid_until_ms: int | None = None


class PatchTrigger(msgspec.Struct, frozen=True, tag=True):
    """Change fields."""

    patch: TriggerPatch
    unsigned_allowed: bool = False


class DisableTrigger(msgspec.Struct, frozen=True, tag=True):
    """Take no more deliveries; again changes nothing."""


class RotateSecret(msgspec.Struct, frozen=True, tag=True):
    """Have another secret; the one before it stays valid for `overlap_ms`."""

    sealed: bytes
    overlap_ms: int = 0
    by: str = ""


class ImportSecret(msgspec.Struct, frozen=True, tag=True):
    """Take the secret that the provider made."""

    sealed: bytes


class BeginSetup(msgspec.Struct, frozen=True, tag=True):
    """Let the provider hand over a verification token under a new nonce; forget the former one."""

    setup_digest: str


class TakeToken(msgspec.Struct, frozen=True, tag=True):
    """The provider hands over its verification token, which is the secret from now on."""

    setup_digest: str
    sealed: bytes


class RevealToken(msgspec.Struct, frozen=True, tag=True):
    """Show the verification token to a person, once."""


TriggerCommand = (
    PatchTrigger
    | DisableTrigger
    | RotateSecret
    | ImportSecret
    | BeginSetup
    | TakeToken
    | RevealToken
)


class TriggerChange(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger after a command, and its secrets: a new one, and until when the former is valid.

    With a new secret, or with `forgets_secrets`, all former ones but the last are forgotten, and
    that too when `former_until_ms` is None.
    """

    trigger: WebhookTrigger
    secret: SealedSecret | None = None
    former_until_ms: int | None = None
    forgets_secrets: bool = False


def overlap_ms_of(overlap_seconds: int) -> int:
    """Return how long a former secret stays valid.

    Raises:
        InvalidRequest: that is out of bounds.
    """
    if not 0 <= overlap_seconds <= OVERLAP_MAX_S:
        raise InvalidRequest(f"`overlap_seconds` is from 0 to {OVERLAP_MAX_S}")
    return overlap_seconds * 1_000


def decide_trigger(
    trigger: WebhookTrigger, command: TriggerCommand, *, now_ms: int
) -> TriggerChange:
    """Decide a command on a trigger.

    Raises:
        InvalidRequest: the trigger is of another kind than the command is for.
        Refused: its state does not allow it.
    """
    match command:
        case PatchTrigger():
            changed = patched(
                trigger, command.patch, now_ms=now_ms, unsigned_allowed=command.unsigned_allowed
            )
            return TriggerChange(trigger=changed)
        case DisableTrigger():
            if not trigger.enabled:
                return TriggerChange(trigger=trigger)
            return TriggerChange(
                trigger=msgspec.structs.replace(trigger, enabled=False, updated_at_ms=now_ms)
            )
        case RotateSecret():
            return _rotate(trigger, command, now_ms)
        case ImportSecret():
            return _import(trigger, command, now_ms)
        case BeginSetup():
            return _begin_setup(trigger, command, now_ms)
        case TakeToken():
            return _take_token(trigger, command, now_ms)
        case RevealToken():
            return _reveal(trigger, now_ms)
        case _:
            assert_never(command)


def first_secret(trigger: WebhookTrigger, sealed: bytes, *, now_ms: int) -> TriggerChange:
    """Give a new trigger its first secret."""
    return _with_secret(trigger, sealed, now_ms)


def begin_setup(trigger: WebhookTrigger, setup_digest: str, *, now_ms: int) -> TriggerChange:
    """Let the provider of a new trigger hand over its verification token."""
    return _begin_setup(trigger, BeginSetup(setup_digest), now_ms)


def _rotate(trigger: WebhookTrigger, command: RotateSecret, now_ms: int) -> TriggerChange:
    if not trigger.has_secret_of_ours:
        raise InvalidRequest(
            f"the secret of a {trigger.provider} trigger is made by {trigger.provider}; rotate it "
            "there",
            code="AUTOMATION_WEBHOOK_ROTATE_UNSUPPORTED",
        )
    changed = _with_secret(trigger, command.sealed, now_ms)
    rotated = msgspec.structs.replace(
        changed.trigger, secret_rotated_at_ms=now_ms, secret_rotated_by=command.by or None
    )
    until_ms = now_ms + command.overlap_ms if command.overlap_ms else None
    return msgspec.structs.replace(changed, trigger=rotated, former_until_ms=until_ms)


def _import(trigger: WebhookTrigger, command: ImportSecret, now_ms: int) -> TriggerChange:
    if trigger.has_secret_of_ours or trigger.provider == NOTION:
        raise InvalidRequest(f"a {trigger.provider} trigger takes no secret from elsewhere")
    return _verified(_with_secret(trigger, command.sealed, now_ms))


def _begin_setup(trigger: WebhookTrigger, command: BeginSetup, now_ms: int) -> TriggerChange:
    _require_notion(trigger)
    changed = msgspec.structs.replace(
        trigger,
        setup_digest=command.setup_digest,
        setup_expires_at_ms=now_ms + SETUP_SPAN_MS,
        verification_status=PENDING,
        is_token_revealed=False,
        updated_at_ms=now_ms,
    )
    return TriggerChange(trigger=changed, forgets_secrets=True)


def _take_token(trigger: WebhookTrigger, command: TakeToken, now_ms: int) -> TriggerChange:
    _require_notion(trigger)
    if not is_setup_open(trigger, command.setup_digest, now_ms=now_ms):
        raise Refused("this address for the verification token is not valid any more")
    changed = _verified(_with_secret(trigger, command.sealed, now_ms))
    closed = msgspec.structs.replace(changed.trigger, setup_digest="", setup_expires_at_ms=None)
    return msgspec.structs.replace(changed, trigger=closed)


def is_setup_open(trigger: WebhookTrigger, setup_digest: str, *, now_ms: int) -> bool:
    """Say whether a verification token may be handed over under a nonce with this digest."""
    return (
        setup_digest != ""
        and trigger.setup_digest == setup_digest
        and trigger.setup_expires_at_ms is not None
        and now_ms < trigger.setup_expires_at_ms
    )


def _reveal(trigger: WebhookTrigger, now_ms: int) -> TriggerChange:
    _require_notion(trigger)
    if not trigger.secret_version or trigger.is_token_revealed:
        raise Refused(
            "there is no verification token to show: none has come yet, or it was shown before; "
            "reset the verification to get another one",
            code="AUTOMATION_WEBHOOK_TOKEN_UNAVAILABLE",
        )
    shown = msgspec.structs.replace(trigger, is_token_revealed=True, updated_at_ms=now_ms)
    return TriggerChange(trigger=shown)


def _require_notion(trigger: WebhookTrigger) -> None:
    if trigger.provider != NOTION:
        raise InvalidRequest("this is for notion triggers only")


def _verified(change: TriggerChange) -> TriggerChange:
    trigger = msgspec.structs.replace(change.trigger, verification_status=VERIFIED)
    return msgspec.structs.replace(change, trigger=trigger)


def _with_secret(trigger: WebhookTrigger, sealed: bytes, now_ms: int) -> TriggerChange:
    version = trigger.secret_version + 1
    changed = msgspec.structs.replace(
        trigger,
        secret_version=version,
        secret_created_at_ms=trigger.secret_created_at_ms or now_ms,
        updated_at_ms=now_ms,
    )
    return TriggerChange(trigger=changed, secret=SealedSecret(version=version, sealed=sealed))
