"""Webhook triggers: where deliveries from outside come in for an automation (definitions 5.5)."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

from tandem.domain.errors import InvalidRequest
from tandem.domain.ids import AutomationId, TenantId

T = TypeVar("T", bound=StrEnum)

NAME_MAX: Final = 200
TEXT_MAX: Final = 200
EVENT_ID_MAX: Final = 256
OVERLAP_MAX_S: Final = 604_800
"""An old secret may stay valid for a week at most."""
SETUP_SPAN_MS: Final = 900_000
"""How long the address is valid under which a provider hands over its verification token."""
SECRET_BYTES_MAX: Final = 512


class Scheme(StrEnum):
    """How a delivery proves where it comes from (http-api 3.10)."""

    HMAC_SHA256_V1 = "hmac_sha256_v1"
    STANDARD_WEBHOOKS_V1 = "standard_webhooks_v1"
    GITHUB_HMAC_SHA256 = "github_hmac_sha256"
    NOTION_HMAC_SHA256 = "notion_hmac_sha256"
    LINEAR_HMAC_SHA256 = "linear_hmac_sha256"
    SHARED_SECRET_HEADER_V1 = "shared_secret_header_v1"  # noqa: S105 # a name
    UNSIGNED_DEV_MODE = "unsigned_dev_mode"


class DataClass(StrEnum):
    """How sensitive what comes in is."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"
    EXECUTIVE = "executive"
    CREDENTIAL = "credential"
    REGULATED = "regulated"
    CUSTOMER_DATA = "customer_data"
    SOURCE_CODE = "source_code"
    FINANCIAL_RECORD = "financial_record"


class RiskTier(StrEnum):
    """How much harm a run may do that a delivery started."""

    READ_DISCOVER = "read_discover"
    INTERNAL_WRITE = "internal_write"
    CONSEQUENTIAL_WRITE = "consequential_write"
    EXTERNAL_DRAFT = "external_draft"
    EXTERNAL_SEND = "external_send"
    CUSTOMER_DATA_ACCESS = "customer_data_access"
    SOURCE_CODE_MUTATION = "source_code_mutation"
    FINANCIAL_RECORD_ACCESS = "financial_record_access"
    CREDENTIAL_ADMIN = "credential_admin"
    DESTRUCTIVE_DELETE = "destructive_delete"
    MONEY_MOVEMENT_CONTRACT = "money_movement_contract"


GENERIC: Final = "generic"
GITHUB: Final = "github"
LINEAR: Final = "linear"
NOTION: Final = "notion"

_ALIASES: Final[Mapping[str, str]] = {
    "custom": GENERIC,
    "http": GENERIC,
    "gh": GITHUB,
    "github.com": GITHUB,
    "gitlab.com": "gitlab",
    "linear.app": LINEAR,
    "slack.com": "slack",
    "stripe.com": "stripe",
    "notion.so": NOTION,
    "notion.com": NOTION,
}
_FORCED: Final[Mapping[str, Scheme]] = {
    NOTION: Scheme.NOTION_HMAC_SHA256,
    LINEAR: Scheme.LINEAR_HMAC_SHA256,
}
"""Providers that sign in one way only."""

PROVIDER_SECRETS: Final = frozenset({Scheme.NOTION_HMAC_SHA256, Scheme.LINEAR_HMAC_SHA256})
"""Schemes whose secret the provider makes."""

BODY_BYTES_MAX: Final[Mapping[str, int]] = {GITHUB: 524_288}
BODY_BYTES_DEFAULT: Final = 262_144
BODY_BYTES_UNKNOWN: Final = 32_768
"""How much is read for an address that does not exist."""

_EVENT_ID_HEADERS: Final = ("x-tandem-webhook-event-id", "x-webhook-event-id", "x-event-id")
_EVENT_ID_HEADERS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    GITHUB: ("x-github-delivery",),
    "gitlab": ("x-gitlab-event-uuid", "x-gitlab-delivery"),
    LINEAR: ("linear-delivery", "x-linear-delivery"),
    "stripe": ("x-stripe-event-id", "stripe-event-id"),
}


