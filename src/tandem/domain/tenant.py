"""Whose a run is, as the wire contract says it, and the one text by which the store keeps it.

Two contexts are the same tenant when organization, workspace and deployment are equal (http-api
1.3); who acts and where the context came from are no part of that.
"""

from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from tandem.domain.ids import LOCAL_TENANT, TenantId

_SEPARATOR: Final = "/"


class TenantSource(StrEnum):
    """Where a context came from."""

    LOCAL_IMPLICIT = "local_implicit"
    """Nobody said anything: the one tenant of an engine of its own."""
    EXPLICIT = "explicit"


class TenantContext(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tenant of a request or a run. `actor_id` is who acts, where it is known."""

    org_id: str
    workspace_id: str
    deployment_id: str | None = None
    actor_id: str | None = None
    source: TenantSource

    @property
    def tenant(self) -> TenantId:
        """The text of this tenant: `org/workspace[/deployment]`, each part escaped.

        The local organization with the local workspace is the local tenant, whoever says it.
        """
        parts = [self.org_id, self.workspace_id]
        if self.deployment_id is not None:
            parts.append(self.deployment_id)
        elif parts == [LOCAL_TENANT, LOCAL_TENANT]:
            return LOCAL_TENANT
        return TenantId(_SEPARATOR.join(quote(part, safe="") for part in parts))


def context_of(tenant: TenantId, *, actor_id: str = "") -> TenantContext:
    """Return the context of a tenant; of the local one nobody is named.

    A text of one part that `TenantContext.tenant` never makes is an organization with a workspace
    of no name.
    """
    if tenant == LOCAL_TENANT:
        return TenantContext(
            org_id=LOCAL_TENANT, workspace_id=LOCAL_TENANT, source=TenantSource.LOCAL_IMPLICIT
        )
    org_id, workspace_id, *more = (*map(unquote, tenant.split(_SEPARATOR, 2)), "")
    return TenantContext(
        org_id=org_id,
        workspace_id=workspace_id,
        deployment_id=more[0] if len(more) > 1 else None,
        actor_id=actor_id or None,
        source=TenantSource.EXPLICIT,
    )


def context_json(tenant: TenantId, *, actor_id: str = "") -> dict[str, str]:
    """Return the context of a tenant as it stands in records and events."""
    found: dict[str, str] = msgspec.to_builtins(context_of(tenant, actor_id=actor_id))
    return found
