"""Settling an attempt: what its outcome does to its node, and to the nodes after it."""

from collections.abc import Mapping, Sequence
from typing import assert_never

import msgspec

from tandem.domain import review
from tandem.domain.artifact import ArtifactRef, NodeArtifact, Provenance, Validity
from tandem.domain.asking import ask_for_outcome
from tandem.domain.change import Throttle
from tandem.domain.command import Probed
from tandem.domain.completion import complete, end_attempt
from tandem.domain.draft import Draft
from tandem.domain.failure_text import attempts_floor, error_text, failed_detail
from tandem.domain.graph import PlanNode
from tandem.domain.ids import NodeId, attempt_id
from tandem.domain.json import JsonObject, digest
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.node import Effects, NodeKind
from tandem.domain.outcome import (
    Blocked,
    Failed,
    FailureClass,
    NeedsRepair,
    Outcome,
    Stopped,
    Succeeded,
)
from tandem.domain.partial_failure import spread
from tandem.domain.profile import repair_budget
from tandem.domain.reading import Reading, Relaxation
from tandem.domain.retry import GiveUp, RetryAt, decide_retry
from tandem.domain.retry_policy import TerminalMode
from tandem.domain.run import AttemptEnd, Failure, NodeRun
from tandem.domain.schema_pause import (
    PAUSE_REASON,
    VIOLATION,
    pause_metadata,
    pauses_on_violation,
)
from tandem.domain.verdict import verdict_of

E, N, S = RunEvent, NodeState, RunState

INTERRUPTIONS_MAX = 5
REASON_CHARS_MAX = 500
REVIEW = "paused for review of a node that gave up"
_REUSED: JsonObject = {
    "accepted_candidate_source": "preexisting_output",
    "status": "reused_valid",
}
_CLASSES_OF_VERIFICATION = frozenset({FailureClass.VERIFICATION_FAILED})


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that ended. `output` is JSON text; a large one is an artifact, `output_ref`.

    `reading` is how a success was read. `relaxation` is what the profile of the run would let pass
    of an output that misses something; it counts only when a repair does not follow.

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
    reading: Reading | None = None
    relaxation: Relaxation | None = None


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
        case Blocked():
            _settle_block(draft, plan_node, node, item, item.outcome)
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
    left = _register(draft, node, item, outcome.artifacts)
    _complete(draft, plan_node, item, item.reading, left=left)


def _complete(
    draft: Draft,
    plan_node: PlanNode,
    item: Settled,
    reading: Reading | None,
    *,
    left: Sequence[NodeArtifact],
    reason: str = "",
) -> None:
    tainted = _tainted_inputs(draft, plan_node)
    if tainted:
        reading = msgspec.structs.replace(
            reading or Reading(), experimental=True, tainted_inputs=tainted
        )
    warnings = reading.warnings if reading is not None else ()
    told: JsonObject = {"warnings": warnings, "warning_count": len(warnings)} if warnings else {}
    complete(
        draft,
        plan_node,
        output=item.output,
        # With both, the artifact is a copy for later reuse.
        output_ref=item.output_ref if item.output is None else None,
        artifacts=left,
        reason=reason,
        event=E.NODE_COMPLETED_WITH_WARNINGS if warnings else E.NODE_COMPLETED,
        metadata={**told, **(_REUSED if item.reused else {})},
        reading=reading,
    )


def _register(
    draft: Draft,
    node: NodeRun,
    item: Settled,
    files: Sequence[ArtifactRef] = (),
    *,
    validity: Validity = Validity.VALID,
    judged: str = "passed",
) -> list[NodeArtifact]:
    """Write what an attempt left into the registry, its output too if that was put aside.

    Only what passed as it is can be used again later; what is not valid is kept for whoever looks
    into it, and never counts (W-10).
    """
    refs = files if item.output_ref is None else (*files, item.output_ref)
    left = [_entry(draft, node, item, ref, validity, judged) for ref in refs]
    draft.artifacts += left
    return left


def _entry(
    draft: Draft, node: NodeRun, item: Settled, ref: ArtifactRef, validity: Validity, judged: str
) -> NodeArtifact:
    passed = judged == "passed"
    return NodeArtifact(
        node_no=node.node_no,
        attempt=node.attempts,
        ref=ref,
        contract=item.contract,
        inputs_digest=item.inputs_digest if passed else "",
        validity=validity,
        provenance=msgspec.structs.replace(
            item.provenance.get(ref.path) or Provenance(),
            validation_outcome=judged,
            repair_attempt=node.repairs_used,
            repair_succeeded=passed and node.repairs_used > 0,
        ),
        registered_at_ms=draft.now_ms,
    )


def _reject(draft: Draft, node: NodeRun, item: Settled) -> None:
    _register(draft, node, item, validity=Validity.REJECTED, judged="failed")