class DeliveryStatus(StrEnum):
    """Where a delivery is."""

    RECEIVED = "received"
    """It is stored and waits for its turn."""
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    SUPPRESSED = "suppressed"
    DISABLED = "disabled"
    FAILED = "failed"


class DeliveryCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries of a trigger are, or were, in each status."""

    total: int = 0
    received: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    suppressed: int = 0
    disabled: int = 0
    failed: int = 0


class WebhookTrigger(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger. Its secrets are no part of it; `secret_version` 0 means that it has none.

    `public_path_token` is in the address that deliveries come to. `setup_digest` is that of the
    nonce under which a provider may hand over its verification token until `setup_expires_at_ms`;
    `verification_status` says how far that is.
    """

    trigger_id: str
    tenant: TenantId
    automation_id: AutomationId
    name: str
    provider: str
    provider_event_kind: str | None = None
    signature_scheme: Scheme = Scheme.HMAC_SHA256_V1
    enabled: bool = True
    public_path_token: str
    owning_org_unit_id: str | None = None
    resource_scope: dict[str, Any] | None = None
    default_data_class: DataClass = DataClass.INTERNAL
    default_risk_tier: RiskTier | None = None
    created_at_ms: int
    updated_at_ms: int
    secret_version: int = 0
    secret_created_at_ms: int | None = None
    secret_rotated_at_ms: int | None = None
    secret_rotated_by: str | None = None
    last_received_at_ms: int | None = None
    last_accepted_at_ms: int | None = None
    last_rejected_at_ms: int | None = None
    verification_status: str | None = None
    setup_digest: str = ""
    setup_expires_at_ms: int | None = None
    is_token_revealed: bool = False
    delivery_counts: DeliveryCounts = DeliveryCounts()

    @property
    def has_secret_of_ours(self) -> bool:
        """Whether we make its secret, so that it can be rotated here."""
        return self.signature_scheme not in PROVIDER_SECRETS

    @property
    def body_bytes_max(self) -> int:
        """How large a delivery may be."""
        return BODY_BYTES_MAX.get(self.provider, BODY_BYTES_DEFAULT)

    @property
    def event_id_headers(self) -> tuple[str, ...]:
        """The headers that may hold the provider's id of an event; the first present counts."""
        own = _EVENT_ID_HEADERS_OF.get(self.provider, ())
        if self.signature_scheme is Scheme.STANDARD_WEBHOOKS_V1:
            own = ("webhook-id", *own)
        return (*own, *_EVENT_ID_HEADERS)


class TriggerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a new trigger."""

    provider: str
    name: str = ""
    provider_event_kind: str | None = None
    signature_scheme: str | None = None
    enabled: bool = True
    owning_org_unit_id: str | None = None
    resource_scope: dict[str, Any] | None = None
    default_data_class: str | None = None
    default_risk_tier: str | None = None


class TriggerPatch(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be changed of a trigger; what is not set stays. None clears where it may."""

    name: str | msgspec.UnsetType | None = msgspec.UNSET
    provider: str | msgspec.UnsetType | None = msgspec.UNSET
    provider_event_kind: str | msgspec.UnsetType | None = msgspec.UNSET
    signature_scheme: str | msgspec.UnsetType | None = msgspec.UNSET
    default_data_class: str | msgspec.UnsetType | None = msgspec.UNSET
    default_risk_tier: str | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType | None = msgspec.UNSET


def normal_provider(text: str) -> str:
    """Return the one name of a provider.

    Raises:
        InvalidRequest: nothing is left of it.
    """
    name = re.sub(r"[^a-z0-9._-]", "", re.sub(r"\s+", "-", text.strip().lower()))[:TEXT_MAX]
    if not name:
        raise InvalidRequest("`provider` is empty; `generic` is right where none is known")
    return _ALIASES.get(name, name)


