"""Stored runs of the original engine, told as ours. All data is made up."""

from typing import Any

import pytest

from tandem.domain.command import Adopt, Pause, ProcessesEnded
from tandem.domain.errors import Refused
from tandem.domain.ids import LOCAL_TENANT, ChangeId, EngineId
from tandem.domain.importing import IMPORTED_LIVE, next_to_rest
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind, next_run_state
from tandem.domain.original import (
    ATTEMPTS_MAX,
    MOMENT_MAX_MS,
    OriginalRun,
    Told,
    automation_of,
    rank,
    read_entry,
    tell,
    tell_corrupt,
)
from tandem.domain.run import NodeRun
from tandem.testing.tale import Tale

CHANGE = ChangeId("c1")
SNAPSHOT: dict[str, Any] = {
    "automation_id": "weekly",
    "name": "Weekly report",
    "status": "active",
    "agents": [{"agent_id": "writer", "mystery": 1}],
    "flow": {
        "nodes": [
            {"node_id": "collect", "agent_id": "writer", "objective": "Collect."},
            {"node_id": "write", "agent_id": "writer", "depends_on": ["collect"], "unheard_of": {}},
            {"node_id": "send", "agent_id": "writer", "depends_on": ["write"]},
        ]
    },
    "workspace_root": "/srv/reports",
    "brand_new": True,
}


def record(event: str, at_ms: int, **metadata: Any) -> dict[str, Any]:
    return {"event": event, "recorded_at_ms": at_ms, "metadata": metadata}


def stored(**changes: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "run_id": "automation-v2-run-77",
        "automation_id": "weekly",
        "tenant_context": {"org_id": "local", "workspace_id": "local"},
        "trigger_type": "scheduled",
        "status": "failed",
        "created_at_ms": 1_000,
        "updated_at_ms": 9_000,
        "started_at_ms": 2_000,
        "finished_at_ms": 8_000,
        "checkpoint": {
            "completed_nodes": ["collect"],
            "pending_nodes": [],
            "blocked_nodes": ["send"],
            "node_outputs": {"collect": {"status": "completed", "content": {"n": 3}}, "write": {}},
            "node_attempts": {"collect": 2, "write": 3},
            "lifecycle_history": [
                {
                    "event": "node_started",
                    "recorded_at_ms": 2_500,
                    "metadata": {"node_id": "collect"},
                },
                {"event": "something_unknown", "recorded_at_ms": 2_600},
                {
                    "event": "node_completed",
                    "recorded_at_ms": 3_000,
                    "metadata": {"node_id": "collect"},
                },
            ],
            "last_failure": {"node_id": "write", "reason": "it broke", "failed_at_ms": 7_000},
        },
        "automation_snapshot": SNAPSHOT,
        "execution_claim_epoch": 4,
        "detail": "automation run failed from node outcomes: write",
        "total_tokens": 12_345,
    }
    return {**entry, **changes}


def told(**changes: Any) -> Told:
    found = read_entry("k", stored(**changes))
    assert isinstance(found, OriginalRun)
    return tell(found, tenant=LOCAL_TENANT, change_id=CHANGE)


def states(result: Told) -> dict[str, NodeRun]:
    found = OriginalRun(
        run_id="", automation_id="weekly", trigger_type="", status=RunState.FAILED,
        created_at_ms=0, updated_at_ms=0, automation_snapshot=SNAPSHOT,
    )  # fmt: skip
    names = [node.node_id for node in automation_of(found).nodes]
    return {names[node.node_no]: node for node in result.change.nodes}


def replayed(result: Told) -> RunState:
    state = next_run_state(RunState.QUEUED, RunEvent.RUN_CREATED)
    for event in result.change.events:
        state = next_run_state(state, event.event)
    return state


def test_failed_run_becomes_history() -> None:
    result = told()
    run, nodes = result.change.run, states(result)
    assert (run.status, replayed(result)) == (RunState.FAILED, RunState.FAILED)
    assert (run.created_at_ms, run.started_at_ms, run.finished_at_ms) == (1_000, 2_000, 8_000)
    assert (run.updated_at_ms, run.epoch, run.nodes_completed) == (9_000, 4, 1)
    assert run.workspace == "/srv/reports"
    assert run.detail == "automation run failed from node outcomes: write"
    assert run.last_failure is not None
    assert run.last_failure.node_id == "write"
    assert nodes["collect"].state is NodeState.COMPLETED
    assert (nodes["collect"].attempts, nodes["collect"].started_at_ms) == (2, 2_500)
    assert nodes["collect"].finished_at_ms == 3_000
    assert b'"n":3' in (nodes["collect"].output or b"")
    assert (nodes["write"].state, nodes["write"].attempts) == (NodeState.FAILED, 3)
    assert nodes["send"].state is NodeState.BLOCKED


