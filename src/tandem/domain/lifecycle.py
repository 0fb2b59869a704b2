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
    """Waits for time."""
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
    RUN_REQUEUED_AFTER_RESTART = "run_queued_for_resume_after_restart"
    RUN_PAUSING_SETTLED = "run_pausing_settled_on_restart"
    RUN_HANDED_BACK = "run_interrupted_shutdown"
    RUN_STOPPED = "run_stopped"
    RUN_CANCELLED = "run_cancelled"
    RUN_PROCESSES_ENDED = "run_processes_ended"
    RUN_COMPLETED = "run_completed"
    RUN_BLOCKED = "run_blocked"
    RUN_FAILED = "run_failed"
    RUN_FAILED_PANIC = "run_failed_panic"
    RUN_BLOCKED_CORRUPT = "run_blocked_corrupt_checkpoint"

    NODE_STARTED = "node_started"
    NODE_COMPLETED = "node_completed"
    NODE_REPAIR_REQUESTED = "node_repair_requested"
    NODE_RETRY_SCHEDULED = "node_retry_backoff_scheduled"
    NODE_FAILED = "node_failed"
    NODE_VERIFY_FAILED = "node_verify_failed"
    NODE_BLOCKED = "node_blocked"
    NODE_INTERRUPTED = "node_interrupted"
    NODE_OUTCOME_UNKNOWN = "node_outcome_unknown"
    NODE_RESET = "node_reset"
    GATE_OPENED = "gate_opened"
    GATE_DECIDED = "gate_decided"
    GATE_EXPIRED = "approval_gate_expired"
    WAIT_REGISTERED = "wait_node_registered"
    WAIT_WOKEN = "wait_woken"


S, E, N = RunState, RunEvent, NodeState

TERMINAL: Final = frozenset({S.COMPLETED, S.BLOCKED, S.FAILED, S.CANCELLED})
DRIVEN: Final = frozenset({S.RUNNING, S.PAUSING})
"""States in which an engine holds a claim."""
LIVE: Final = frozenset(RunState) - TERMINAL

_ATTEMPT_ENDS: Final = (
    E.NODE_COMPLETED,
    E.NODE_REPAIR_REQUESTED,
    E.NODE_RETRY_SCHEDULED,
    E.NODE_FAILED,
    E.NODE_VERIFY_FAILED,
    E.NODE_BLOCKED,
    E.NODE_INTERRUPTED,
    E.NODE_OUTCOME_UNKNOWN,
)