def _tainted_inputs(draft: Draft, plan_node: PlanNode) -> tuple[NodeId, ...]:
    """Name the nodes right before this one whose outputs are experimental (definitions 6)."""
    found: list[NodeId] = []
    for number in plan_node.depends_on:
        reading = draft.node(number).reading
        if reading is not None and reading.experimental:
            found.append(draft.plan.nodes[number].node_id)
    return tuple(found)


def _relax(
    draft: Draft,
    plan_node: PlanNode,
    item: Settled,
    relaxation: Relaxation,
    warnings: tuple[str, ...],
) -> None:
    """Complete a node whose output misses only what the profile of the run lets pass."""
    count = len(warnings)
    told = {**msgspec.to_builtins(relaxation), "warning_count": count}
    number, reason = draft.node(item.node_no).attempts, "; ".join(warnings)[:REASON_CHARS_MAX]
    draft.happen(
        E.NODE_RELAXED, node_id=plan_node.node_id, attempt=number, reason=reason, metadata=told
    )
    reading = Reading(
        status=relaxation.status,
        warnings=warnings,
        experimental=relaxation.effective_outcome == "experimental",
        relaxation=relaxation,
    )
    left = _register(draft, draft.node(item.node_no), item, judged="relaxed")
    _complete(draft, plan_node, item, reading, left=left, reason=reason)


def _settle_repair(
    draft: Draft, plan_node: PlanNode, node: NodeRun, item: Settled, outcome: NeedsRepair
) -> None:
    reason = "; ".join(outcome.reasons)[:REASON_CHARS_MAX]
    budget = repair_budget(plan_node.node, draft.run.effective_execution_profile)
    can_repair = node.repairs_used < budget and node.attempts_used < plan_node.max_attempts
    end_attempt(
        draft,
        node,
        AttemptEnd.NEEDS_REPAIR,
        failure_class=outcome.failure_class,
        message=reason,
        detail="\n".join(outcome.reasons),
        unmet=outcome.unmet,
        is_repair_charged=can_repair,
    )
    if can_repair and _holds_run(draft, plan_node, outcome):
        _hold_for_schema(draft, plan_node, node, item, outcome, reason)
        return
    if can_repair:
        again = msgspec.structs.replace(
            node, state=N.PENDING, repairs_used=node.repairs_used + 1, repair=outcome.reasons
        )
        draft.move(plan_node, E.NODE_REPAIR_REQUESTED, again, attempt=node.attempts, reason=reason)
        draft.run.detail = f"repairing node `{plan_node.node_id}`: {reason}"
        return
    if item.relaxation is not None:
        _relax(draft, plan_node, item, item.relaxation, outcome.reasons)
        return
    _reject(draft, node, item)
    kept = msgspec.structs.replace(
        node, output=item.output, output_ref=item.output_ref, repair=outcome.reasons
    )
    if outcome.failure_class in _CLASSES_OF_VERIFICATION:
        halt(draft, plan_node, kept, E.NODE_VERIFY_FAILED, "verification_failed", reason)
    else:
        kind = VIOLATION if VIOLATION in outcome.unmet else "artifact_contract_unmet"
        halt(draft, plan_node, kept, E.NODE_BLOCKED, kind, reason)
    _ask_for_review(draft, plan_node, reason)


def _holds_run(draft: Draft, plan_node: PlanNode, outcome: NeedsRepair) -> bool:
    wanted = pauses_on_violation(draft.plan.automation, plan_node.node)
    return wanted and VIOLATION in outcome.unmet


def _hold_for_schema(
    draft: Draft,
    plan_node: PlanNode,
    node: NodeRun,
    item: Settled,
    outcome: NeedsRepair,
    reason: str,
) -> None:
    """Hold the run for a person (T41); the node stays pending, so that a resume tries it again."""
    _reject(draft, node, item)
    run = draft.run
    actual = item.output_ref.digest if item.output_ref else digest(item.output or b"")
    told = pause_metadata(run, plan_node, node, reason=reason, actual=actual, unmet=outcome.unmet)
    failure = Failure(
        node_id=plan_node.node_id,
        reason=reason,
        failed_at_ms=draft.now_ms,
        failure_kind=VIOLATION,
        metadata=dict(told),
    )
    again = msgspec.structs.replace(
        node,
        state=N.PENDING,
        repairs_used=node.repairs_used + 1,
        repair=outcome.reasons,
        failure=failure,
    )
    draft.move(
        plan_node,
        E.NODE_SCHEMA_PAUSED,
        again,
        attempt=node.attempts,
        reason=reason,
        metadata=told,
    )
    if run.status is S.RUNNING:
        # What runs lands first; nothing of it is thrown away (W-09).
        draft.happen(E.RUN_PAUSE_REQUESTED, reason=PAUSE_REASON)
    run.last_failure = failure
    run.pause_reason = PAUSE_REASON
    run.detail = f"node `{plan_node.node_id}` violates its schema: {reason}"


