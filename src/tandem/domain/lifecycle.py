"""The states of a run and of a node run, the events that move them, and the one table of each.

The event that moves a state is the lifecycle event that is stored: there is no transition without
its event and no event without its transition, so replaying the events of a run gives its state.
Names come from run-lifecycle.md where the original has the event; the others are ours.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from tandem.domain.errors import IllegalTransition


class RunState(StrEnum):
    """Where a run is (run-lifecycle 1.4)."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    AWAITING_APPROVAL = "awaiting_approval"
    COMPLETED = "completed"
    BLOCKED = "blocked"
    FAILED = "failed"
    CANCELLED = "cancelled"


class NodeState(StrEnum):
    """Where a node run is."""

    PENDING = "pending"
    """Waits for its dependencies, for a free place, or for its next attempt at once."""
    RUNNING = "running"
    BACKOFF = "backoff"
    """Waits for the moment of its next attempt."""
    GATED = "gated"
    """Waits for a person."""
    WAITING = "waiting"
    """Waits for time or for a signal."""
    COMPLETED = "completed"
    BLOCKED = "blocked"
    FAILED = "failed"


class StopKind(StrEnum):
    """Why a run stopped before its end (run-lifecycle 1.4)."""

    CANCELLED = "cancelled"
    OPERATOR_STOPPED = "operator_stopped"
    GUARDRAIL_STOPPED = "guardrail_stopped"
    PANIC = "panic"
    SHUTDOWN = "shutdown"
    SERVER_RESTART = "server_restart"
    STALE_REAPED = "stale_reaped"


