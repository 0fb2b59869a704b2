"""The record of a run as the wire contract shows it, and what lists and older clients see of it."""

from typing import Any

import msgspec
import pytest
from tests.domain.pictured import picture_of, record_of

from tandem.domain.candidate import LearningSummary
from tandem.domain.command import Cancel, DecideGate, Pause, Recover, Wake
from tandem.domain.execution import ExecutionProfile
from tandem.domain.ids import AutomationId, ChangeId, EngineId, GateId, NodeId, RunId, TenantId
from tandem.domain.lifecycle import RunEvent, RunState, StopKind
from tandem.domain.run import LifecycleEvent, QueueReason, Run
from tandem.domain.run_record import (
    compat_view,
    last_activity_at_ms,
    run_record,
    summary_record,
    usage_of,
)
from tandem.domain.session import RunSessions
from tandem.testing.builders import condition_node, fresh_view, gate_node, python_node
from tandem.testing.tale import Tale

ALWAYS = {
    "run_id",
    "automation_id",
    "tenant_context",
    "trigger_type",
    "status",
    "created_at_ms",
    "updated_at_ms",
    "active_session_ids",
    "active_instance_ids",
    "checkpoint",
    "automation_snapshot",
    "workflow_definition_snapshot_hash",
    "execution_claim_epoch",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "estimated_cost_usd",
    "effective_execution_profile",
    "contextRunID",
    "linked_context_run_id",
    "blockedNodeIDs",
    "last_activity_at_ms",
    "lastActivityAtMs",
    "needsRepairNodeIDs",
    "nodeRepairGuidance",
    "nodeAttemptEvidence",
}
SOMETIMES = {
    "started_at_ms",
    "finished_at_ms",
    "latest_session_id",
    "runtime_context",
    "workflow_definition_version",
    "execution_claim",
    "pause_reason",
    "resume_reason",
    "detail",
    "stop_kind",
    "stop_reason",
    "scheduler",
    "trigger_reason",
    "learning_summary",
    "requested_execution_profile",
    "stored_status",
    "storedStatus",
    "statusDerivedNote",
}
CHECKPOINT = {
    "completed_nodes",
    "pending_nodes",
    "node_outputs",
    "node_attempts",
    "node_attempt_verdicts",
    "blocked_nodes",
    "gate_history",
    "lifecycle_history",
}


def test_a_new_run_has_what_the_contract_always_has_and_nothing_that_is_absent() -> None:
    record = record_of(Tale(python_node("a")))

    assert record.keys() >= ALWAYS
    assert record.keys() & SOMETIMES == {"scheduler"}
    assert record["checkpoint"].keys() == CHECKPOINT
    assert record["contextRunID"] == record["linked_context_run_id"] == "automation-v2-run"
    assert record["checkpoint"]["pending_nodes"] == ["a"]
    assert record["scheduler"] == {
        "tenant_context": record["tenant_context"],
        "queue_reason": None,
        "queued_at_ms": 0,
    }
    assert record["automation_snapshot"]["execution"]["profile"] == "guided"
    assert msgspec.json.decode(msgspec.json.encode(record)) == record


def test_everything_that_a_row_may_say_is_said() -> None:
    tale = Tale(python_node("a"))
    run = tale.view.run
    run.tenant = TenantId("o/w/d")
    run.started_by = "ann"
    run.trigger_reason = "since"
    run.requested_execution_profile = ExecutionProfile.YOLO
    run.effective_execution_profile = ExecutionProfile.YOLO
    run.definition_version = "v1"
    run.runtime_context = {"routines": []}
    run.learning_summary = LearningSummary(generated_candidate_ids=("c",))
    run.inputs = {"x": 1}
    run.forked_from, run.forked_from_node = RunId("source"), NodeId("a")
    tale.claim()
    tale.command(Cancel(reason="enough"))

    record = record_of(tale)

    assert record["tenant_context"] == {
        "org_id": "o",
        "workspace_id": "w",
        "deployment_id": "d",
        "actor_id": "ann",
        "source": "explicit",
    }
    expected = {
        "status": "cancelled",
        "stop_kind": "operator_stopped",
        "stop_reason": "enough",
        "detail": "enough",
        "trigger_reason": "since",
        "requested_execution_profile": "yolo",
        "effective_execution_profile": "yolo",
        "workflow_definition_version": "v1",
        "runtime_context": {"routines": []},
        "execution_claim_epoch": 1,
        "started_at_ms": 1_000,
        "finished_at_ms": 1_000,
        "inputs": {"x": 1},
        "forked_from": "source",
        "forked_from_node": "a",
        "started_by": "ann",
    }
    assert {name: record[name] for name in expected} == expected
    assert record["learning_summary"]["generated_candidate_ids"] == ["c"]
    assert not record.keys() & {"scheduler", "execution_claim"}
    assert usage_of(run) == {name: record[name] for name in usage_of(run)}


