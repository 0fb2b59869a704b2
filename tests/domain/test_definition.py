"""What is kept of an automation, and what its row says of it."""

from typing import Any

import pytest

from tandem.domain.automation import Automation, AutomationStatus, canonical_document
from tandem.domain.definition import definition_of
from tandem.domain.json import digest

NODES = {"nodes": [{"node_id": "n1", "gate": {"required": True}}]}


def automation(**more: Any) -> Automation:
    return Automation.model_validate({"automation_id": "a", "flow": NODES, **more})


def test_a_definition_is_the_canonical_document_and_its_digest() -> None:
    given = automation(name="A", creator_id="ann")
    kept = definition_of(given)
    assert kept.document == canonical_document(given)
    assert kept.digest == digest(kept.document)
    assert (kept.automation_id, kept.name, kept.creator_id) == ("a", "A", "ann")
    assert kept.schedule.startswith('{"misfire_policy":')


@pytest.mark.parametrize(
    ("given", "status"), [({}, None), ({"status": "draft"}, AutomationStatus.DRAFT)]
)
def test_a_status_that_is_not_given_is_left_alone(
    given: dict[str, Any], status: AutomationStatus | None
) -> None:
    assert definition_of(automation(**given)).status is status


def test_a_definition_with_watch_conditions_watches() -> None:
    watching = automation(watch_conditions=[{"kind": "handoff_available"}])
    assert definition_of(watching).is_watching
    assert not definition_of(automation()).is_watching
