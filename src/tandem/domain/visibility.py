"""Who may see an automation in hosted modes, and who may change it (http-api 1.4, 3.2 share).

It is judged only for a person for whom a signed tenant context speaks, and only where the metadata
of the automation say who may see it. Where nobody said anything the scopes alone decide.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

import msgspec

from tandem.domain.json import JsonObject

KEY: Final = "resource_access"
"""The key of the metadata that says who may see an automation."""
HUMAN_USER: Final = "human_user"

ADMIN_ROLES: Final = frozenset(
    {
        *("owner", "admin", "hosted:owner", "hosted:admin"),
        *("enterprise:admin", "workspace:admin", "organization:admin"),
    }
)
ADMIN_CAPABILITIES: Final = frozenset(
    {"hosted.owner", "hosted.admin", "automation.write", "automation.share"}
)


class Visibility(StrEnum):
    """To whom an automation shows itself beside its owner and the admins."""

    PRIVATE = "private"
    """To nobody."""
    GROUP = "group"
    """To the members of the organizational units that are its audience."""
    ORG = "org"
    """To everybody of the tenant."""


class Assertor(msgspec.Struct, frozen=True, kw_only=True):
    """The person for whom a signed tenant context speaks, and what it says of them.

    Also where an agent acts for them: what is theirs is judged by the person.
    """

    person: str
    roles: frozenset[str] = frozenset()
    org_units: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether they see and change everything of their tenant."""
        return bool(self.roles & ADMIN_ROLES or self.capabilities & ADMIN_CAPABILITIES)


class ResourceAccess(msgspec.Struct, frozen=True, kw_only=True):
    """Who may see an automation. `owner` is empty when nobody is known."""

    owner: str = ""
    visibility: Visibility = Visibility.PRIVATE
    audience: frozenset[str] = frozenset()

    def may_see(self, asserted: Assertor) -> bool:
        """Say whether this person may know that the automation is there."""
        if self.may_change(asserted) or self.visibility is Visibility.ORG:
            return True
        return self.visibility is Visibility.GROUP and bool(self.audience & asserted.org_units)

    def may_change(self, asserted: Assertor) -> bool:
        """Say whether this person may change the automation, its triggers and its runs."""
        return asserted.is_admin or (bool(self.owner) and self.owner == asserted.person)


def read_access(metadata: Any) -> ResourceAccess | None:
    """Return what the metadata of an automation say, None when they say nothing.

    What cannot be understood opens nothing: then only admins see the automation.
    """
    if not isinstance(metadata, dict) or metadata.get(KEY) is None:
        return None
    said = metadata[KEY]
    if not isinstance(said, dict):
        return ResourceAccess()
    owner = said.get("owner_principal")
    name = owner.get("id") if isinstance(owner, dict) else None
    visibility = said.get("visibility")
    audience = said.get("audience_principals")
    return ResourceAccess(
        owner=name if isinstance(name, str) else "",
        visibility=Visibility(visibility)
        if isinstance(visibility, str) and visibility in frozenset(Visibility)
        else Visibility.PRIVATE,
        audience=frozenset(each for each in audience if isinstance(each, str))
        if isinstance(audience, list)
        else frozenset(),
    )


def access_document(
    *, owner: str, visibility: Visibility, audience: Iterable[str] = (), by: str
) -> JsonObject:
    """Return what stands in the metadata; each name of the audience once."""
    return {
        "owner_principal": {"kind": HUMAN_USER, "id": owner},
        "visibility": visibility.value,
        "audience_principals": list(dict.fromkeys(audience)),
        "updated_by": by,
    }
