"""Approvals in the inbox, and what profiles let pass."""

from tandem.domain.approval_record import approval_record
from tandem.domain.graduation import graduation_counts
from tandem.domain.ids import AutomationId, TenantId
from tandem.domain.reading import Reading, Relaxation
from tandem.domain.run import Handling
from tandem.testing.builders import gate_node
from tandem.testing.tale import Tale


def test_an_item_says_where_and_how_to_decide() -> None:
    gate = {"required": True, "decisions": ["Approve", "Reject", "deny"]}
    tale = Tale(gate_node("g", gate=gate, objective="Is it good?")).claim()
    (asked,) = tale.open_gates()

    item = approval_record(
        asked,
        run_id=tale.run.run_id,
        automation_id=AutomationId("auto"),
        name="",
        tenant=TenantId("o/w"),
    )

    assert item["request_id"] == "automation_v2:run:g"
    assert item["tenant"] == {"org_id": "o", "workspace_id": "w"}
    assert item["workflow_name"] == "auto"
    assert item["decisions"] == ["approve", "cancel"]
    assert item["instructions"] == item["action_preview_markdown"] == "Is it good?"
    payload = item["surface_payload"]
    assert payload["decide_endpoint"] == "/automations/v2/runs/run/gate"
    assert payload["expires_at_ms"] == item["expires_at_ms"] == asked.expires_at_ms
    assert payload["expiry_policy"]["expires_after_ms"] == 604_800_000
    assert item["approval_wait"]["transition_id"] == payload["transition_id"]
    assert "requested_by" not in item


def let_pass(*classes: str) -> Reading:
    relaxation = Relaxation(
        relaxed_validator_classes=classes,
        effective_outcome="warning",
        original_status="needs_repair",
        execution_profile="guided",
    )
    return Reading(relaxation=relaxation)


def test_what_was_let_pass_is_counted_by_class_and_by_what_people_think() -> None:
    counts = graduation_counts(
        7,
        [
            (let_pass("b", "a"), None),
            (let_pass("a"), Handling(disposition="accepted")),
            (let_pass(), None),
            (Reading(), None),
        ],
    )

    none = {"accepted": 0, "rejected": 0, "re_ran_strict": 0, "unmarked": 0}
    assert counts == {
        "total_outputs_scanned": 7,
        "total_relaxed_outputs": 2,
        "by_class": {"a": none | {"accepted": 1, "unmarked": 1}, "b": none | {"unmarked": 1}},
    }
    assert list(counts["by_class"]) == ["a", "b"]
