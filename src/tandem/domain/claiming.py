"""How engines take runs, keep them and give them back."""

from collections.abc import Sequence
from typing import Final

from tandem.domain.command import (
    Claim,
    HandBack,
    LossPolicy,
    Own,
    Panic,
    Probed,
    ProcessesEnded,
)
from tandem.domain.completion import end_attempt
from tandem.domain.draft import Draft
from tandem.domain.guardrail import come_to_rest
from tandem.domain.hold import hold
from tandem.domain.lifecycle import DRIVEN, LIVE, NodeState, RunEvent, RunState, StopKind
from tandem.domain.run import AttemptEnd
from tandem.domain.settling import interrupt
from tandem.domain.starting import refuse_claim

E, N, S = RunEvent, NodeState, RunState

SHUTDOWN_STOPPED: Final = "automation run stopped during server shutdown"


def claim(draft: Draft, command: Claim) -> None:
    run = draft.run
    if run.status is not S.QUEUED:
        raise draft.refusal("claim", "only a queued run can be claimed")
    if run.cleanup:
        raise draft.refusal("claim", f"engine {run.cleanup} still ends its processes")
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


def own(draft: Draft, command: Own) -> None:
    run = draft.run
    if run.status not in LIVE - DRIVEN:
        raise draft.refusal("own", "only a run that waits can change its owner")
    if run.owner != command.former:
        raise draft.refusal("own", "another engine was first")
    run.owner = command.engine_id
    draft.happen(E.RUN_OWNER_CHANGED, metadata={"owner": command.engine_id})


def interrupt_running(
    draft: Draft, end: AttemptEnd, *, reason: str, probed: Sequence[Probed] = ()
) -> None:
    """Close the attempts of the running nodes and decide what follows each."""
    counts = end is AttemptEnd.INTERRUPTED
    answers = {answer.node_no: answer for answer in probed}
    for number in sorted(draft.in_state(N.RUNNING)):
        node = draft.node(number)
        end_attempt(draft, node, end, message=reason)
        interrupt(
            draft,
            draft.plan.nodes[number],
            node,
            reason=reason,
            counts=counts,
            probed=answers.get(number),
        )


def hand_back(draft: Draft, command: HandBack) -> None:
    run = draft.run
    if run.status not in DRIVEN or run.engine_id != command.engine_id:
        raise draft.refusal("hand back", f"engine {command.engine_id} does not hold it")
    interrupt_running(draft, AttemptEnd.STOPPED, reason=command.reason)
    run.cleanup = None
    run.owner = None
    if run.status is S.PAUSING:
        come_to_rest(draft)
    elif command.policy is LossPolicy.FAIL:
        fail(draft, E.RUN_FAILED_SHUTDOWN, StopKind.SHUTDOWN, reason=SHUTDOWN_STOPPED)
    else:
        # The stop kind is that of the record; the run itself is not stopped (T77).
        draft.happen(E.RUN_HANDED_BACK, reason=command.reason, stop_kind=StopKind.SHUTDOWN)
        run.detail = command.reason
        run.due_at_ms = draft.now_ms


def fail(draft: Draft, event: RunEvent, kind: StopKind, *, reason: str) -> None:
    """End a run as failed because of what happened to its engine, not to its nodes."""
    run = draft.run
    run.detail = run.stop_reason = reason
    run.stop_kind = kind
    run.owner = None
    draft.happen(event, reason=reason, stop_kind=kind)


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
    interrupt_running(draft, AttemptEnd.STOPPED, reason=command.reason)
    run.cleanup = None
    reason = f"automation run panicked: {command.reason}"
    fail(draft, E.RUN_FAILED_PANIC, StopKind.PANIC, reason=reason)
