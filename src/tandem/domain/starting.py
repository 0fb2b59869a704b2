"""Runs that cannot start: at their claim, or before their first node. Every end has its event."""

from tandem.domain.change import Change
from tandem.domain.claim_basis import ClaimBasis
from tandem.domain.command import Claim
from tandem.domain.draft import Draft
from tandem.domain.ids import ChangeId, NodeId
from tandem.domain.lifecycle import RunEvent, StopKind
from tandem.domain.run import Failure, Run
from tandem.domain.start_check import FailedCheck, Obstacle
from tandem.domain.view import RunView

E = RunEvent

CONTEXT_MISSING = "runtime context partition missing for automation run"
CONTEXT_NODE = NodeId("runtime_context")
DEFINITION_MISSING = "automation not found"
DEFINITION_UNREADABLE = "automation run checkpoint could not be parsed during startup: "
CHECKPOINT_NODE = NodeId("checkpoint")
_REASON_CHARS_MAX = 500


def refuse_claim(draft: Draft, command: Claim) -> bool:
    """End a queued run that can never start (T05, T11, T20); False when it can be claimed."""
    basis = command.basis
    if can_start(draft.run, basis):
        return False
    if basis.unreadable:
        detail = f"{DEFINITION_UNREADABLE}{basis.unreadable}"[:_REASON_CHARS_MAX]
        _end(draft, E.RUN_BLOCKED_CORRUPT, detail, CHECKPOINT_NODE, "checkpoint_recovery_failed")
    elif basis.is_missing:
        _end(draft, E.RUN_FAILED_STARTUP, DEFINITION_MISSING, None, "")
    else:
        kind = "startup_runtime_context_missing"
        _end(draft, E.RUN_FAILED_STARTUP, CONTEXT_MISSING, CONTEXT_NODE, kind)
    return True


def can_start(run: Run, basis: ClaimBasis) -> bool:
    """Say whether what a run needs of its definition is there."""
    return basis.can_start and not (basis.lacks_context and run.runtime_context is None)


def can_be_claimed(run: Run, command: Claim) -> bool:
    """Say whether this claim takes the run; if not it puts it aside or ends it.

    What else a run has to wait for, a workspace or a place, is then of no interest.
    """
    return command.hold is None and can_start(run, command.basis)


def _end(
    draft: Draft, event: RunEvent, detail: str, node_id: NodeId | None, failure_kind: str
) -> None:
    run = draft.run
    draft.happen(event, reason=detail, metadata={"failure_kind": failure_kind})
    run.detail = detail
    run.owner = None
    if node_id is not None and run.last_failure is None:
        run.last_failure = Failure(
            node_id=node_id,
            reason=detail,
            failed_at_ms=draft.now_ms,
            failure_kind=failure_kind,
        )


def fail_start(view: RunView, obstacle: Obstacle, *, change_id: ChangeId, now_ms: int) -> Change:
    """Decide the end of a claimed run whose start check failed (T22, T23, T24).

    Raises:
        IllegalTransition: the run is not running any more.
    """
    draft = Draft(view, change_id=change_id, now_ms=now_ms)
    run = draft.run
    is_guardrail = obstacle.check is not FailedCheck.CLEANUP
    kind = StopKind.GUARDRAIL_STOPPED if is_guardrail else None
    event = (
        E.RUN_FAILED_ACTIVATION
        if obstacle.check is FailedCheck.ACTIVATION
        else E.RUN_FAILED_STARTUP
    )
    draft.happen(
        event, reason=obstacle.detail, stop_kind=kind, metadata={"check": obstacle.check.value}
    )
    run.detail = obstacle.detail
    run.stop_kind = kind
    run.stop_reason = obstacle.detail if is_guardrail else ""
    run.owner = None
    return draft.close()
