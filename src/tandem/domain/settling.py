"""Settling an attempt: what its outcome does to its node, and to the nodes after it."""

from collections.abc import Mapping
from typing import assert_never

import msgspec

from tandem.domain.artifact import ArtifactRef, NodeArtifact, Provenance, Validity
from tandem.domain.asking import ask_for_outcome
from tandem.domain.change import Throttle
from tandem.domain.command import Probed
from tandem.domain.completion import complete, end_attempt
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.ids import attempt_id
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.outcome import Failed, FailureClass, NeedsRepair, Outcome, Stopped, Succeeded
from tandem.domain.retry import GiveUp, RetryAt, decide_retry
from tandem.domain.run import AttemptEnd, Failure, NodeRun

E, N = RunEvent, NodeState

INTERRUPTIONS_MAX = 5
REASON_CHARS_MAX = 500
_REUSED: JsonObject = {
    "accepted_candidate_source": "preexisting_output",
    "status": "reused_valid",
}
_CLASSES_OF_VERIFICATION = frozenset({FailureClass.VERIFICATION_FAILED})


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that ended. `output` is JSON text; a large one is an artifact, `output_ref`.

    `provenance` has what the contract found out about files, by path; `contract` is its digest.
    `inputs_digest` is the digest of what the node was given, only where reuse is allowed; `reused`
    says that the body was not run because what it would make is there.
    """

    node_no: int
    number: int
    outcome: Outcome
    output: bytes | None = None
    output_ref: ArtifactRef | None = None
    provenance: Mapping[str, Provenance] = {}
    contract: str = ""
    inputs_digest: str = ""
    reused: bool = False


def settle(draft: Draft, item: Settled) -> None:
    """Record how an attempt ended. An attempt that no longer counts is ignored."""
    node = draft.node(item.node_no)
    if node.state is not N.RUNNING or node.attempts != item.number:
        return
    plan_node = draft.plan.nodes[item.node_no]
    match item.outcome:
        case Succeeded():
            _settle_success(draft, plan_node, node, item, item.outcome)
        case NeedsRepair():
            _settle_repair(draft, plan_node, node, item, item.outcome)
        case Failed():
            _settle_failure(draft, plan_node, node, item.outcome)
        case Stopped():
            end_attempt(draft, node, AttemptEnd.STOPPED, message=item.outcome.reason)
            interrupt(draft, plan_node, node, reason=item.outcome.reason, counts=False)
        case _:
            assert_never(item.outcome)


def _settle_success(
    draft: Draft, plan_node: PlanNode, node: NodeRun, item: Settled, outcome: Succeeded
) -> None:
    end_attempt(draft, node, AttemptEnd.SUCCEEDED, exit_code=outcome.exit_code)
    refs = outcome.artifacts if item.output_ref is None else (*outcome.artifacts, item.output_ref)
    left = [_entry(draft, node, item, ref) for ref in refs]
    draft.artifacts += left
    complete(
        draft,
        plan_node,
        output=item.output,
        # With both, the artifact is a copy for later reuse.
        output_ref=item.output_ref if item.output is None else None,
        artifacts=left,
        metadata=_REUSED if item.reused else {},
    )


def _entry(
    draft: Draft,
    node: NodeRun,
    item: Settled,
    ref: ArtifactRef,
    validity: Validity = Validity.VALID,
) -> NodeArtifact:
    """Return the entry of the registry for what an attempt left."""
    found = item.provenance.get(ref.path) or Provenance()
    is_valid = validity is Validity.VALID
    return NodeArtifact(
        node_no=node.node_no,
        attempt=node.attempts,
        ref=ref,
        contract=item.contract,
        inputs_digest=item.inputs_digest,
        validity=validity,
        provenance=msgspec.structs.replace(
            found,
            validation_outcome="passed" if is_valid else "failed",
            repair_attempt=node.repairs_used,
            repair_succeeded=is_valid and node.repairs_used > 0,
        ),
        registered_at_ms=draft.now_ms,
    )


def _settle_repair(
    draft: Draft, plan_node: PlanNode, node: NodeRun, item: Settled, outcome: NeedsRepair
) -> None:
    reason = "; ".join(outcome.reasons)[:REASON_CHARS_MAX]
    end_attempt(
        draft,
        node,
        AttemptEnd.NEEDS_REPAIR,
        failure_class=outcome.failure_class,
        message=reason,
        detail="\n".join(outcome.reasons),
    )
    if node.repairs_used < plan_node.repair_budget and node.attempts_used < plan_node.max_attempts:
        again = msgspec.structs.replace(
            node, state=N.PENDING, repairs_used=node.repairs_used + 1, repair=outcome.reasons
        )
        draft.move(plan_node, E.NODE_REPAIR_REQUESTED, again, attempt=node.attempts, reason=reason)
        draft.run.detail = f"repairing node `{plan_node.node_id}`: {reason}"
        return
    if item.output_ref is not None:
        # It is kept for whoever looks into it, and never counts (W-10).
        draft.artifacts.append(_entry(draft, node, item, item.output_ref, Validity.REJECTED))
    kept = msgspec.structs.replace(
        node, output=item.output, output_ref=item.output_ref, repair=outcome.reasons
    )
    if outcome.failure_class in _CLASSES_OF_VERIFICATION:
        halt(draft, plan_node, kept, E.NODE_VERIFY_FAILED, "verification_failed", reason)
    else:
        halt(draft, plan_node, kept, E.NODE_BLOCKED, "artifact_contract_unmet", reason)
        _block_descendants(draft, plan_node)


def _settle_failure(draft: Draft, plan_node: PlanNode, node: NodeRun, outcome: Failed) -> None:
    reason = outcome.message[:REASON_CHARS_MAX]
    if outcome.provider and outcome.retry_after_ms:
        until_ms = draft.now_ms + outcome.retry_after_ms
        draft.throttles.append(Throttle(provider=outcome.provider, until_ms=until_ms))
    end_attempt(
        draft,
        node,
        AttemptEnd.FAILED,
        failure_class=outcome.failure_class,
        message=reason,
        detail=outcome.detail,
        exit_code=outcome.exit_code,
    )
    decision = decide_retry(
        plan_node.node.retry_policy,
        attempts_max=plan_node.max_attempts,
        attempts_used=node.attempts_used,
        failure_class=outcome.failure_class,
        failed_at_ms=draft.now_ms,
        first_started_at_ms=node.started_at_ms or draft.now_ms,
        retry_after_ms=outcome.retry_after_ms,
        jitter_key=attempt_id(draft.run.run_id, plan_node.node_id, node.attempts),
    )
    match decision:
        case RetryAt(at_ms):
            again = msgspec.structs.replace(node, state=N.BACKOFF, due_at_ms=at_ms)
            tries = f"{node.attempts_used}/{plan_node.max_attempts}"
            draft.move(
                plan_node,
                E.NODE_RETRY_SCHEDULED,
                again,
                attempt=node.attempts,
                reason=reason,
                metadata={
                    "failure_class": outcome.failure_class.value,
                    "retry_after_ms": at_ms,
                    "retry_backoff_ms": at_ms - draft.now_ms,
                },
            )
            draft.run.detail = (
                f"retrying node `{plan_node.node_id}` after attempt {tries} failed: {reason}"
            )
        case GiveUp(why):
            halt(
                draft, plan_node, node, E.NODE_FAILED, outcome.failure_class.value, reason, why=why
            )
        case _:
            assert_never(decision)


def halt(
    draft: Draft,
    plan_node: PlanNode,
    node: NodeRun,
    event: RunEvent,
    kind: str,
    reason: str,
    *,
    why: str = "",
) -> None:
    """Let a node fail or block for good, and the run remember why."""
    failure = Failure(
        node_id=plan_node.node_id, reason=reason, failed_at_ms=draft.now_ms, failure_kind=kind
    )
    halted = msgspec.structs.replace(node, finished_at_ms=draft.now_ms, failure=failure)
    draft.move(
        plan_node,
        event,
        halted,
        attempt=node.attempts or None,
        reason=reason,
        metadata={"failure_kind": kind, "gave_up_because": why} if why else {"failure_kind": kind},
    )
    draft.run.last_failure = failure
    draft.moved = True


def _block_descendants(draft: Draft, plan_node: PlanNode) -> None:
    for number in draft.plan.with_descendants([plan_node.node_no]):
        node = draft.node(number)
        if number != plan_node.node_no and node.state is N.PENDING:
            after = draft.plan.nodes[number]
            reason = f"upstream node `{plan_node.node_id}` is blocked"
            draft.move(after, E.NODE_BLOCKED, node, reason=reason)


def interrupt(
    draft: Draft,
    plan_node: PlanNode,
    node: NodeRun,
    *,
    reason: str,
    counts: bool,
    probed: Probed | None = None,
) -> None:
    """Decide what follows an attempt that was cut off: by the engine, or by the engine's death.

    A node with outside effects is not repeated silently: its probe answers, else a person is
    asked. `counts` says that the engine died with it; a node that keeps taking its engine down
    stops being tried.
    """
    if plan_node.node.effective_effects == "external":
        if probed is None:
            ask_for_outcome(draft, plan_node, node, reason)
            return
        if probed.is_done:
            done = "the effects probe says that it was done"
            complete(draft, plan_node, output=probed.output or b"null", reason=done)
            return
    interruptions = node.interruptions + counts
    if interruptions >= INTERRUPTIONS_MAX:
        cut = msgspec.structs.replace(node, interruptions=interruptions)
        text = f"its engine died {interruptions} times while it ran"
        halt(draft, plan_node, cut, E.NODE_FAILED, FailureClass.INTERRUPTED.value, text)
        return
    kind = FailureClass.INTERRUPTED.value
    again = msgspec.structs.replace(
        node,
        state=N.PENDING,
        attempts_used=max(node.attempts_used - 1, 0),
        interruptions=interruptions,
        failure=mark(draft, plan_node, kind, reason) if counts else node.failure,
    )
    draft.move(
        plan_node,
        E.NODE_INTERRUPTED,
        again,
        attempt=node.attempts,
        reason=reason,
        metadata={"status": "needs_repair", "blocker_category": kind} if counts else {},
    )


def mark(draft: Draft, plan_node: PlanNode, kind: str, reason: str) -> Failure:
    """Return why a node that was in progress is to run again; the run keeps the first of them."""
    failure = Failure(
        node_id=plan_node.node_id, reason=reason, failed_at_ms=draft.now_ms, failure_kind=kind
    )
    if draft.run.last_failure is None:
        draft.run.last_failure = failure
        draft.moved = True
    return failure
