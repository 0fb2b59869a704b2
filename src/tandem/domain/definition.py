"""A definition as it is kept: its canonical form, and what the row of its automation says of it."""

import msgspec

from tandem.domain.automation import Automation, AutomationStatus, canonical_document
from tandem.domain.ids import AutomationId, DefinitionDigest
from tandem.domain.json import canonical, digest


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """All that a save needs of an automation, as plain data.

    `status` and `creator_id` are None where the document gives none; `schedule` is canonical JSON.
    """

    automation_id: AutomationId
    document: bytes
    digest: DefinitionDigest
    name: str
    creator_id: str | None
    status: AutomationStatus | None
    schedule: str
    is_watching: bool


def definition_of(automation: Automation) -> Definition:
    """Return an automation as it is kept."""
    document = canonical_document(automation)
    is_given = "status" in automation.model_fields_set
    schedule = automation.schedule.model_dump(mode="json", exclude_none=True)
    return Definition(
        automation_id=AutomationId(automation.automation_id),
        document=document,
        digest=DefinitionDigest(digest(document)),
        name=automation.name,
        creator_id=automation.creator_id,
        status=automation.status if is_given else None,
        schedule=canonical(schedule).decode(),
        is_watching=bool(automation.watch_conditions),
    )