class RunEvent(StrEnum):
    """Everything that can happen to a run; each is stored as a lifecycle event."""

    RUN_CREATED = "run_created"
    RUN_COMPLETED_DRY = "run_completed_dry"
    RUN_HELD = "run_held"
    RUN_BLOCKED_CORRUPT = "run_blocked_corrupt_checkpoint"
    RUN_FAILED_STARTUP = "run_failed_startup"
    RUN_FAILED_ACTIVATION = "run_failed_activation_validation"
    RUN_OWNER_CHANGED = "run_owner_changed"
    RUN_CLAIMED = "run_execution_claimed"
    RUN_PARKED_AT_GATE = "run_parked_at_gate"
    RUN_PARKED_ON_WAIT = "run_parked_on_wait"
    RUN_PARKED_ON_BACKOFF = "run_parked_on_backoff"
    RUN_WOKEN = "run_woken"
    RUN_PAUSE_REQUESTED = "run_pause_requested"
    RUN_PAUSED = "run_paused"
    RUN_RESUMED = "run_resumed"
    RUN_RECOVERED = "run_recovered"
    RUN_RECOVERED_FROM_PAUSE = "run_recovered_from_pause"
    RUN_STEP_REPAIRED = "run_step_repaired"
    RUN_TASK_RETRIED = "run_task_retried"
    RUN_TASK_REQUEUED = "run_task_requeued"
    RUN_TASK_CONTINUED = "run_task_continued"
    RUN_REDELIVERED = "stateful_dead_letter_retry_requeued"
    RUN_REOPENED = "run_reopened"
    RUN_FORKED = "run_forked"
    RUN_FORKED_FROM = "run_forked_from"
    RUN_REQUEUED_AFTER_RESTART = "run_queued_for_resume_after_restart"
    RUN_CLAIM_EXPIRED = "run_execution_claim_expired_requeued"
    RUN_FAILED_SERVER_RESTART = "run_failed_server_restart"
    RUN_QUARANTINED = "run_quarantined"
    RUN_PAUSING_SETTLED = "run_pausing_settled_on_restart"
    RUN_HANDED_BACK = "run_interrupted_shutdown"
    RUN_FAILED_SHUTDOWN = "run_failed_shutdown"
    RUN_PAUSED_STALE = "run_paused_stale_no_provider_activity"
    RUN_FAILED_STALE = "run_failed_stale_no_provider_activity"
    RUN_AUTO_RESUMED = "run_auto_resumed"
    RUN_STOPPED = "run_stopped"
    RUN_CANCELLED = "run_cancelled"
    RUN_PROCESSES_ENDED = "run_processes_ended"
    RUN_COMPLETED = "run_completed"
    RUN_BLOCKED = "run_blocked"
    RUN_FAILED = "run_failed"
    RUN_FAILED_PANIC = "run_failed_panic"

    NODE_STARTED = "node_started"
    NODE_COMPLETED = "node_completed"
    NODE_COMPLETED_WITH_WARNINGS = "node_completed_with_warnings"
    NODE_SKIPPED_NO_WORK = "node_skipped_no_work"
    NODE_RELAXED = "node_relaxed"
    NODE_RECOVERED = "node_recovered"
    NODE_APPROVAL_ROLLBACK = "node_approval_rollback"
    NODE_SCHEMA_PAUSED = "node_schema_validation_paused"
    RUN_COMPLETION_REPAIR_REQUESTED = "run_completion_repair_requested"
    NODE_REPAIR_REQUESTED = "node_repair_requested"
    NODE_RETRY_SCHEDULED = "node_retry_backoff_scheduled"
    NODE_FAILED = "node_failed"
    NODE_VERIFY_FAILED = "node_verify_failed"
    NODE_BLOCKED = "node_blocked"
    NODE_INTERRUPTED = "node_interrupted"
    NODE_OUTCOME_UNKNOWN = "node_outcome_unknown"
    NODE_RESET = "node_reset"
    NODE_SKIPPED = "node_skipped"
    NODE_OUTPUT_SET = "node_output_set"
    NODE_REUSED = "node_reused"
    NODE_DISPOSITION_SET = "node_disposition_set"
    GATE_OPENED = "gate_opened"
    GATE_DECIDED = "gate_decided"
    GATE_GUARD_DENIED = "approval_gate_transition_guard_denied"
    GATE_EXPIRED = "approval_gate_expired"
    GATE_TIMEOUT_RESUMED = "approval_gate_timeout_resumed"
    GATE_ESCALATED = "approval_gate_escalated"
    GATE_REMINDER_DUE = "approval_gate_reminder_due"
    GATE_MARKED_STALE = "approval_gate_marked_stale"
    WAIT_REGISTRATION_STARTED = "wait_node_registration_started"
    WAIT_REGISTERED = "wait_node_registered"
    WAIT_REGISTRATION_FAILED = "wait_node_registration_failed"
    WAIT_WOKEN = "wait_woken"
    WAIT_WOKEN_REQUEUED = "stateful_wait_woken_requeued"
    WAIT_TIMEOUT_NOTED = "stateful_wait_timeout_paused_run"
    WAIT_TIMEOUT_CANCELLED = "stateful_wait_timeout_cancelled_run"
    USAGE_RECORDED = "usage_recorded"
    RUN_BUDGET_CHANGED = "run_budget_changed"
    LEARNING_AUTO_APPLIED = "workflow_learning_candidate_auto_applied"
    REVIEW_REQUESTED = "automation_review_requested"


S, E, N = RunState, RunEvent, NodeState

TERMINAL: Final = frozenset({S.COMPLETED, S.BLOCKED, S.FAILED, S.CANCELLED})
DRIVEN: Final = frozenset({S.RUNNING, S.PAUSING})
"""States in which an engine holds a claim."""
LIVE: Final = frozenset(RunState) - TERMINAL
RESTING: Final = frozenset(RunState) - DRIVEN - {S.QUEUED}
"""States in which nothing goes on by itself at once: people may take a run apart in them."""

_ATTEMPT_ENDS: Final = (
    E.NODE_COMPLETED,
    E.NODE_COMPLETED_WITH_WARNINGS,
    E.NODE_REPAIR_REQUESTED,
    E.NODE_RETRY_SCHEDULED,
    E.NODE_FAILED,
    E.NODE_VERIFY_FAILED,
    E.NODE_BLOCKED,
    E.NODE_INTERRUPTED,
    E.NODE_OUTCOME_UNKNOWN,
)

