"""How engines take runs, keep them, give them back and lose them."""

from tandem.domain.command import Adopt, Claim, HandBack, Own, Panic, ProcessesEnded
from tandem.domain.completion import end_attempt
from tandem.domain.draft import Draft
from tandem.domain.hold import hold
from tandem.domain.lifecycle import DRIVEN, LIVE, NodeState, RunEvent, RunState, StopKind
from tandem.domain.run import AttemptEnd
from tandem.domain.settling import interrupt
from tandem.domain.starting import refuse_claim

E, N, S = RunEvent, NodeState, RunState


def claim(draft: Draft, command: Claim) -> None:
    run = draft.run
    if run.status is not S.QUEUED:
        raise draft.refusal("claim", "only a queued run can be claimed")
    if run.due_at_ms is None and run.resource_key:
        raise draft.refusal("claim", f"it is held by {run.resource_key}")
    if command.hold is not None:
        hold(draft, command.hold)
        return
    if refuse_claim(draft, command):
        return
    run.engine_id = command.engine_id
    run.epoch += 1
    run.due_at_ms = None
    run.queue_reason = None
    if run.started_at_ms is None:
        run.started_at_ms = draft.now_ms
    draft.happen(
        E.RUN_CLAIMED,
        metadata={
            "claimant_id": command.engine_id,
            "lease_epoch": run.epoch,
            "claim_id": f"run-claim-{draft.change_id}",
        },
    )


def adopt(draft: Draft, command: Adopt) -> None:
    run = draft.run
    if run.status not in DRIVEN or run.engine_id != command.dead:
        raise draft.refusal("adopt", f"engine {command.dead} does not hold it")
    reason = f"engine {command.dead} died"
    _interrupt_running(draft, AttemptEnd.INTERRUPTED, reason=reason)
    if run.status is S.PAUSING:
        draft.happen(
            E.RUN_PAUSING_SETTLED, reason="automation run settled to paused after server restart"
        )
        run.owner = None
        return
    draft.happen(E.RUN_REQUEUED_AFTER_RESTART, reason=reason)
    run.detail = "automation run queued for resume after server restart"
    run.resume_reason = "server_restart_rehydration"
    run.due_at_ms = draft.now_ms
    run.owner = command.owner


def own(draft: Draft, command: Own) -> None:
    run = draft.run
    if run.status not in LIVE - DRIVEN:
        raise draft.refusal("own", "only a run that waits can change its owner")
    if run.owner != command.former:
        raise draft.refusal("own", "another engine was first")
    run.owner = command.engine_id
    draft.happen(E.RUN_OWNER_CHANGED, metadata={"owner": command.engine_id})


def _interrupt_running(draft: Draft, end: AttemptEnd, *, reason: str) -> None:
    counts = end is AttemptEnd.INTERRUPTED
    for number in sorted(draft.in_state(N.RUNNING)):
        node = draft.node(number)
        end_attempt(draft, node, end, message=reason)
        interrupt(draft, draft.plan.nodes[number], node, reason=reason, counts=counts)


def hand_back(draft: Draft, command: HandBack) -> None:
    run = draft.run
    if run.status not in DRIVEN or run.engine_id != command.engine_id:
        raise draft.refusal("hand back", f"engine {command.engine_id} does not hold it")
    _interrupt_running(draft, AttemptEnd.STOPPED, reason=command.reason)
    run.owner = None
    if run.status is S.PAUSING:
        draft.happen(E.RUN_PAUSED, reason=run.pause_reason)
        return
    draft.happen(E.RUN_HANDED_BACK, reason=command.reason)
    run.detail = command.reason
    run.due_at_ms = draft.now_ms


def confirm_processes_ended(draft: Draft, command: ProcessesEnded) -> None:
    run = draft.run
    if run.cleanup != command.engine_id:
        raise draft.refusal("clean up", f"engine {command.engine_id} holds no process of it")
    draft.happen(E.RUN_PROCESSES_ENDED)
    run.cleanup = None


def fail_panicked(draft: Draft, command: Panic) -> None:
    run = draft.run
    if run.status not in DRIVEN or run.engine_id != command.engine_id:
        raise draft.refusal("fail", f"engine {command.engine_id} does not hold it")
    _interrupt_running(draft, AttemptEnd.STOPPED, reason=command.reason)
    run.detail = run.stop_reason = f"automation run panicked: {command.reason}"
    run.stop_kind = StopKind.PANIC
    run.owner = None
    draft.happen(E.RUN_FAILED_PANIC, reason=run.detail, stop_kind=run.stop_kind)