def new_trigger(
    spec: TriggerSpec,
    *,
    tenant: TenantId,
    automation_id: AutomationId,
    trigger_id: str,
    public_path_token: str,
    now_ms: int,
    unsigned_allowed: bool,
) -> WebhookTrigger:
    """Return a trigger as it is asked for; it has no secret yet.

    Raises:
        InvalidRequest: a field has a value that it may not have.
    """
    provider = normal_provider(spec.provider)
    return WebhookTrigger(
        trigger_id=trigger_id,
        tenant=tenant,
        automation_id=automation_id,
        name=_name(spec.name or f"{provider} webhook"),
        provider=provider,
        provider_event_kind=_event_kind(spec.provider_event_kind),
        signature_scheme=_scheme(provider, spec.signature_scheme, unsigned_allowed),
        enabled=spec.enabled,
        public_path_token=public_path_token,
        owning_org_unit_id=_unit(spec.owning_org_unit_id),
        resource_scope=spec.resource_scope,
        default_data_class=_one_of(DataClass, "default_data_class", spec.default_data_class)
        or DataClass.INTERNAL,
        default_risk_tier=_one_of(RiskTier, "default_risk_tier", spec.default_risk_tier),
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )


def patched(
    trigger: WebhookTrigger, patch: TriggerPatch, *, now_ms: int, unsigned_allowed: bool
) -> WebhookTrigger:
    """Return a trigger with some fields changed.

    A secret stays as it is, so a scheme whose secrets come from elsewhere cannot be changed to.

    Raises:
        InvalidRequest: a field has a value that it may not have.
    """
    changes: dict[str, Any] = {"updated_at_ms": now_ms}
    if patch.name is not msgspec.UNSET:
        changes["name"] = _name(patch.name or "")
    if patch.provider is not msgspec.UNSET:
        changes["provider"] = normal_provider(patch.provider or "")
    if patch.provider_event_kind is not msgspec.UNSET:
        changes["provider_event_kind"] = _event_kind(patch.provider_event_kind)
    if patch.default_data_class is not msgspec.UNSET:
        found = _one_of(DataClass, "default_data_class", patch.default_data_class)
        changes["default_data_class"] = found or DataClass.INTERNAL
    if patch.default_risk_tier is not msgspec.UNSET:
        tier = _one_of(RiskTier, "default_risk_tier", patch.default_risk_tier)
        changes["default_risk_tier"] = tier
    if isinstance(patch.enabled, bool):
        changes["enabled"] = patch.enabled
    provider = changes.get("provider", trigger.provider)
    wanted = patch.signature_scheme
    scheme = _scheme(
        provider,
        trigger.signature_scheme.value if isinstance(wanted, msgspec.UnsetType) else wanted,
        unsigned_allowed,
    )
    if (scheme in PROVIDER_SECRETS or not trigger.has_secret_of_ours) and (
        scheme is not trigger.signature_scheme
    ):
        raise InvalidRequest(
            f"the secret of `{trigger.signature_scheme}` comes from another side than that of "
            f"`{scheme}`; make another trigger"
        )
    changes["signature_scheme"] = scheme
    return msgspec.structs.replace(trigger, **changes)


def _name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > NAME_MAX:
        raise InvalidRequest(f"`name` has 1 to {NAME_MAX} characters")
    return name


def _event_kind(text: str | None) -> str | None:
    return (text or "").strip().lower()[:TEXT_MAX] or None


def _unit(text: str | None) -> str | None:
    return (text or "").strip().lower()[:TEXT_MAX] or None


def _scheme(provider: str, text: str | None, unsigned_allowed: bool) -> Scheme:
    forced = _FORCED.get(provider)
    if forced is not None:
        return forced
    scheme = _one_of(Scheme, "signature_scheme", text) or Scheme.HMAC_SHA256_V1
    if scheme in PROVIDER_SECRETS:
        raise InvalidRequest(f"`{scheme}` is for its provider only, not for `{provider}`")
    if scheme is Scheme.UNSIGNED_DEV_MODE and not unsigned_allowed:
        raise InvalidRequest(
            "`unsigned_dev_mode` lets anybody start runs; it needs "
            "TANDEM_AUTOMATION_WEBHOOK_ALLOW_UNSIGNED_DEV_MODE"
        )
    return scheme


def _one_of(kind: type[T], field: str, text: str | None) -> T | None:
    word = (text or "").strip().lower()
    if not word:
        return None
    try:
        return kind(word)
    except ValueError:
        raise InvalidRequest(f"`{field}` is one of {', '.join(kind)}") from None