RUN_TRANSITIONS: Final[Mapping[tuple[RunState, RunEvent], RunState]] = {
    (S.QUEUED, E.RUN_CREATED): S.QUEUED,
    (S.QUEUED, E.RUN_CLAIMED): S.RUNNING,
    # An engine wants to drive a run itself whose former owner is gone.
    **{(state, E.RUN_OWNER_CHANGED): state for state in LIVE - DRIVEN},
    # A driven run: nodes come and go.
    (S.RUNNING, E.NODE_STARTED): S.RUNNING,
    (S.RUNNING, E.GATE_OPENED): S.RUNNING,
    (S.RUNNING, E.WAIT_REGISTERED): S.RUNNING,
    **{(state, event): state for state in DRIVEN for event in _ATTEMPT_ENDS},
    # Parking: nothing runs and nothing can start.
    (S.RUNNING, E.RUN_PARKED_AT_GATE): S.AWAITING_APPROVAL,
    (S.RUNNING, E.RUN_PARKED_ON_WAIT): S.PAUSED,
    (S.RUNNING, E.RUN_PARKED_ON_BACKOFF): S.QUEUED,
    (S.PAUSED, E.RUN_WOKEN): S.QUEUED,
    (S.AWAITING_APPROVAL, E.RUN_WOKEN): S.QUEUED,
    # Gates may be decided in every live state; a decision wakes a run that waits for one.
    **{(state, E.GATE_DECIDED): state for state in LIVE - {S.AWAITING_APPROVAL}},
    **{(state, E.GATE_EXPIRED): state for state in LIVE - {S.AWAITING_APPROVAL}},
    (S.AWAITING_APPROVAL, E.GATE_DECIDED): S.QUEUED,
    (S.AWAITING_APPROVAL, E.GATE_EXPIRED): S.QUEUED,
    **{(state, E.NODE_COMPLETED): state for state in LIVE - DRIVEN},
    **{(state, E.NODE_RESET): state for state in LIVE},
    **{(state, E.WAIT_WOKEN): state for state in LIVE},
    # People.
    (S.RUNNING, E.RUN_PAUSE_REQUESTED): S.PAUSING,
    (S.PAUSING, E.RUN_PAUSED): S.PAUSED,
    (S.QUEUED, E.RUN_PAUSED): S.PAUSED,
    (S.AWAITING_APPROVAL, E.RUN_PAUSED): S.PAUSED,
    (S.PAUSED, E.RUN_PAUSED): S.PAUSED,  # a run that waits for time is now held by a person
    (S.PAUSED, E.RUN_RESUMED): S.QUEUED,
    (S.FAILED, E.RUN_RECOVERED): S.QUEUED,
    (S.BLOCKED, E.RUN_RECOVERED): S.QUEUED,
    **{(state, E.RUN_STOPPED): S.CANCELLED for state in LIVE | {S.BLOCKED}},
    **{(state, E.RUN_CANCELLED): S.CANCELLED for state in LIVE},
    **{(state, E.RUN_PROCESSES_ENDED): state for state in TERMINAL},
    # Engines that die or leave.
    (S.RUNNING, E.RUN_REQUEUED_AFTER_RESTART): S.QUEUED,
    (S.PAUSING, E.RUN_PAUSING_SETTLED): S.PAUSED,
    (S.RUNNING, E.RUN_HANDED_BACK): S.QUEUED,
    # Ends.
    (S.RUNNING, E.RUN_COMPLETED): S.COMPLETED,
    (S.RUNNING, E.RUN_BLOCKED): S.BLOCKED,
    (S.RUNNING, E.RUN_FAILED): S.FAILED,
    **{(state, E.RUN_FAILED_PANIC): S.FAILED for state in DRIVEN},
    # A stored run of the original that cannot be read (T05).
    (S.RUNNING, E.RUN_BLOCKED_CORRUPT): S.BLOCKED,
}

NODE_TRANSITIONS: Final[Mapping[tuple[NodeState, RunEvent], NodeState]] = {
    (N.PENDING, E.NODE_STARTED): N.RUNNING,
    (N.BACKOFF, E.NODE_STARTED): N.RUNNING,
    (N.RUNNING, E.NODE_COMPLETED): N.COMPLETED,
    (N.RUNNING, E.NODE_REPAIR_REQUESTED): N.PENDING,
    (N.RUNNING, E.NODE_RETRY_SCHEDULED): N.BACKOFF,
    (N.RUNNING, E.NODE_FAILED): N.FAILED,
    (N.RUNNING, E.NODE_VERIFY_FAILED): N.FAILED,
    (N.RUNNING, E.NODE_BLOCKED): N.BLOCKED,
    (N.RUNNING, E.NODE_INTERRUPTED): N.PENDING,
    (N.RUNNING, E.NODE_OUTCOME_UNKNOWN): N.GATED,
    (N.PENDING, E.NODE_BLOCKED): N.BLOCKED,
    (N.PENDING, E.GATE_OPENED): N.GATED,
    (N.GATED, E.NODE_COMPLETED): N.COMPLETED,
    (N.PENDING, E.WAIT_REGISTERED): N.WAITING,
    (N.WAITING, E.NODE_COMPLETED): N.COMPLETED,
    **{(state, E.NODE_RESET): N.PENDING for state in NodeState if state is not N.RUNNING},
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