def test_a_driven_run_shows_its_claim_and_the_lease_of_its_engine() -> None:
    tale = Tale(python_node("a")).claim()
    sessions = RunSessions(
        active_session_ids=("s",), latest_session_id="s", active_instance_ids=("i",)
    )

    record = record_of(tale, lease_until_ms=9_000, sessions=sessions)

    assert record["execution_claim"] == {
        "claim_id": "run-claim-change-1",
        "claimant_id": "engine-1",
        "claimed_at_ms": 1_000,
        "lease_expires_at_ms": 9_000,
        "lease_epoch": 1,
    }
    assert (record["active_session_ids"], record["latest_session_id"]) == (["s"], "s")
    assert record["active_instance_ids"] == ["i"]
    without = msgspec.structs.replace(picture_of(tale), claim=None)
    assert "execution_claim" not in run_record(without, None)


def test_completed_nodes_stand_in_the_order_of_their_completion() -> None:
    tale = Tale(python_node("z", "a"), python_node("a"), python_node("b"), python_node("c"))
    tale.claim().succeed("c")
    tale.now_ms += 1
    tale.succeed("a")
    tale.succeed("z")
    tale.now_ms += 1
    tale.succeed("b")

    checkpoint = record_of(tale)["checkpoint"]

    assert checkpoint["completed_nodes"] == ["c", "a", "z", "b"]
    assert checkpoint["node_attempts"] == {"z": 1, "a": 1, "b": 1, "c": 1}
    assert [v["outcome"] for v in checkpoint["node_attempt_verdicts"]["z"]] == ["succeeded"]


def test_a_node_that_was_reset_has_no_attempts_until_it_runs_again() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1}))
    tale.claim().fail("a")
    assert record_of(tale)["checkpoint"]["node_attempts"] == {"a": 1}

    tale.command(Recover())
    assert record_of(tale)["checkpoint"]["node_attempts"] == {}

    tale.claim()
    assert record_of(tale)["checkpoint"]["node_attempts"] == {"a": 2}


def test_a_run_that_backs_off_says_which_node_is_tried_again_and_when() -> None:
    backoff = {"strategy": "fixed", "initial_delay_ms": 500}
    tale = Tale(python_node("a", retry_policy={"max_attempts": 2, "backoff": backoff}))
    tale.claim().fail("a")

    record = record_of(tale)

    assert record["scheduler"]["queue_reason"] == "retry_backoff"
    retry = {name: v for name, v in record["scheduler"].items() if name.startswith("retry_")}
    assert retry == {
        "retry_node_id": "a",
        "retry_attempt": 2,
        "retry_after_ms": 1_500,
        "retry_backoff_ms": 500,
        "retry_reason": "it broke",
    }
    assert record["needsRepairNodeIDs"] == ["a"]
    bare = msgspec.structs.replace(picture_of(tale), attempts=())
    assert run_record(bare, None)["scheduler"]["retry_node_id"] == "a"
    assert "retry_reason" not in run_record(bare, None)["scheduler"]


def test_a_queued_run_names_what_it_waits_for() -> None:
    tale = Tale(python_node("a"))
    tale.view.run.queue_reason = QueueReason.RATE_LIMIT
    tale.view.run.resource_key = "provider:p"
    tale.view.run.rate_limited_provider = "p"
    scheduler = record_of(tale)["scheduler"]
    assert (scheduler["queue_reason"], scheduler["resource_key"]) == ("rate_limit", "provider:p")
    assert scheduler["rate_limited_provider"] == "p"


def test_a_waiting_run_shows_its_oldest_gate_and_names_the_others() -> None:
    tale = Tale(gate_node("g"), python_node("a"), gate_node("h", "a"), condition_node("w"))
    tale.claim()
    tale.now_ms += 1
    tale.succeed("a")

    record = record_of(tale)
    gate = record["checkpoint"]["awaiting_gate"]

    assert record["status"] == "awaiting_approval"
    assert (gate["node_id"], gate["decisions"]) == ("g", ["approve", "rework", "cancel"])
    assert not gate.keys() & {"instructions", "requested_by"}
    assert gate["expiry_policy"]["expires_after_ms"] == 604_800_000
    assert gate["metadata"]["transition_guard"]["transition_id"] == "automation_v2:run:g:decision"
    assert record["open_gates"] == ["automation_v2:run:g", "automation_v2:run:h"]
    assert [wait["node_id"] for wait in record["open_waits"]] == ["w"]


