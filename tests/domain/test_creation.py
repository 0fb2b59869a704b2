"""What a run takes with it when it is created."""

from typing import Any

import pytest

from tandem.domain.automation import Automation
from tandem.domain.creation import NewRun, create, effective_profile
from tandem.domain.definition_version import VERSION_KEYS, definition_version
from tandem.domain.execution import ExecutionProfile
from tandem.domain.graph import Plan
from tandem.domain.ids import LOCAL_TENANT, ChangeId, DefinitionDigest, EngineId, RunId
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.trigger import TriggerType, is_dry_run
from tandem.domain.workspace_root import declared_workspace
from tandem.testing.builders import python_node

DIGEST = DefinitionDigest("sha256:0123456789abcdef0123456789abcdef")
P = ExecutionProfile


def automation(**fields: Any) -> Automation:
    return Automation.model_validate(
        {"automation_id": "job", "flow": {"nodes": [python_node("a")]}, **fields}
    )


def new_run(**more: Any) -> NewRun:
    return NewRun(
        run_id=RunId("r"),
        tenant=LOCAL_TENANT,
        change_id=ChangeId("c"),
        plan=Plan(automation(), DIGEST),
        document=b"{}",
        inputs={"x": 1},
        workspace="/w",
        **more,
    )


@pytest.mark.parametrize(
    ("metadata", "version"),
    [
        (None, "automation:job@0123456789abcdef"),
        ({"version": "7"}, "7"),
        ({"version": 3}, "3"),
        ({"version": True}, "automation:job@0123456789abcdef"),
        ({"definition_version": "  ", "source_pack_version": "2.1"}, "2.1"),
        ({"automation_version": "b", "workflow_definition_version": "a"}, "a"),
        (
            {"plan_package_bundle": {"plan": {"plan_id": "p", "plan_revision": 4}}},
            "plan:p:rev:4",
        ),
        ({"approved_plan_materialization": {"plan_id": "q", "plan_revision": 2}}, "plan:q:rev:2"),
        ({"plan_package_bundle": {"plan": {"plan_id": "p"}}}, "automation:job@0123456789abcdef"),
        (["no object"], "automation:job@0123456789abcdef"),
    ],
)
def test_the_version_is_named_by_metadata_plan_or_content(metadata: Any, version: str) -> None:
    assert definition_version(automation(metadata=metadata), DIGEST) == version


def test_the_keys_of_versions_are_asked_in_order() -> None:
    for place, key in enumerate(VERSION_KEYS):
        rest = dict.fromkeys(VERSION_KEYS[place:], "later")
        assert definition_version(automation(metadata={**rest, key: "this"}), DIGEST) == "this"


@pytest.mark.parametrize(
    ("fields", "workspace"),
    [
        ({}, ""),
        ({"workspace_root": " /a "}, "/a"),
        ({"workspace_root": "/a", "metadata": {"workspace_root": "/b"}}, "/a"),
        ({"workspace_root": "  ", "metadata": {"workspace_root": "/b "}}, "/b "),
        ({"metadata": {"workspace_root": 7}}, ""),
    ],
)
def test_the_workspace_is_that_of_the_field_else_of_the_metadata(
    fields: dict[str, Any], workspace: str
) -> None:
    assert declared_workspace(automation(**fields)) == workspace


@pytest.mark.parametrize(
    ("requested", "policy", "expected"),
    [
        (P.YOLO, P.STRICT, P.YOLO),
        (None, P.STRICT, P.STRICT),
        (None, None, P.GUIDED),
    ],
)
def test_the_profile_is_the_requested_the_policys_or_the_default(
    requested: P | None, policy: P | None, expected: P
) -> None:
    plan = Plan(automation(execution={"profile": policy} if policy else None), DIGEST)
    assert effective_profile(plan.automation, requested, P.GUIDED) is expected
    assert effective_profile(automation(execution={}), None, P.YOLO) is P.YOLO


def test_a_run_is_born_queued_and_due() -> None:
    run, events = create(
        new_run(
            owner=EngineId("e"),
            trigger_reason="asked",
            requested_profile=P.YOLO,
            effective_profile=P.YOLO,
            runtime_context={"routines": []},
            automation_version=4,
        ),
        now_ms=9,
    )
    assert [event.event for event in events] == [RunEvent.RUN_CREATED]
    assert (run.status, run.due_at_ms, run.event_seq, run.owner) == (RunState.QUEUED, 9, 1, "e")
    assert (run.trigger_type, run.trigger_reason) == ("manual", "asked")
    assert (run.requested_execution_profile, run.effective_execution_profile) == (P.YOLO, P.YOLO)
    assert (run.definition_version, run.automation_version) == (
        "automation:job@0123456789abcdef",
        4,
    )
    assert run.runtime_context == {"routines": []}
    assert run.nodes_total == 1


def test_a_dry_run_is_completed_at_once() -> None:
    run, events = create(
        new_run(is_dry=True, owner=EngineId("e"), trigger_type=TriggerType.SCHEDULED), now_ms=9
    )
    assert [event.event for event in events] == [RunEvent.RUN_CREATED, RunEvent.RUN_COMPLETED_DRY]
    assert (run.status, run.detail, run.due_at_ms) == (RunState.COMPLETED, "dry_run", None)
    assert (run.started_at_ms, run.finished_at_ms, run.event_seq) == (9, 9, 2)
    assert run.trigger_type == "scheduled_dry_run"
    assert is_dry_run(run.trigger_type)
    assert (run.nodes_total, run.owner) == (0, None)


def test_the_triggers_of_the_contract_are_known() -> None:
    assert {trigger.value for trigger in TriggerType} == {
        "manual",
        "scheduled",
        "webhook",
        "watch_condition",
        "incident_monitor_triage",
        "optimization_candidate_eval",
        "optimization_baseline_replay",
        "workflow",
        "recovered_context_run",
        "recovered",
    }


def test_the_first_event_names_the_delivery_that_started_the_run_and_no_payload() -> None:
    told = {"delivery_id": "d-1", "trigger_id": "whtr_1", "provider": "github"}
    context = {"automation_webhook": {**told, "payload_preview": {"title": "x"}}}
    _, (created,) = create(new_run(trigger_context=context), now_ms=1)
    assert created.metadata == told
    for other in (None, {}, {"else": {"delivery_id": "d-1"}}):
        _, (created,) = create(new_run(trigger_context=other), now_ms=1)
        assert created.metadata == {}