_NOTED: Final = (
    E.GATE_GUARD_DENIED,
    E.GATE_EXPIRED,
    E.GATE_ESCALATED,
    E.GATE_REMINDER_DUE,
    E.GATE_MARKED_STALE,
    E.WAIT_WOKEN,
    E.WAIT_TIMEOUT_NOTED,
)
_TASK_ACTIONS: Final = (
    E.RUN_STEP_REPAIRED,
    E.RUN_TASK_RETRIED,
    E.RUN_TASK_REQUEUED,
    E.RUN_TASK_CONTINUED,
)
_DONE_BY_HAND: Final = (N.PENDING, N.BACKOFF, N.WAITING, N.BLOCKED, N.FAILED)

RUN_TRANSITIONS: Final[Mapping[tuple[RunState, RunEvent], RunState]] = {
    (S.QUEUED, E.RUN_CREATED): S.QUEUED,
    (S.QUEUED, E.RUN_COMPLETED_DRY): S.COMPLETED,
    (S.QUEUED, E.RUN_CLAIMED): S.RUNNING,
    (S.QUEUED, E.RUN_HELD): S.QUEUED,
    # A run that cannot start: at its claim, or before its first node.
    (S.QUEUED, E.RUN_BLOCKED_CORRUPT): S.BLOCKED,
    (S.QUEUED, E.RUN_FAILED_STARTUP): S.FAILED,
    (S.RUNNING, E.RUN_FAILED_STARTUP): S.FAILED,
    (S.RUNNING, E.RUN_FAILED_ACTIVATION): S.FAILED,
    # An engine wants to drive a run itself whose former owner is gone.
    **{(state, E.RUN_OWNER_CHANGED): state for state in LIVE - DRIVEN},
    # A driven run: nodes come and go.
    (S.RUNNING, E.NODE_STARTED): S.RUNNING,
    (S.RUNNING, E.GATE_OPENED): S.RUNNING,
    (S.RUNNING, E.WAIT_REGISTRATION_STARTED): S.RUNNING,
    (S.RUNNING, E.WAIT_REGISTERED): S.RUNNING,
    (S.RUNNING, E.WAIT_REGISTRATION_FAILED): S.RUNNING,
    **{(state, event): state for state in DRIVEN for event in _ATTEMPT_ENDS},
    **{(state, E.NODE_RELAXED): state for state in DRIVEN},
    **{(state, E.NODE_RECOVERED): state for state in DRIVEN},
    **{(state, E.NODE_APPROVAL_ROLLBACK): state for state in DRIVEN},
    (S.RUNNING, E.NODE_SKIPPED_NO_WORK): S.RUNNING,
    (S.RUNNING, E.RUN_COMPLETION_REPAIR_REQUESTED): S.RUNNING,
    **{(state, E.NODE_SCHEMA_PAUSED): state for state in DRIVEN},
    # Parking: nothing runs and nothing can start.
    (S.RUNNING, E.RUN_PARKED_AT_GATE): S.AWAITING_APPROVAL,
    (S.RUNNING, E.RUN_PARKED_ON_WAIT): S.PAUSED,
    (S.RUNNING, E.RUN_PARKED_ON_BACKOFF): S.QUEUED,
    (S.PAUSED, E.RUN_WOKEN): S.QUEUED,
    (S.AWAITING_APPROVAL, E.RUN_WOKEN): S.QUEUED,
    # Gates may be decided in every live state; a decision wakes a run that waits for one.
    **{(state, E.GATE_DECIDED): state for state in LIVE - {S.AWAITING_APPROVAL}},
    **{(state, E.GATE_TIMEOUT_RESUMED): state for state in LIVE - {S.AWAITING_APPROVAL}},
    (S.AWAITING_APPROVAL, E.GATE_DECIDED): S.QUEUED,
    (S.AWAITING_APPROVAL, E.GATE_TIMEOUT_RESUMED): S.QUEUED,
    # What happens to a gate or a wait without moving the run.
    **{(state, event): state for state in LIVE for event in _NOTED},
    # A wait that is over lets a parked run go on; one that a person holds stays held.
    (S.PAUSED, E.WAIT_WOKEN_REQUEUED): S.QUEUED,
    (S.AWAITING_APPROVAL, E.WAIT_WOKEN_REQUEUED): S.QUEUED,
    **{(state, E.WAIT_TIMEOUT_CANCELLED): S.CANCELLED for state in LIVE},
    **{(state, E.NODE_COMPLETED): state for state in LIVE - DRIVEN},
    **{(state, E.NODE_RESET): state for state in LIVE},
    # A failed run stays failed when one of its nodes is completed by hand and others failed, too.
    **{(state, E.NODE_RESET): state for state in LIVE | {S.FAILED}},
    # People.
    **{(state, E.RUN_PAUSE_REQUESTED): S.PAUSING for state in DRIVEN},
    (S.PAUSING, E.RUN_PAUSED): S.PAUSED,
    (S.QUEUED, E.RUN_PAUSED): S.PAUSED,
    (S.AWAITING_APPROVAL, E.RUN_PAUSED): S.PAUSED,
    (S.PAUSED, E.RUN_PAUSED): S.PAUSED,  # a run that waits for time is now held by a person
    (S.PAUSED, E.RUN_RESUMED): S.QUEUED,
    (S.FAILED, E.RUN_RECOVERED): S.QUEUED,
    (S.BLOCKED, E.RUN_RECOVERED): S.QUEUED,
    (S.PAUSED, E.RUN_RECOVERED_FROM_PAUSE): S.QUEUED,
    **{(state, event): S.QUEUED for state in RESTING for event in _TASK_ACTIONS},
    (S.FAILED, E.RUN_REDELIVERED): S.QUEUED,
    (S.BLOCKED, E.RUN_REDELIVERED): S.QUEUED,
    **{(state, E.RUN_REOPENED): S.QUEUED for state in (S.COMPLETED, S.FAILED, S.BLOCKED)},
    **{(state, E.NODE_SKIPPED): state for state in frozenset(RunState) - {S.CANCELLED}},
    **{(state, E.NODE_OUTPUT_SET): state for state in frozenset(RunState) - {S.CANCELLED}},
    **{(state, E.NODE_DISPOSITION_SET): state for state in RunState},
    **{(state, E.RUN_FORKED): state for state in RunState},
    # What was spent is counted wherever the run has gone meanwhile.
    **{(state, E.USAGE_RECORDED): state for state in RunState},
    **{(state, E.RUN_BUDGET_CHANGED): state for state in RunState},
    (S.QUEUED, E.RUN_FORKED_FROM): S.QUEUED,
    (S.QUEUED, E.NODE_REUSED): S.QUEUED,
    # A run that is taken up again asks anew what it asked when it was cancelled.
    (S.QUEUED, E.NODE_OUTCOME_UNKNOWN): S.QUEUED,
    **{(state, E.RUN_STOPPED): S.CANCELLED for state in LIVE | {S.BLOCKED}},
    **{(state, E.RUN_CANCELLED): S.CANCELLED for state in LIVE},
    **{(state, E.RUN_PROCESSES_ENDED): state for state in frozenset(S) - DRIVEN},
    # Engines that die or leave.
    (S.RUNNING, E.RUN_REQUEUED_AFTER_RESTART): S.QUEUED,
    (S.RUNNING, E.RUN_CLAIM_EXPIRED): S.QUEUED,
    (S.RUNNING, E.RUN_FAILED_SERVER_RESTART): S.FAILED,
    (S.RUNNING, E.RUN_QUARANTINED): S.PAUSED,
    (S.PAUSING, E.RUN_PAUSING_SETTLED): S.PAUSED,
    (S.RUNNING, E.RUN_HANDED_BACK): S.QUEUED,
    (S.RUNNING, E.RUN_FAILED_SHUTDOWN): S.FAILED,
    # Runs that show no life any more, and those of them that go on by themselves.
    **{(state, E.RUN_PAUSED_STALE): S.PAUSED for state in DRIVEN},
    (S.RUNNING, E.RUN_FAILED_STALE): S.FAILED,
    (S.PAUSED, E.RUN_AUTO_RESUMED): S.QUEUED,
    # Ends.
    (S.RUNNING, E.RUN_COMPLETED): S.COMPLETED,
    (S.RUNNING, E.RUN_BLOCKED): S.BLOCKED,
    (S.RUNNING, E.RUN_FAILED): S.FAILED,
    **{(state, E.RUN_FAILED_PANIC): S.FAILED for state in DRIVEN},
    # What the end of a run led to; by then it may have been recovered.
    **{(state, E.LEARNING_AUTO_APPLIED): state for state in RunState},
    **{(state, E.REVIEW_REQUESTED): state for state in RunState},
    # A stored run of the original that cannot be read (T05).
    (S.RUNNING, E.RUN_BLOCKED_CORRUPT): S.BLOCKED,
}