@pytest.mark.parametrize(
    ("status", "stop_kind"),
    [
        ("completed", None),
        ("blocked", None),
        ("cancelled", "operator_stopped"),
        ("failed", "panic"),
    ],
)
def test_every_end_is_told(status: str, stop_kind: str | None) -> None:
    result = told(status=status, stop_kind=stop_kind, stop_reason="because")
    assert replayed(result).value == status
    assert result.change.run.stop_kind == stop_kind
    never_started = told(
        status=status, started_at_ms=None, finished_at_ms=None, checkpoint={}, detail=None
    )
    assert replayed(never_started).value == status
    assert never_started.change.run.finished_at_ms == 9_000


def test_blocked_node_with_attempts_is_told_as_such() -> None:
    checkpoint = {"blocked_nodes": ["write"], "node_attempts": {"write": 1}}
    nodes = states(told(status="blocked", checkpoint=checkpoint))
    assert (nodes["write"].state, nodes["write"].attempts) == (NodeState.BLOCKED, 1)


@pytest.mark.parametrize("status", ["queued", "running", "pausing", "paused", "awaiting_approval"])
def test_run_that_was_alive_rests(status: str) -> None:
    result = told(status=status, finished_at_ms=None)
    run = result.change.run
    assert (run.status, replayed(result)) == (RunState.PAUSED, RunState.PAUSED)
    assert f"it was {status} elsewhere" in run.pause_reason
    assert run.due_at_ms is None
    nodes = states(result)
    assert (nodes["write"].state, nodes["write"].attempts) == (NodeState.PENDING, 3)
    assert "send" not in nodes
    queued = told(status="queued", started_at_ms=None, finished_at_ms=None, checkpoint={})
    assert replayed(queued) is RunState.PAUSED


def test_what_keeps_a_run_from_going_on_is_said() -> None:
    found = read_entry("k", stored(status="running"))
    assert isinstance(found, OriginalRun)
    result = tell(found, tenant=LOCAL_TENANT, change_id=CHANGE, obstacles="it needs agents")
    assert "cannot run here: it needs agents" in result.change.run.pause_reason


@pytest.mark.parametrize(
    "snapshot",
    [
        None,
        {"flow": {"nodes": "none"}},
        {"flow": {"nodes": [{"node_id": "a", "depends_on": ["b"]}]}},
    ],
)
def test_run_without_a_readable_snapshot_gets_its_nodes_from_the_checkpoint(
    snapshot: dict[str, Any] | None,
) -> None:
    found = read_entry("k", stored(automation_snapshot=snapshot))
    assert isinstance(found, OriginalRun)
    assert {node.node_id for node in automation_of(found).nodes} == {"collect", "send", "write"}
    assert replayed(told(automation_snapshot=snapshot)) is RunState.FAILED


def test_unknown_keys_of_a_variant_are_left_out() -> None:
    wait = {"kind": "timer", "delay_ms": 5, "phase_of_moon": None}
    found = read_entry(
        "k", stored(automation_snapshot={"flow": {"nodes": [{"node_id": "w", "wait": wait}]}})
    )
    assert isinstance(found, OriginalRun)
    assert [node.node_id for node in automation_of(found).nodes] == ["w"]


def test_keys_that_nobody_knows_do_not_cost_the_snapshot() -> None:
    found = read_entry("k", stored())
    assert isinstance(found, OriginalRun)
    automation = automation_of(found)
    assert automation.name == "Weekly report"
    assert automation.nodes[1].depends_on == ("collect",)


def test_entry_that_cannot_be_read_is_blocked_with_the_reason() -> None:
    entry = stored(status="sideways")
    why = read_entry("k", entry)
    assert isinstance(why, str)
    result = tell_corrupt("k", entry, why, tenant=LOCAL_TENANT, change_id=CHANGE)
    run = result.change.run
    assert (run.status, replayed(result)) == (RunState.BLOCKED, RunState.BLOCKED)
    assert result.change.events[-1].event is RunEvent.RUN_BLOCKED_CORRUPT
    assert run.detail.startswith("automation run checkpoint could not be parsed during startup: ")
    assert run.last_failure is not None
    assert run.last_failure.node_id == "checkpoint"
    assert run.last_failure.failure_kind == "checkpoint_recovery_failed"
    assert run.trigger_type == "scheduled"
    bare = tell_corrupt("k", {"automation_id": "a"}, "x", tenant=LOCAL_TENANT, change_id=CHANGE)
    assert (bare.change.run.run_id, bare.change.run.trigger_type) == ("k", "recovered")