def test_the_history_of_gates_has_decisions_and_denials_in_order() -> None:
    tale = Tale(gate_node("g")).claim()
    tale.command(DecideGate(decision="approve", gate_id=GateId("other"), decided_by="eve"))
    tale.now_ms += 1
    tale.command(DecideGate(decision="cancel", decided_by="bob", reason="no"))

    denied, decided = record_of(tale)["checkpoint"]["gate_history"]

    assert (denied["decision"], denied["decided_by"]) == ("guard_denied", "eve")
    assert (decided["decision"], decided["reason"]) == ("cancel", "no")
    assert "awaiting_gate" not in record_of(tale)["checkpoint"]


def test_the_history_names_node_attempt_and_what_stopped_the_run() -> None:
    tale = Tale(python_node("a")).claim()
    tale.command(Cancel(reason="enough"))
    history = {r["event"]: r for r in record_of(tale)["checkpoint"]["lifecycle_history"]}
    started = history["node_started"]
    assert (started["metadata"]["node_id"], started["metadata"]["attempt"]) == ("a", 1)
    stopped = history["run_stopped"]
    assert (stopped["reason"], stopped["recorded_at_ms"]) == ("enough", 1_000)
    assert "metadata" in history["run_execution_claimed"]


def test_a_blocked_run_lists_what_is_blocked_and_what_to_do() -> None:
    tale = Tale(
        python_node("b", "a"), python_node("a", retry_policy={"max_attempts": 1}), python_node("c")
    )
    tale.claim().repair("a", unmet=("missing_section",))
    tale.succeed("c")

    record = record_of(tale)

    assert record["status"] == "blocked"
    assert record["blockedNodeIDs"] == record["checkpoint"]["blocked_nodes"] == ["a", "b"]
    failure = record["checkpoint"]["last_failure"]
    assert (failure["node_id"], failure["failure_kind"]) == ("a", "artifact_contract_unmet")
    guidance = record["nodeRepairGuidance"]
    assert guidance.keys() == {"a"}
    assert guidance["a"]["status"] == "blocked"
    assert guidance["a"]["blockingClassification"] == "artifact_contract_unmet"
    assert guidance["a"]["unmetRequirements"] == ["missing_section"]
    assert guidance["a"]["repairAttemptsRemaining"] == 0
    assert len(guidance["a"]) == 18
    assert record["nodeAttemptEvidence"]["a"]["outcome"] == "needs_repair"


def test_a_node_that_may_be_repaired_has_no_classification_yet() -> None:
    tale = Tale(python_node("a"))
    tale.claim().repair("a")
    guidance = record_of(tale)["nodeRepairGuidance"]["a"]
    assert (guidance["failureKind"], guidance["blockingClassification"]) == (None, None)
    assert (guidance["status"], guidance["repairAttempt"]) == ("needs_repair", 1)
    assert record_of(tale)["nodeAttemptEvidence"]["a"]["outcome"] == "running"
    assert len(record_of(tale)["checkpoint"]["node_attempt_verdicts"]["a"]) == 1


def test_a_dry_run_has_no_pending_nodes() -> None:
    tale = Tale(python_node("a"))
    tale.view.run.trigger_type = "manual_dry_run"
    assert record_of(tale)["checkpoint"]["pending_nodes"] == []


def test_a_run_whose_definition_is_gone_still_has_a_record() -> None:
    view = fresh_view()
    picture = msgspec.structs.replace(picture_of(Tale()), view=view, is_readable=False)
    record = run_record(picture, None)
    assert record["checkpoint"]["blocked_nodes"] == record["blockedNodeIDs"] == ["checkpoint"]
    assert "automation_snapshot" not in record


def happened(event: RunEvent, at_ms: int) -> LifecycleEvent:
    return LifecycleEvent(seq=1, event=event, recorded_at_ms=at_ms, change_id=ChangeId("c"))


