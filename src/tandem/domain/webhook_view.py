"""Webhook triggers as they are shown; secrets and digests are no part of that."""

from typing import Any, Final

import msgspec

from tandem.domain.spelling import doubled
from tandem.domain.tenant import context_of
from tandem.domain.webhook import PROVIDER_SECRETS, WebhookTrigger

INGRESS_PATH: Final = "/webhooks/automations"
PROXY_PREFIX: Final = "/api/engine"


def callback_path(trigger: WebhookTrigger, *, nonce: str = "") -> str:
    """Return the path that deliveries come to; with a nonce that for a verification token."""
    path = f"{INGRESS_PATH}/{trigger.public_path_token}"
    return f"{path}/{nonce}" if nonce else path


def trigger_document(trigger: WebhookTrigger, *, base_url: str = "") -> dict[str, Any]:
    """Return a trigger as it is shown, each key in both spellings.

    Args:
        trigger: the trigger.
        base_url: where this server is reached from outside; empty when that is not known.
    """
    path = callback_path(trigger)
    return doubled(
        {
            "trigger_id": trigger.trigger_id,
            "automation_id": trigger.automation_id,
            "name": trigger.name,
            "provider": trigger.provider,
            "provider_event_kind": trigger.provider_event_kind,
            "provider_metadata": _provider_metadata(trigger),
            "enabled": trigger.enabled,
            "callback_path": path,
            "callback_url": f"{base_url}{path}",
            "tenant_label": _tenant_label(trigger),
            "owning_org_unit_id": trigger.owning_org_unit_id,
            "resource_scope": trigger.resource_scope,
            "default_data_class": trigger.default_data_class.value,
            "default_risk_tier": (
                trigger.default_risk_tier.value if trigger.default_risk_tier else None
            ),
            "signature_scheme": trigger.signature_scheme.value,
            "secret_status": doubled(
                {
                    "configured": trigger.secret_version > 0,
                    "secret_version": trigger.secret_version,
                    "created_at_ms": trigger.secret_created_at_ms,
                    "rotated_at_ms": trigger.secret_rotated_at_ms,
                    "rotated_by": trigger.secret_rotated_by,
                }
            ),
            "created_at_ms": trigger.created_at_ms,
            "updated_at_ms": trigger.updated_at_ms,
            "last_received_at_ms": trigger.last_received_at_ms,
            "last_accepted_at_ms": trigger.last_accepted_at_ms,
            "last_rejected_at_ms": trigger.last_rejected_at_ms,
            "verification_status": trigger.verification_status,
            "delivery_counts": msgspec.to_builtins(trigger.delivery_counts),
        }
    )


def _provider_metadata(trigger: WebhookTrigger) -> dict[str, Any]:
    return doubled(
        {
            "canonical_provider": trigger.provider,
            "provider_event_kind": trigger.provider_event_kind,
            "event_id_headers": list(trigger.event_id_headers),
            "verification": doubled(
                {
                    "signature_scheme": trigger.signature_scheme.value,
                    "provider_specific": trigger.signature_scheme in PROVIDER_SECRETS,
                }
            ),
            "polling": doubled({"supported": False, "reconciliation_supported": False}),
        }
    )


def _tenant_label(trigger: WebhookTrigger) -> str:
    found = context_of(trigger.tenant)
    return f"{found.org_id} / {found.workspace_id}"
