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


WORDS: Final[Mapping[RunEvent, Word]] = {
    E.RUN_CREATED: Word("The run was created and is queued.", _run("created")),
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
        "A person holds the run; attempts that run are let to their end.", _run("pausing")
    ),
    E.RUN_PAUSED: Word("The run is held until somebody resumes it.", _run("paused")),
    E.RUN_RESUMED: Word("A person lets the run go on.", _run("resumed")),
    E.RUN_RECOVERED: Word(
        "A person lets a run that had stopped try again.", _run("recovered"), ("roots",)
    ),
    E.RUN_REQUEUED_AFTER_RESTART: Word(
        "The engine that drove the run is dead; the run goes on with another.",
        _run("requeued_after_restart"),
    ),
    E.RUN_PAUSING_SETTLED: Word(
        "The engine died while the run was being paused; it is paused now.", _run("pausing_settled")
    ),
    E.RUN_HANDED_BACK: Word("The engine stops and gives the run back.", _run("handed_back")),
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
    E.RUN_BLOCKED_CORRUPT: Word(
        "A stored run of the original engine could not be read; its text is kept.",
        _run("blocked"),
        older=("automation_v2.run.failed",),
    ),
    E.NODE_STARTED: Word("An attempt began.", _node("started")),
    E.NODE_COMPLETED: Word(
        "The node counts as completed with its output; the digests are what the record proves.",
        _node("completed"),
        ("output_digest", "artifacts", "accepted_candidate_source", "status"),
    ),
    E.NODE_REPAIR_REQUESTED: Word(
        "The output misses its contract; the next attempt is told why.", _node("repair_requested")
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
        "The attempt was cut off and does not count.", _node("interrupted"), ("blocker_category",)
    ),
    E.NODE_OUTCOME_UNKNOWN: Word(
        "An attempt with outside effects was cut off; a person says whether it took place.",
        _node("outcome_unknown"),
    ),
    E.NODE_RESET: Word("The node is pending again, as if it had never run.", _node("reset")),
    E.GATE_OPENED: Word("A person is asked.", "automation.v2.gate.opened"),
    E.GATE_DECIDED: Word(
        "A person decided.",
        "automation.v2.gate.decided",
        ("gate_id", "decision", "decided_by"),
        ("approval.decision.recorded",),
    ),
    E.GATE_EXPIRED: Word(
        "Nobody decided in time; the expiry policy did.",
        "automation.v2.gate.expired",
        ("gate_id",),
        ("approval.gate.expired",),
    ),
    E.WAIT_REGISTERED: Word(
        "The node waits from now on.", "automation.v2.wait.registered", ("due_at_ms",)
    ),
    E.WAIT_WOKEN: Word("What the node waited for has come.", "automation.v2.wait.woken"),
}