@pytest.mark.parametrize(
    "changes",
    [
        {"created_at_ms": -1},
        {"updated_at_ms": MOMENT_MAX_MS + 1},
        {"updated_at_ms": 10**30},
        {"started_at_ms": True},
        {"execution_claim_epoch": 2**64},
        {"checkpoint": {"node_attempts": {"collect": ATTEMPTS_MAX + 1}}},
        {"checkpoint": {"lifecycle_history": [{"event": "e", "recorded_at_ms": 2**63}]}},
        {"run_id": "../../elsewhere"},
        {"run_id": "two\nlines"},
    ],
)
def test_values_that_no_row_can_hold_make_one_blocked_run(changes: dict[str, Any]) -> None:
    entry = stored(**changes)
    why = read_entry("k", entry)
    assert isinstance(why, str)
    run = tell_corrupt("k", entry, why, tenant=LOCAL_TENANT, change_id=CHANGE).change.run
    assert run.status is RunState.BLOCKED
    assert why in run.detail
    for moment in (run.created_at_ms, run.updated_at_ms, run.finished_at_ms):
        assert type(moment) is int
        assert 0 <= moment <= MOMENT_MAX_MS


def test_run_whose_id_is_none_gets_the_same_one_every_time() -> None:
    def name(run_id: str, **changes: Any) -> str:
        entry = stored(run_id=run_id, **changes)
        told = tell_corrupt("k", entry, "why", tenant=LOCAL_TENANT, change_id=CHANGE)
        return told.run.run_id

    assert name("../a") == name("../a")
    assert name("../a").startswith("___a-")
    assert name("../a") != name("../a", updated_at_ms=5)
    assert len(name("/" * 500)) == len(name("/" * 600)) == 128


def test_copy_that_says_most_is_believed() -> None:
    newer = stored(updated_at_ms=9_001, checkpoint={}, automation_snapshot=None)
    fewer = stored(checkpoint={**stored()["checkpoint"], "node_outputs": {}})
    bare = stored(automation_snapshot=None)
    unreadable = stored(status="sideways", updated_at_ms=10_000)
    order = [7, unreadable, fewer, bare, stored(), newer]
    assert sorted(order, key=rank) == order
    assert len({rank(entry) for entry in order}) == len(order)


@pytest.mark.parametrize("entry", [7, {}, {"automation_id": ""}])
def test_entry_without_an_automation_is_refused(entry: Any) -> None:
    with pytest.raises(Refused, match="no `automation_id`"):
        read_entry("k", entry)


def test_run_at_rest_needs_no_command() -> None:
    run = told().change.run
    assert next_to_rest(run) is None
    assert next_to_rest(told(status="running").change.run) is None


def test_processes_of_elsewhere_are_no_business_here() -> None:
    run = told().change.run
    run.cleanup = EngineId("there")
    assert next_to_rest(run) == ProcessesEnded(engine_id=EngineId("there"))


def test_run_that_was_driven_elsewhere_is_taken_out_of_its_hands_and_held() -> None:
    tale = Tale({"node_id": "a"}).claim()
    commands = []
    while (command := next_to_rest(tale.run)) is not None:
        commands.append(type(command))
        tale.command(command)
    assert commands == [Adopt, Pause]
    assert (tale.status, tale.node("a").state) == (RunState.PAUSED, NodeState.PENDING)
    assert "alive elsewhere" in tale.run.pause_reason


def test_run_that_would_go_on_by_itself_is_held() -> None:
    run = told(status="running").change.run
    run.stop_kind = StopKind.STALE_REAPED
    assert next_to_rest(run) == Pause(reason=IMPORTED_LIVE)
    run.cleanup = EngineId("there")
    assert next_to_rest(run) == ProcessesEnded(engine_id=EngineId("there"))


def test_run_needs_its_workspace_to_itself() -> None:
    found = read_entry("k", stored(status="paused"))
    assert isinstance(found, OriginalRun)
    result = tell(found, tenant=LOCAL_TENANT, change_id=CHANGE, real_path="/work")
    assert result.run.lock_path == result.change.run.lock_path == "/work"


def test_key_that_cannot_be_read_is_left_out() -> None:
    shared = {**SNAPSHOT, "concurrency": {"key": "${inputs.city}", "limit": 1}}
    assert told(automation_snapshot=shared).run.concurrency_key == ""
