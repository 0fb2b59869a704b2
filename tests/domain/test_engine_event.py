"""Every transition has a word and is published, the successes too."""

import msgspec
import pytest

from tandem.domain.engine_event import engine_events
from tandem.domain.ids import ChangeId, NodeId
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.run import Failure, LifecycleEvent
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
