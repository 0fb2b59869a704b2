"""What people ask of a run: hold it, let it go on, try it again, end it."""

from tandem.domain.command import Cancel, Pause, Recover, Resume
from tandem.domain.draft import Draft
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind
from tandem.domain.reset import reset
from tandem.domain.run import Run
from tandem.domain.stopping import cancel_run

E, N, S = RunEvent, NodeState, RunState


def pause(draft: Draft, command: Pause) -> None:
    run = draft.run
    if run.status is S.RUNNING:
        draft.happen(E.RUN_PAUSE_REQUESTED, reason=command.reason)
        if not draft.in_state(N.RUNNING):
            draft.happen(E.RUN_PAUSED, reason=command.reason)
    elif run.status in (S.QUEUED, S.AWAITING_APPROVAL) or _goes_on_by_itself(run):
        draft.happen(E.RUN_PAUSED, reason=command.reason)
        run.due_at_ms = None
        run.parked = ""
        run.stop_kind = None
        run.stop_reason = ""
    else:
        raise draft.refusal("pause", "only a queued, running or waiting run can be paused")
    run.pause_reason = command.reason
    run.detail = command.reason


def _goes_on_by_itself(run: Run) -> bool:
    """Say whether a paused run waits for time, or may be resumed without a person."""
    by_itself = bool(run.parked) or run.stop_kind is StopKind.STALE_REAPED
    return run.status is S.PAUSED and by_itself


def resume(draft: Draft, command: Resume) -> None:
    run = draft.run
    if run.status is not S.PAUSED:
        raise draft.refusal("resume", "only a paused run can be resumed")
    if run.parked:
        raise draft.refusal("resume", f"it waits for the {run.parked} and goes on by itself")
    if run.cleanup:
        raise draft.refusal("resume", f"engine {run.cleanup} still ends its processes; try again")
    draft.happen(E.RUN_RESUMED, reason=command.reason)
    run.resume_reason = command.reason
    run.owner = command.owner
    queue(draft)


def recover(draft: Draft, command: Recover) -> None:
    run = draft.run
    if run.status not in (S.FAILED, S.BLOCKED):
        raise draft.refusal("recover", "only a failed or blocked run can be recovered")
    if run.cleanup:
        raise draft.refusal("recover", "its processes are still being ended; try again shortly")
    roots = draft.in_state(N.FAILED, N.BLOCKED)
    draft.happen(
        E.RUN_RECOVERED,
        reason=command.reason,
        metadata={"roots": [draft.plan.nodes[n].node_id for n in sorted(roots)]},
    )
    reset(draft, roots, reason=command.reason)
    run.last_failure = None
    run.resume_reason = command.reason
    run.detail = ""
    run.owner = command.owner
    queue(draft)


def cancel(draft: Draft, command: Cancel) -> None:
    if (draft.run.status, E.RUN_STOPPED) not in _CANCELLABLE:
        raise draft.refusal("cancel", "it has ended already")
    cancel_run(draft, E.RUN_STOPPED, reason=command.reason)


_CANCELLABLE = frozenset((state, E.RUN_STOPPED) for state in RunState) - frozenset(
    (state, E.RUN_STOPPED) for state in (S.COMPLETED, S.FAILED, S.CANCELLED)
)


def queue(draft: Draft) -> None:
    """Make a run claimable from now on; what stopped it before is settled."""
    run = draft.run
    run.interruptions = 0
    run.due_at_ms = draft.now_ms
    run.pause_reason = ""
    run.stop_kind = None
    run.stop_reason = ""
    run.finished_at_ms = None
