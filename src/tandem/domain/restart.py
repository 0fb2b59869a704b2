"""Runs whose engine died: queued again, or ended, as the policy says (run-lifecycle T70 to T73).

Sources: run-lifecycle 2.2 and A.4; users-and-norms 1.1 for the run that takes engine after engine
down and must stop being claimed.
"""

from typing import Final

from tandem.domain.claiming import fail, interrupt_running
from tandem.domain.command import Adopt, LossPolicy
from tandem.domain.draft import Draft
from tandem.domain.guardrail import go_on_if_allowed
from tandem.domain.lifecycle import DRIVEN, NodeState, RunEvent, RunState, StopKind
from tandem.domain.run import AttemptEnd
from tandem.domain.staleness import last_activity_at_ms

E, N, S = RunEvent, NodeState, RunState

RUN_INTERRUPTIONS_MAX: Final = 8
"""So many engines may die with a run, one after the other, while none of its nodes completes.

It is more than one node is allowed (`INTERRUPTIONS_MAX`), which stops a single culprit earlier.
"""
RESTART_INTERRUPTED: Final = "automation run interrupted by server restart"
PAUSING_SETTLED: Final = "automation run settled to paused after server restart"
REQUEUED: Final = "automation run queued for resume after server restart"
CLAIM_EXPIRED: Final = (
    "automation run requeued after execution claim lease expired before work began"
)


def adopt(draft: Draft, command: Adopt) -> None:
    run = draft.run
    if run.status not in DRIVEN or run.engine_id != command.dead:
        raise draft.refusal("adopt", f"engine {command.dead} does not hold it")
    if command.epoch not in (None, run.epoch):
        raise draft.refusal("adopt", f"engine {command.dead} has claimed it again")
    reason = f"engine {command.dead} died"
    # Nobody knows how long it went on after its last sign of life; no budget pays for that.
    draft.active_until_ms = last_activity_at_ms(run)
    in_progress = sorted(draft.in_state(N.RUNNING))
    interrupt_running(draft, AttemptEnd.INTERRUPTED, reason=reason, probed=command.probed)
    run.cleanup = None
    if run.status is S.PAUSING:
        _settle_pausing(draft)
        return
    run.interruptions += 1
    run.due_at_ms = draft.now_ms
    run.owner = command.owner
    if command.policy is LossPolicy.FAIL:
        fail(
            draft, E.RUN_FAILED_SERVER_RESTART, StopKind.SERVER_RESTART, reason=RESTART_INTERRUPTED
        )
    elif run.interruptions >= RUN_INTERRUPTIONS_MAX:
        _quarantine(draft)
    elif not in_progress:
        # A driver never leaves a running run without a running node: no work began.
        draft.happen(E.RUN_CLAIM_EXPIRED, reason=reason)
        run.detail = CLAIM_EXPIRED
        run.resume_reason = "abandoned_execution_claim"
    else:
        again = [n for n in in_progress if draft.node(n).state is N.PENDING]
        names = ", ".join(draft.plan.nodes[n].node_id for n in again)
        draft.happen(E.RUN_REQUEUED_AFTER_RESTART, reason=reason)
        run.detail = f"{REQUEUED}; repairable node(s): {names}" if names else REQUEUED
        run.resume_reason = "server_restart_rehydration"


def _settle_pausing(draft: Draft) -> None:
    run = draft.run
    draft.happen(E.RUN_PAUSING_SETTLED, reason=PAUSING_SETTLED)
    run.pause_reason = run.pause_reason or PAUSING_SETTLED
    run.owner = None
    go_on_if_allowed(draft)


def _quarantine(draft: Draft) -> None:
    run = draft.run
    run.pause_reason = run.detail = run.stop_reason = (
        f"quarantined: {run.interruptions} engines died one after the other while they drove this "
        "run, and none of its nodes completed in between; find out why, then resume it"
    )
    run.stop_kind = StopKind.SERVER_RESTART
    run.due_at_ms = None
    run.owner = None
    draft.happen(
        E.RUN_QUARANTINED,
        reason=run.detail,
        stop_kind=run.stop_kind,
        metadata={"interruptions": run.interruptions},
    )
