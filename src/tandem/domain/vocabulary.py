"""The words of what happens: what each lifecycle event means and under which name it is published.

A lifecycle event is the durable record of a transition. Every one is also published to those who
listen, the successes too (run-lifecycle W-17), under a name that clients of the event stream see.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from tandem.domain.lifecycle import RunEvent

E = RunEvent


class Word(msgspec.Struct, frozen=True):
    """What an event means, and the names that it is published under, the first one always.

    `metadata` names the keys that its record carries. `older` are names that the original engine
    publishes for the same thing.
    """

    meaning: str
    published: str
    metadata: tuple[str, ...] = ()
    older: tuple[str, ...] = ()


def _run(name: str) -> str:
    return f"automation.v2.run.{name}"


def _node(name: str) -> str:
    return f"automation.v2.node.{name}"


SCHEMA_PAUSE: Final = (
    "version",
    "runtime_state",
    "paused_attention_required",
    "run_id",
    "automation_id",
    "node_id",
    "attempt",
    "max_attempts",
    "failure_kind",
    "reason",
    "expected_contract",
    "actual",
    "unmet_requirements",
    "repair_options",
)
"""What a person is told of an output that violates its schema (run-lifecycle 4.6.4)."""

_EVIDENCE: Final = ("output_digest", "artifacts", "accepted_candidate_source", "status")

WORDS: Final[Mapping[RunEvent, Word]] = {
    E.RUN_CREATED: Word(
        "The run was created and is queued; one that a delivery at a webhook started tells which.",
        _run("created"),
        metadata=("delivery_id", "trigger_id", "provider"),
    ),
    E.RUN_COMPLETED_DRY: Word("A dry run: nothing was executed.", _run("completed")),
    E.RUN_HELD: Word(
        "The queued run is not claimed until what holds it is released.",
        _run("held"),
        ("queue_reason", "resource_key", "holder", "since_ms"),
    ),
    E.RUN_BLOCKED_CORRUPT: Word(
        "The stored definition of the run cannot be read.",
        _run("blocked"),
        ("failure_kind",),
        ("automation_v2.run.failed",),
    ),
    E.RUN_FAILED_STARTUP: Word(
        "The run cannot start: what it needs is not there.",
        _run("failed"),
        ("failure_kind", "check"),
        ("automation_v2.run.failed",),
    ),
    E.RUN_FAILED_ACTIVATION: Word(
        "The plan package of the automation is not ready.",
        _run("failed"),
        ("check",),
        ("automation_v2.run.failed",),
    ),
    E.RUN_OWNER_CHANGED: Word(
        "An engine has taken the waiting run for itself.", _run("owner_changed"), ("owner",)
    ),
    E.RUN_CLAIMED: Word(
        "An engine claimed the run and drives it from now on.",
        _run("started"),
        ("claimant_id", "lease_epoch", "claim_id"),
    ),
    E.RUN_PARKED_AT_GATE: Word(
        "Nothing can go on until a person has decided the gate.", _run("awaiting_approval")
    ),
    E.RUN_PARKED_ON_WAIT: Word(
        "Nothing can go on until the wait is over.", _run("waiting"), ("due_at_ms",)
    ),
    E.RUN_PARKED_ON_BACKOFF: Word(
        "Nothing can go on until the next attempt is due.", _run("retry_scheduled"), ("due_at_ms",)
    ),
    E.RUN_WOKEN: Word("What a parked run waited for has come.", _run("woken")),
    E.RUN_PAUSE_REQUESTED: Word(
        "A person holds the run; attempts that run are let to their end, or stopped with `now`.",
        _run("pausing"),
        ("now",),
    ),
    E.RUN_PAUSED: Word("The run is held until somebody resumes it.", _run("paused")),
    E.RUN_RESUMED: Word("A person lets the run go on.", _run("resumed")),
    E.RUN_RECOVERED: Word(
        "A person lets a run that had stopped try again.", _run("recovered"), ("roots",)
    ),
    E.RUN_RECOVERED_FROM_PAUSE: Word(
        "A person recovered a paused run.", _run("recovered"), ("roots",)
    ),
    E.RUN_STEP_REPAIRED: Word(
        "A person changed a node of this run's own version; it and what follows run again. Each "
        "edit is there with `before` and `after`.",
        _run("step_repaired"),
        (
            "node_id",
            "reset_only",
            "cleared_outputs",
            "prompt",
            "template_id",
            "model_policy",
            "inputs",
            "action",
            "definition_digest",
            "decided_by",
        ),
    ),
    E.RUN_TASK_RETRIED: Word(
        "A person lets a node and what follows run again.", _run("task_retried"), ("node_id",)
    ),
    E.RUN_TASK_REQUEUED: Word(
        "The same as `run_task_retried`, asked for as a requeueing.",
        _run("task_requeued"),
        ("node_id",),
    ),
    E.RUN_TASK_CONTINUED: Word(
        "A person lets one blocked node try again.", _run("task_continued"), ("node_id", "mode")
    ),
    E.RUN_REDELIVERED: Word(
        "A node with outside effects that had failed is sent out again.",
        _run("dead_letter_requeued"),
        ("roots", "dead_letters"),
    ),
    E.RUN_REOPENED: Word(
        "A person completed a node by hand, and with that the run goes on.", _run("reopened")
    ),
    E.RUN_FORKED: Word(
        "Another run began with outputs of this one.", _run("forked"), ("run_id", "node_id")
    ),
    E.RUN_FORKED_FROM: Word(
        "The run began with outputs of another one, to go its own way from a node on.",
        _run("forked_from"),
        ("run_id", "node_id", "reused"),
    ),
    E.RUN_REQUEUED_AFTER_RESTART: Word(
        "The engine that drove the run is dead; the run goes on with another.",
        _run("requeued_after_restart"),
    ),
    E.RUN_CLAIM_EXPIRED: Word(
        "The engine that claimed the run died before work began; the run is queued again.",
        _run("claim_expired"),
    ),
    E.RUN_FAILED_SERVER_RESTART: Word(
        "The engine that drove the run is dead, and the run cannot or may not go on.",
        _run("failed"),
        ("why",),
        ("automation_v2.run.failed",),
    ),
    E.RUN_QUARANTINED: Word(
        "Engine after engine died while it drove the run; it is held until a person resumes it.",
        _run("quarantined"),
        ("interruptions",),
    ),
    E.RUN_PAUSING_SETTLED: Word(
        "The engine died while the run was being paused; it is paused now.", _run("pausing_settled")
    ),
    E.RUN_HANDED_BACK: Word("The engine stops and gives the run back.", _run("handed_back")),
    E.RUN_FAILED_SHUTDOWN: Word(
        "The engine stops, and the run ends with it.",
        _run("failed"),
        older=("automation_v2.run.failed",),
    ),
    E.RUN_PAUSED_STALE: Word(
        "Nothing of the run showed life for too long; it is paused, its nodes are to run again.",
        _run("paused_stale"),
        older=("automation_v2.run.paused_stale_no_provider_activity",),
    ),
    E.RUN_FAILED_STALE: Word(
        "Nothing of the run showed life for too long, and a node has no attempt left.",
        _run("failed"),
        older=(
            "automation_v2.run.failed",
            "automation_v2.run.failed_stale_no_provider_activity",
        ),
    ),
    E.RUN_AUTO_RESUMED: Word(
        "The run goes on by itself: after it was found stale, or after its budget was raised.",
        _run("auto_resumed"),
        ("auto_resume_window_ms", "stale_reaped_at_ms", "stop_kind", "agent_ids"),
    ),
    E.RUN_STOPPED: Word("A person ended the run.", _run("cancelled")),
    E.RUN_CANCELLED: Word(
        "A gate ended the run: by its decision, or undecided at its expiry.", _run("cancelled")
    ),
    E.RUN_PROCESSES_ENDED: Word(
        "The processes of a stopped run are proven dead.", _run("processes_ended")
    ),
    E.RUN_COMPLETED: Word("Every node is completed.", _run("completed")),
    E.RUN_BLOCKED: Word(
        "A node could not be mended, and all that is left depends on it.",
        _run("blocked"),
        older=("automation_v2.run.failed",),
    ),
    E.RUN_FAILED: Word(
        "A node failed for good.", _run("failed"), older=("automation_v2.run.failed",)
    ),
    E.RUN_FAILED_PANIC: Word(
        "The driver of the run met a mistake of the engine's.",
        _run("failed"),
        older=("automation_v2.run.failed",),
    ),
    E.NODE_STARTED: Word("An attempt began.", _node("started")),
    E.NODE_COMPLETED: Word(
        "The node counts as completed with its output; the digests are what the record proves.",
        _node("completed"),
        _EVIDENCE,
    ),
    E.NODE_COMPLETED_WITH_WARNINGS: Word(
        "The node counts as completed, with warnings.",
        _node("completed_with_warnings"),
        ("warnings", "warning_count", *_EVIDENCE),
    ),
    E.NODE_SKIPPED_NO_WORK: Word(
        "Triage found nothing to do; the node counts as completed without having run.",
        _node("skipped"),
        ("output_digest",),
    ),
    E.NODE_RELAXED: Word(
        "The execution profile lets pass what the output misses.",
        _node("relaxed"),
        (
            "relaxed_validator_classes",
            "effective_outcome",
            "original_status",
            "original_failure_kind",
            "execution_profile",
            "yolo_review_relaxed",
            "yolo_non_safety_blocker_relaxed",
            "warning_count",
        ),
    ),
    E.NODE_RECOVERED: Word(
        "The node that the run failed on has succeeded since.", _node("recovered")
    ),
    E.NODE_APPROVAL_ROLLBACK: Word(
        "A review did not approve; what it looked at is done again.",
        _node("approval_rollback"),
        ("roots",),
    ),
    E.NODE_SCHEMA_PAUSED: Word(
        "The output violates its schema; the run is held for a person.",
        _node("schema_validation_paused"),
        SCHEMA_PAUSE,
    ),
    E.RUN_COMPLETION_REPAIR_REQUESTED: Word(
        "Every node is completed, but a promised file is missing; its node writes it again.",
        _run("completion_repair_requested"),
        ("failure_kind",),
    ),
    E.NODE_REPAIR_REQUESTED: Word(
        "The output misses its contract, or the attempt showed no life; the next one is told why.",
        _node("repair_requested"),
        ("status", "blocker_category"),
    ),
    E.NODE_RETRY_SCHEDULED: Word(
        "The attempt failed and the next one is due later.",
        _node("retry_scheduled"),
        ("failure_class", "retry_after_ms", "retry_backoff_ms"),
    ),
    E.NODE_FAILED: Word(
        "The node failed for good.", _node("failed"), ("failure_kind", "gave_up_because")
    ),
    E.NODE_VERIFY_FAILED: Word(
        "The declared verification failed for good.", _node("verify_failed"), ("failure_kind",)
    ),
    E.NODE_BLOCKED: Word(
        "The node cannot be mended, or depends on one that cannot.",
        _node("blocked"),
        ("failure_kind",),
    ),
    E.NODE_INTERRUPTED: Word(
        "The attempt was cut off and does not count.",
        _node("interrupted"),
        ("status", "blocker_category", "node_no"),
    ),
    E.NODE_OUTCOME_UNKNOWN: Word(
        "An attempt with outside effects was cut off; a person says whether it took place.",
        _node("outcome_unknown"),
    ),
    E.NODE_RESET: Word("The node is pending again, as if it had never run.", _node("reset")),
    E.NODE_SKIPPED: Word(
        "A person counts the node as completed without an output of its own.",
        _node("skipped"),
        ("decided_by", "output_digest"),
    ),
    E.NODE_OUTPUT_SET: Word(
        "A person gave the node its output.", _node("output_set"), ("decided_by", "output_digest")
    ),
    E.NODE_REUSED: Word(
        "A fork takes over the output of its source.", _node("reused"), ("output_digest",)
    ),
    E.NODE_DISPOSITION_SET: Word(
        "A person said what the output is worth; nothing moves.",
        _node("disposition_set"),
        ("before", "disposition", "decided_by"),
    ),
    E.GATE_OPENED: Word("A person is asked.", "automation.v2.gate.opened"),
    E.GATE_DECIDED: Word(
        "A person decided.",
        "automation.v2.gate.decided",
        ("gate_id", "decision", "decided_by", "transition_id"),
        ("approval.decision.recorded",),
    ),
    E.GATE_GUARD_DENIED: Word(
        "A decision was meant for another asking of the gate; it settles nothing.",
        "automation.v2.gate.guard_denied",
        (
            "gate_id",
            "decision",
            "wanted_decision",
            "decided_by",
            "reason_code",
            "expected",
            "given",
        ),
    ),
    E.GATE_EXPIRED: Word(
        "Nobody decided in time, which ends the run.",
        "automation.v2.gate.expired",
        ("gate_id", "expires_at_ms", "decision"),
        ("approval.gate.expired",),
    ),
    E.GATE_TIMEOUT_RESUMED: Word(
        "Nobody decided in time, which lets the run go on.",
        "automation.v2.gate.timeout_resumed",
        ("gate_id", "expires_at_ms", "decision"),
    ),
    E.GATE_ESCALATED: Word(
        "Nobody decided in time; somebody else is to be told, once.",
        "automation.v2.gate.escalated",
        ("gate_id", "expires_at_ms", "escalated_to"),
        ("approval.gate.escalated",),
    ),
    E.GATE_REMINDER_DUE: Word(
        "Whoever decides is to be reminded.",
        "automation.v2.gate.reminder_due",
        ("gate_id", "expires_at_ms", "expired", "reminder_count"),
        ("approval.gate.reminder_due",),
    ),
    E.GATE_MARKED_STALE: Word(
        "The gate has been open for long; it is shown as stale from now on.",
        "automation.v2.gate.marked_stale",
        ("gate_id", "expires_at_ms", "stale_policy"),
    ),
    E.WAIT_REGISTRATION_STARTED: Word(
        "The node is about to wait.", "automation.v2.wait.registration_started"
    ),
    E.WAIT_REGISTERED: Word(
        "The node waits from now on.",
        "automation.v2.wait.registered",
        ("wait_id", "wait_kind", "due_at_ms", "timeout_at_ms"),
    ),
    E.WAIT_REGISTRATION_FAILED: Word(
        "What the node was to wait for could not be found out; the node failed.",
        "automation.v2.wait.registration_failed",
    ),
    E.WAIT_WOKEN: Word(
        "What the node waited for has come, or its time is up and the run goes on.",
        "automation.v2.wait.woken",
        ("wait_id", "event_type"),
    ),
    E.WAIT_WOKEN_REQUEUED: Word(
        "The run was parked and goes on, because a wait is over.",
        "automation.v2.wait.woken_requeued",
        ("wait_id", "event_type"),
    ),
    E.WAIT_TIMEOUT_NOTED: Word(
        "The wait lasts long: somebody is to be told; it can still be woken.",
        "automation.v2.wait.timeout_noted",
        ("wait_id", "event_type", "timeout_at_ms", "escalated_to", "expired", "reminder_count"),
    ),
    E.WAIT_TIMEOUT_CANCELLED: Word(
        "Nothing came in time, which ends the run.",
        "automation.v2.wait.timeout_cancelled",
        ("wait_id", "event_type"),
    ),
    E.USAGE_RECORDED: Word(
        "What attempts have spent was counted, and nothing else happened.",
        _run("usage_recorded"),
        ("attempts", "total_tokens", "estimated_cost_usd", "tool_calls"),
    ),
    E.RUN_BUDGET_CHANGED: Word(
        "A person gave the run other limits.",
        _run("budget_changed"),
        ("allowed", "before", "resume", "actor"),
    ),
    E.LEARNING_AUTO_APPLIED: Word(
        "What was learned from the end of the run is applied without a person, as settings allow.",
        _run("learning_auto_applied"),
        ("candidate_id",),
        ("workflow_learning.candidate.auto_applied",),
    ),
    E.REVIEW_REQUESTED: Word(
        "With the end of the run its automation is due for review; no new run of it begins before.",
        _run("review_requested"),
        ("review_request_id", "review_kind", "request_type", "requested_by"),
        ("automation.governance.approval.requested",),
    ),
}