def test_activity_is_the_newest_event_that_is_no_claim_or_a_sign_of_life() -> None:
    run = fresh_view().run
    claimed = happened(RunEvent.RUN_CLAIMED, 9)
    expired = happened(RunEvent.RUN_CLAIM_EXPIRED, 10)
    assert last_activity_at_ms(run, [happened(RunEvent.NODE_STARTED, 5), claimed, expired]) == 5
    run.created_at_ms = 2
    assert last_activity_at_ms(run, [claimed]) == 2
    run.started_at_ms = 3
    assert last_activity_at_ms(run, [claimed]) == 3
    run.activity_at_ms = 20
    assert last_activity_at_ms(run, [claimed]) == 20


def test_a_summary_is_what_the_row_says() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1}))
    queued = summary_record(tale.run)
    assert (queued["view"], queued["checkpoint"]) == ("summary", {})
    assert queued["scheduler"]["queue_reason"] is None
    tale.claim().fail("a")
    tale.view.run.activity_at_ms = 5_000

    failed = summary_record(tale.run)

    assert failed["checkpoint"]["last_failure"]["node_id"] == "a"
    assert "metadata" not in failed["checkpoint"]["last_failure"]
    assert failed["last_activity_at_ms"] == failed["lastActivityAtMs"] == 5_000
    assert (failed["nodes_total"], failed["contextRunID"]) == (1, "automation-v2-run")
    whole = record_of(tale)
    own = {"view", "checkpoint", "last_activity_at_ms", "lastActivityAtMs"}
    assert all(whole[name] == value for name, value in failed.items() if name not in own)


@pytest.mark.parametrize("status", RunState)
def test_older_clients_see_only_statuses_that_they_know(status: RunState) -> None:
    run = fresh_view().run
    run.status = status
    shown = compat_view(summary_record(run))
    known = {"queued", "running", "pausing", "paused", "completed", "failed", "cancelled"}
    assert shown["status"] in known
    if status.value in known:
        assert shown == summary_record(run)
    else:
        assert shown["stored_status"] == shown["storedStatus"] == status.value
        assert status.value in shown["statusDerivedNote"]


def test_the_record_has_every_field_of_the_row_that_people_ask_for() -> None:
    run = Run(
        run_id=RunId("r"),
        tenant=TenantId("local"),
        automation_id=AutomationId("a"),
        definition_digest=fresh_view().run.definition_digest,
        last_change_id=ChangeId("c"),
        created_at_ms=0,
        updated_at_ms=0,
        cleanup=EngineId("e"),
        parked="timer",
        due_at_ms=3,
        stop_kind=StopKind.STALE_REAPED,
        workspace="/w",
        automation_version=2,
    )
    summary = summary_record(run)
    assert (summary["cleanup_engine_id"], summary["parked"]) == ("e", "timer")
    assert (summary["due_at_ms"], summary["stop_kind"]) == (3, "stale_reaped")
    assert (summary["workspace"], summary["automation_version"]) == ("/w", 2)


def test_pausing_and_reminders_change_nothing_of_the_shape() -> None:
    tale: Any = Tale(gate_node("g"))
    tale.claim()
    tale.now_ms += 86_400_000
    tale.command(Wake())
    tale.command(Pause(reason="hold"))
    record = record_of(tale)
    assert record["checkpoint"]["awaiting_gate"]["metadata"]["stale"] is True
    assert record["pause_reason"] == "hold"


def test_statuses_and_stop_kinds_are_those_of_the_contract() -> None:
    assert [status.value for status in RunState] == [
        "queued",
        "running",
        "pausing",
        "paused",
        "awaiting_approval",
        "completed",
        "blocked",
        "failed",
        "cancelled",
    ]
    assert {kind.value for kind in StopKind} == {
        "cancelled",
        "operator_stopped",
        "guardrail_stopped",
        "panic",
        "shutdown",
        "server_restart",
        "stale_reaped",
    }


def test_a_failure_is_told_with_its_node_its_reason_and_its_moment() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1}))
    tale.claim().fail("a")
    failure = record_of(tale)["checkpoint"]["last_failure"]
    assert (failure["node_id"], failure["reason"]) == ("a", "it broke")
    assert failure["failed_at_ms"] == tale.now_ms


def test_a_record_that_says_nothing_of_its_profile_is_strict() -> None:
    bare = {
        "run_id": "r",
        "tenant": "local",
        "automation_id": "a",
        "definition_digest": "d",
        "last_change_id": "c",
        "created_at_ms": 0,
        "updated_at_ms": 0,
    }
    assert summary_record(msgspec.convert(bare, Run))["effective_execution_profile"] == "strict"
