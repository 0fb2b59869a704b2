"""What people ask of a whole run: hold it, let it go on, end it."""

from tandem.domain.command import Cancel, Pause, Resume
from tandem.domain.draft import Draft
from tandem.domain.errors import NothingToDo
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind
from tandem.domain.overrun import refuse_exceeded
from tandem.domain.reviving import queue, refuse_cleanup
from tandem.domain.run import Run
from tandem.domain.stopping import cancel_run

E, N, S = RunEvent, NodeState, RunState

PAUSE_NOW = "now"


def pause(draft: Draft, command: Pause) -> None:
    """Hold a run (T50). It is `pausing` until nothing of it runs, so nobody can take it before."""
    run = draft.run
    hurries = command.now and run.status is S.PAUSING and run.pause_mode != PAUSE_NOW
    if run.status is S.RUNNING or hurries:
        draft.happen(E.RUN_PAUSE_REQUESTED, reason=command.reason, metadata={"now": command.now})
        if not draft.in_state(N.RUNNING):
            draft.happen(E.RUN_PAUSED, reason=command.reason)
        elif command.now:
            run.pause_mode = PAUSE_NOW
        # From now on a person holds it, even if its budget had stopped it.
        run.stop_kind = None
        run.stop_reason = ""
    elif run.status in (S.QUEUED, S.AWAITING_APPROVAL) or goes_on_by_itself(run):
        draft.happen(E.RUN_PAUSED, reason=command.reason)
        run.due_at_ms = None
        run.parked = ""
        run.stop_kind = None
        run.stop_reason = ""
    else:
        raise draft.refusal(
            "pause",
            "only a queued, running or waiting run can be paused",
            code="AUTOMATION_V2_RUN_NOT_PAUSABLE",
        )
    run.pause_reason = command.reason
    run.detail = command.reason


def goes_on_by_itself(run: Run) -> bool:
    """Say whether a paused run waits for time, or may be resumed without a person."""
    by_itself = bool(run.parked) or run.stop_kind is StopKind.STALE_REAPED
    return run.status is S.PAUSED and by_itself


def resume(draft: Draft, command: Resume) -> None:
    """Let a run go on that a person holds (T54)."""
    run = draft.run
    code = "AUTOMATION_V2_RUN_NOT_PAUSED"
    if run.status is not S.PAUSED:
        raise draft.refusal("resume", "only a paused run can be resumed", code=code)
    if run.parked:
        hint = f"it waits for the {run.parked} and goes on by itself"
        raise draft.refusal("resume", hint, code=code)
    refuse_cleanup(draft, "resume")
    refuse_exceeded(draft, "resume")
    draft.happen(E.RUN_RESUMED, reason=command.reason)
    run.resume_reason = command.reason
    run.owner = command.owner
    queue(draft)


def cancel(draft: Draft, command: Cancel) -> None:
    """End a run (T55, T56)."""
    run = draft.run
    if run.status in (S.COMPLETED, S.FAILED, S.CANCELLED):
        raise NothingToDo(
            f"run {run.run_id} has ended already: it is {run.status.value}", code="already_terminal"
        )
    cancel_run(draft, E.RUN_STOPPED, reason=command.reason)
