"""Every transition has a word and is published, the successes too."""

from typing import Any

import msgspec
import pytest

from tandem.domain.engine_event import WIRE_BYTES_MAX, deletion_event, engine_events, wire_event
from tandem.domain.ids import ChangeId, NodeId
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.run import Failure, LifecycleEvent
from tandem.domain.trigger import TriggerType
from tandem.domain.vocabulary import WORDS
from tandem.testing.builders import fresh_view, python_node


def _record(event: RunEvent, **more: object) -> LifecycleEvent:
    record = LifecycleEvent(seq=7, event=event, recorded_at_ms=1_000, change_id=ChangeId("c"))
    return msgspec.structs.replace(record, **more)


def test_every_event_has_its_word() -> None:
    assert set(WORDS) == set(RunEvent)
    assert all(word.meaning.endswith(".") for word in WORDS.values())


@pytest.mark.parametrize("event", RunEvent)
def test_every_event_is_published_where_clients_look(event: RunEvent) -> None:
    run = fresh_view(python_node("a")).run
    published = engine_events(run, _record(event, cursor=3))
    assert published[0].type.startswith("automation.v2.")
    assert len({one.event_id for one in published}) == len(published)
    for one in published:
        assert one.properties["runID"] == run.run_id
        assert one.properties["automationID"] == run.automation_id
        assert one.properties["status"] == "queued"
        assert one.cursor == 3
        assert one.occurred_at_ms == 1_000
        assert msgspec.json.decode(msgspec.json.encode(one))["type"] == one.type


def test_a_failure_names_its_node_and_its_reason() -> None:
    run = fresh_view(python_node("a")).run
    run.status = RunState.FAILED
    run.detail = "automation run failed from node outcomes: a"
    run.last_failure = Failure(node_id=NodeId("a"), reason="no such file", failed_at_ms=1)
    run.last_change_id = ChangeId("c")
    first, older = engine_events(run, _record(RunEvent.RUN_FAILED, reason="r"))
    assert (first.type, older.type) == ("automation.v2.run.failed", "automation_v2.run.failed")
    assert first.properties["node_id"] == "a"
    assert first.properties["error"] == "no such file"
    assert first.properties["error_kind"] == "unknown"
    assert first.properties["detail"] == run.detail


def test_metadata_is_carried_and_hides_nothing() -> None:
    run = fresh_view(python_node("a")).run
    record = _record(
        RunEvent.GATE_DECIDED,
        node_id=NodeId("ask"),
        metadata={"decision": "approve", "run_id": "another"},
    )
    properties = engine_events(run, record)[0].properties
    assert properties["decision"] == "approve"
    assert properties["run_id"] == run.run_id
    assert properties["nodeID"] == "ask"


def test_creation_says_what_started_the_run() -> None:
    run = fresh_view(python_node("a")).run
    (created,) = engine_events(run, _record(RunEvent.RUN_CREATED))
    assert created.type == "automation.v2.run.created"
    assert created.properties["triggerType"] == "manual"
    assert created.properties["dryRun"] is False
    assert "triggerReason" not in created.properties
    told = created.properties["run"]
    assert isinstance(told, dict)
    assert (told["run_id"], told["status"]) == (run.run_id, "queued")


def test_creation_by_a_delivery_names_it_and_is_told_as_one() -> None:
    run = fresh_view(python_node("a")).run
    told = {"delivery_id": "d-1", "trigger_id": "whtr_1", "provider": "github"}
    created, delivery = engine_events(run, _record(RunEvent.RUN_CREATED, metadata=told))
    assert created.type == "automation.v2.run.created"
    assert delivery.type == "automation.v2.webhook.delivery"
    assert delivery.event_id == f"{created.event_id}:1"
    for event in (created, delivery):
        properties = event.properties
        assert (properties["deliveryID"], properties["triggerID"]) == ("d-1", "whtr_1")
        assert (properties["provider"], properties["deliveryStatus"]) == ("github", "accepted")
        assert properties["runID"] == run.run_id


def test_creation_of_a_dry_run_names_the_trigger_that_the_real_one_would_have() -> None:
    run = fresh_view(python_node("a")).run
    run.trigger_type, run.trigger_reason = "webhook_dry_run", "a push"
    (created,) = engine_events(run, _record(RunEvent.RUN_CREATED))
    assert created.properties["triggerType"] == "webhook"
    assert created.properties["dryRun"] is True
    assert created.properties["triggerReason"] == "a push"


