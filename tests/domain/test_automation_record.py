"""An automation as the wire contract shows it."""

from typing import Any

import msgspec

from tandem.domain.automation import Automation, AutomationStatus
from tandem.domain.automation_record import (
    automation_record,
    automation_summary,
    snapshot_record,
    spec_record,
)
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    TenantId,
)
from tandem.domain.stored_automation import StoredAutomation
from tandem.testing.builders import fresh_view, python_node


def bare(**fields: Any) -> Automation:
    nodes = [{"node_id": "a", "agent_id": "x"}]
    return Automation.model_validate(
        {"automation_id": "auto", "agents": [{"agent_id": "x"}], "flow": {"nodes": nodes}} | fields
    )


def row(**more: Any) -> StoredAutomation:
    made = StoredAutomation(
        tenant=LOCAL_TENANT,
        automation_id=AutomationId("auto"),
        name="auto",
        status=AutomationStatus.DRAFT,
        version=3,
        definition_digest=DefinitionDigest("sha256:1"),
        creator_id="ann",
        created_at_ms=1,
        updated_at_ms=2,
        last_change_id=ChangeId("c"),
    )
    return msgspec.structs.replace(made, **more)


def test_a_silent_document_is_emitted_with_all_that_the_contract_always_has() -> None:
    spec = spec_record(bare())

    assert spec["execution"] == {"max_parallel_agents": 16}
    assert spec["schedule"] == {
        "type": "manual",
        "timezone": "UTC",
        "misfire_policy": {"type": "skip"},
    }
    assert spec["knowledge"] == spec["flow"]["nodes"][0]["knowledge"]
    assert spec["knowledge"]["reuse_mode"] == "preflight"
    assert (spec["output_targets"], spec["creator_id"]) == ([], "unknown")
    agent = spec["agents"][0]
    assert agent["tool_policy"] == {"allowlist": [], "denylist": []}
    assert agent["mcp_policy"] == {"allowed_servers": [], "allowed_connections": []}
    assert (agent["display_name"], agent["skills"]) == ("x", [])
    node = spec["flow"]["nodes"][0]
    assert (node["depends_on"], node["input_refs"]) == ([], [])
    assert not spec.keys() & {"watch_conditions", "next_fire_at_ms", "description", "metadata"}


def test_what_the_document_says_stays() -> None:
    watch = {"kind": "handoff_available", "artifact_type": "report"}
    given = bare(
        execution={"max_parallel_agents": 2, "profile": "yolo"},
        creator_id="eve",
        knowledge={"enabled": False},
        next_fire_at_ms=9,
        watch_conditions=[watch],
    )

    spec = spec_record(given)

    assert spec["execution"] == {"max_parallel_agents": 2, "profile": "yolo"}
    assert (spec["knowledge"]["enabled"], spec["next_fire_at_ms"]) == (False, 9)
    assert (spec["creator_id"], spec["watch_conditions"]) == ("eve", [watch])


def test_the_row_says_what_changes_without_a_version() -> None:
    record = automation_record(spec_record(bare(creator_id="eve")), row())
    assert (record["status"], record["created_at_ms"], record["updated_at_ms"]) == ("draft", 1, 2)
    assert (record["creator_id"], record["version"]) == ("ann", 3)
    assert not record.keys() & {"pause_reason", "metadata"}

    held = automation_record(
        spec_record(bare(creator_id="eve")),
        row(creator_id="", pause_reason="why", paused_by="bob", paused_at_ms=5),
    )

    assert (held["pause_reason"], held["paused_by"], held["paused_at_ms"]) == ("why", "bob", 5)
    assert held["creator_id"] == "eve"


def test_no_document_chooses_its_tenant() -> None:
    claimed = bare(metadata={"tenant_context": {"org_id": "theirs"}, "k": 1})
    mine = {"org_id": "o", "workspace_id": "w", "source": "explicit"}
    stored = row(tenant=TenantId("o/w"))

    assert automation_record(spec_record(claimed), stored)["metadata"] == {
        "tenant_context": mine,
        "k": 1,
    }
    assert automation_record(spec_record(bare()), stored)["metadata"] == {"tenant_context": mine}
    local = automation_record(spec_record(claimed), row())["metadata"]["tenant_context"]
    assert local["source"] == "local_implicit"
    assert automation_record(spec_record(bare(metadata={"k": 1})), row())["metadata"] == {"k": 1}
    assert automation_record(spec_record(bare(metadata="text")), stored)["metadata"] == "text"


def test_the_summary_counts_and_keeps_nulls() -> None:
    record = automation_record(spec_record(bare()), row())

    summary = automation_summary(record)

    assert (summary["agent_count"], summary["node_count"]) == (1, 1)
    assert summary["description"] is None
    assert summary["next_fire_at_ms"] is None
    assert not summary.keys() & {"flow", "agents", "knowledge"}


def test_the_snapshot_has_the_profile_that_counts() -> None:
    view = fresh_view(python_node("a"), profile="yolo")
    spec = spec_record(view.plan.automation)

    snapshot = snapshot_record(spec, view.run)

    assert snapshot["execution"]["profile"] == "yolo"
    assert snapshot["flow"] == spec["flow"]