NODE_TRANSITIONS: Final[Mapping[tuple[NodeState, RunEvent], NodeState]] = {
    (N.PENDING, E.NODE_STARTED): N.RUNNING,
    (N.BACKOFF, E.NODE_STARTED): N.RUNNING,
    (N.RUNNING, E.NODE_COMPLETED): N.COMPLETED,
    (N.RUNNING, E.NODE_COMPLETED_WITH_WARNINGS): N.COMPLETED,
    (N.PENDING, E.NODE_SKIPPED_NO_WORK): N.COMPLETED,
    (N.COMPLETED, E.RUN_COMPLETION_REPAIR_REQUESTED): N.PENDING,
    (N.RUNNING, E.NODE_SCHEMA_PAUSED): N.PENDING,
    (N.RUNNING, E.NODE_REPAIR_REQUESTED): N.PENDING,
    (N.RUNNING, E.NODE_RETRY_SCHEDULED): N.BACKOFF,
    (N.RUNNING, E.NODE_FAILED): N.FAILED,
    (N.RUNNING, E.NODE_VERIFY_FAILED): N.FAILED,
    (N.RUNNING, E.NODE_BLOCKED): N.BLOCKED,
    (N.RUNNING, E.NODE_INTERRUPTED): N.PENDING,
    (N.RUNNING, E.NODE_OUTCOME_UNKNOWN): N.GATED,
    (N.PENDING, E.NODE_BLOCKED): N.BLOCKED,
    (N.BACKOFF, E.NODE_BLOCKED): N.BLOCKED,
    (N.PENDING, E.GATE_OPENED): N.GATED,
    (N.GATED, E.NODE_COMPLETED): N.COMPLETED,
    (N.PENDING, E.WAIT_REGISTERED): N.WAITING,
    (N.PENDING, E.WAIT_REGISTRATION_FAILED): N.FAILED,
    (N.WAITING, E.NODE_COMPLETED): N.COMPLETED,
    **{(state, E.NODE_RESET): N.PENDING for state in NodeState if state is not N.RUNNING},
    (N.GATED, E.NODE_OUTCOME_UNKNOWN): N.GATED,
    **{(state, E.NODE_SKIPPED): N.COMPLETED for state in _DONE_BY_HAND},
    **{(state, E.NODE_OUTPUT_SET): N.COMPLETED for state in (*_DONE_BY_HAND, N.COMPLETED)},
    (N.PENDING, E.NODE_REUSED): N.COMPLETED,
}

NODE_EVENTS: Final = frozenset(event for _, event in NODE_TRANSITIONS)


def next_run_state(state: RunState, event: RunEvent) -> RunState:
    """Return the state that `event` leads to.

    Raises:
        IllegalTransition: the table has no row for this pair.
    """
    try:
        return RUN_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def next_node_state(state: NodeState, event: RunEvent) -> NodeState:
    """Return the state that `event` leads a node run to.

    Raises:
        IllegalTransition: the table has no row for this pair.
    """
    try:
        return NODE_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def is_terminal(state: RunState) -> bool:
    """Say whether a run in this state has ended; only a recovery leaves such a state."""
    return state in TERMINAL