def _settle_block(
    draft: Draft, plan_node: PlanNode, node: NodeRun, item: Settled, outcome: Blocked
) -> None:
    """Settle a body that says it cannot go on: a review that rejects, or any other blocker."""
    reason = error_text(outcome.reason)
    end_attempt(
        draft,
        node,
        AttemptEnd.BLOCKED,
        failure_class=outcome.kind,
        message=reason,
        unmet=outcome.unmet,
    )
    if item.relaxation is not None:
        _relax(draft, plan_node, item, item.relaxation, (reason,))
        return
    roots = review.roots_of(draft, plan_node) if outcome.is_rejection else []
    if roots:
        review.roll_back(draft, plan_node, roots, reason=reason)
        return
    _reject(draft, node, item)
    kept = msgspec.structs.replace(node, output=item.output, output_ref=item.output_ref)
    halt(draft, plan_node, kept, E.NODE_BLOCKED, outcome.kind, reason)


def _settle_failure(draft: Draft, plan_node: PlanNode, node: NodeRun, outcome: Failed) -> None:
    reason = error_text(outcome.message)
    attempts_max = _attempts_max(plan_node, outcome)
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
        attempts_max=attempts_max,
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
            delay_ms = at_ms - draft.now_ms
            draft.move(
                plan_node,
                E.NODE_RETRY_SCHEDULED,
                again,
                attempt=node.attempts,
                reason=reason,
                metadata={
                    "failure_class": outcome.failure_class.value,
                    "retry_after_ms": at_ms,
                    "retry_backoff_ms": delay_ms,
                },
            )
            tries = (node.attempts_used, attempts_max)
            is_transient = outcome.failure_class is FailureClass.PROVIDER_TRANSIENT
            draft.run.detail = _retry_detail(
                plan_node, tries, reason, delay_ms if is_transient else 0
            )
        case GiveUp(why):
            kind = outcome.failure_class.value
            halt(draft, plan_node, node, E.NODE_FAILED, kind, reason, why=why)
            failure = draft.node(node.node_no).failure
            draft.run.detail = failed_detail(failure) if failure is not None else reason
            _ask_for_review(draft, plan_node, reason)
        case _:
            assert_never(decision)


def _ask_for_review(draft: Draft, plan_node: PlanNode, reason: str) -> None:
    """Hold the run for a person where the policy of a node that gave up says so (W-24).

    What runs lands first. The person retries the node, skips it or gives it an output; a plain
    resume lets the run end by it.
    """
    policy, run = plan_node.node.retry_policy, draft.run
    behavior = policy.terminal_behavior if policy is not None else None
    if behavior is None or behavior.mode is not TerminalMode.PAUSE_FOR_REVIEW:
        return
    if run.status is S.RUNNING:
        draft.happen(E.RUN_PAUSE_REQUESTED, reason=REVIEW)
        run.pause_reason = f"{REVIEW}: node `{plan_node.node_id}`: {reason}"
        run.detail = run.pause_reason


def _attempts_max(plan_node: PlanNode, outcome: Failed) -> int:
    """Return how many attempts this failure is worth (run-lifecycle 4.4, the floor rule).

    The floor is for agents: whoever limits the attempts of a command, a function or a request
    means it, and what has effects outside is not repeated by a rule.
    """
    node = plan_node.node
    if plan_node.kind is not NodeKind.AGENT or node.effective_effects is Effects.EXTERNAL:
        return plan_node.max_attempts
    floor = attempts_floor(outcome.failure_class, outcome.message)
    return max(plan_node.max_attempts, floor)


def _retry_detail(plan_node: PlanNode, tries: tuple[int, int], reason: str, delay_ms: int) -> str:
    used, of = tries
    if not delay_ms:
        return f"retrying node `{plan_node.node_id}` after attempt {used}/{of} failed: {reason}"
    return (
        f"retrying node `{plan_node.node_id}` after transient provider failure; "
        f"queued for retry in {delay_ms} ms before attempt {used + 1}/{of}: {reason}"
    )


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
        node_id=plan_node.node_id,
        reason=reason,
        failed_at_ms=draft.now_ms,
        failure_kind=kind,
        metadata=dict(_account_of(draft, plan_node, node)),
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
    spread(draft, plan_node, event)


def _account_of(draft: Draft, plan_node: PlanNode, node: NodeRun) -> JsonObject:
    """Return what a failure event tells of the attempts of a node (run-lifecycle 4.11)."""
    # The floor of run-lifecycle 4.4 may have given more attempts than are configured.
    used, of = node.attempts_used, max(node.attempts_used, plan_node.max_attempts)
    ended = [attempt for attempt in draft.attempts_ended if attempt.node_no == node.node_no]
    contract = plan_node.node.output_contract
    return {
        "attempt": node.attempts,
        "attempts_used": used,
        "max_attempts": of,
        "retry_exhausted": used >= of,
        "agent_id": plan_node.node.agent_id,
        "contract_kind": contract.kind if contract else None,
        "validation_errors": list(node.repair),
        "attempt_verdict_chain": [verdict_of(plan_node, attempt) for attempt in ended],
    }


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
            ref = probed.output_ref
            output = (probed.output or b"null") if ref is None else None
            complete(draft, plan_node, output=output, output_ref=ref, reason=done)
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