def test_an_event_tells_nothing_that_came_after_it() -> None:
    run = fresh_view(python_node("a")).run
    run.status = RunState.RUNNING
    run.detail = "what it does now"
    run.last_failure = Failure(node_id=NodeId("b"), reason="later", failed_at_ms=1_001)
    told = engine_events(run, _record(RunEvent.RUN_FAILED), status=RunState.FAILED)[0].properties
    assert told["status"] == "failed"
    assert "detail" not in told
    assert "error" not in told


def _wire(event: RunEvent, **more: object) -> dict[str, Any]:
    run = fresh_view(python_node("a")).run
    content = wire_event(engine_events(run, _record(event, **more))[0])
    assert len(content) <= WIRE_BYTES_MAX
    told: dict[str, Any] = msgspec.json.decode(content)
    return told


def test_on_the_wire_an_event_has_the_shape_that_clients_check() -> None:
    told = _wire(RunEvent.NODE_STARTED, node_id=NodeId("a"), attempt=1)
    assert told["type"] == "automation.v2.node.started"
    assert told["runID"] == told["properties"]["runID"]
    assert "timestamp" not in told
    envelope = told["envelope"]
    assert envelope == {
        "event_id": f"{told['runID']}:7",
        "seq": 7,
        "schema_version": 1,
        "occurred_at_ms": 1_000,
        "run_id": told["runID"],
        "node_id": "a",
        "tenant_context": told["properties"]["tenantContext"],
    }
    assert "node_id" not in _wire(RunEvent.RUN_COMPLETED)["envelope"]


def test_a_large_event_is_whole_json_with_references() -> None:
    metadata = {"list": ["x" * 50_000, "y" * 50_000], "text": "z" * 90_000, "small": [1]}
    told = _wire(RunEvent.RUN_COMPLETED, metadata=metadata)
    properties = told["properties"]
    assert properties["list"]["omitted"] is True
    assert properties["list"]["size_bytes"] > 100_000
    assert properties["list"]["see"].endswith(told["runID"])
    assert properties["text"].startswith("zzz")
    assert properties["text"].endswith("…")
    assert properties["small"] == [1]
    assert properties["runID"] == told["runID"]


def test_a_large_event_of_many_members_gives_up_as_many_as_it_has_to() -> None:
    metadata = {f"key-{number}": "ab" * 400 for number in range(200)}
    properties = _wire(RunEvent.RUN_COMPLETED, metadata=metadata)["properties"]
    kept = [properties[name] == value for name, value in metadata.items()]
    assert 0 < sum(kept) < len(kept)


def test_of_a_large_event_nothing_is_given_up_that_is_small() -> None:
    metadata = {f"key-{number}": "ab" * 50 for number in range(1_000)}
    run = fresh_view(python_node("a")).run
    content = wire_event(engine_events(run, _record(RunEvent.RUN_COMPLETED, metadata=metadata))[0])
    assert msgspec.json.decode(content)["properties"].items() >= metadata.items()


@pytest.mark.parametrize(
    "trigger", [TriggerType.SCHEDULED, TriggerType.WATCH_CONDITION, TriggerType.WEBHOOK, "fork"]
)
def test_the_creation_of_every_run_is_told_with_its_id_and_its_trigger(trigger: str) -> None:
    run = fresh_view(python_node("a")).run
    run.trigger_type = trigger
    (created,) = engine_events(run, _record(RunEvent.RUN_CREATED))
    assert created.type == "automation.v2.run.created"
    assert created.properties["runID"] == run.run_id
    assert created.properties["triggerType"] == trigger
    assert "deliveryID" not in created.properties


def test_the_deletion_of_a_run_is_told_as_an_event_behind_its_last_one() -> None:
    run = fresh_view(python_node("a")).run
    run.event_seq = 7
    event = deletion_event(run, seen_at_ms=5)
    told = msgspec.json.decode(wire_event(event))
    assert told["type"] == "automation.v2.run.deleted"
    assert told["properties"]["automationID"] == run.automation_id
    assert (told["runID"], told["properties"]["status"]) == (run.run_id, "queued")
    assert told["envelope"]["event_id"] == f"{run.run_id}:deleted"
    assert (told["envelope"]["seq"], told["envelope"]["occurred_at_ms"]) == (8, 5)
