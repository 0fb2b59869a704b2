"""How a claimed run goes on: settle what ended, start what is ready, park or finish.

Sources: run-lifecycle 4 and 6, with the parking rule of design section 5: a run is running while
any node runs or can run; a slow node, a gate or a wait never holds back independent nodes.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec

from tandem.domain.artifact import ArtifactRef
from tandem.domain.automation import TimerWait
from tandem.domain.change import Change, NodeArtifact
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.ids import ChangeId, EngineId, GateId, WaitId, attempt_id
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind
from tandem.domain.outcome import Failed, FailureClass, NeedsRepair, Outcome, Stopped, Succeeded
from tandem.domain.retry import GiveUp, RetryAt, decide_retry
from tandem.domain.run import (
    Attempt,
    AttemptEnd,
    Failure,
    Gate,
    GatePurpose,
    GateStatus,
    NodeRun,
    QueueReason,
    Wait,
    WaitStatus,
)
from tandem.domain.view import RunView

E, N, S = RunEvent, NodeState, RunState

GATE_EXPIRES_AFTER_MS = 604_800_000
INTERRUPTIONS_MAX = 5
REASON_CHARS_MAX = 500
_CLASSES_OF_VERIFICATION = frozenset({FailureClass.VERIFICATION_FAILED})


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that ended. `output` is JSON text; a large one is an artifact, `output_ref`."""

    node_no: int
    number: int
    outcome: Outcome
    output: bytes | None = None
    output_ref: ArtifactRef | None = None


def advance(
    view: RunView,
    *,
    settled: Sequence[Settled],
    engine_id: EngineId,
    change_id: ChangeId,
    now_ms: int,
) -> Change | None:
    """Take a claimed run one step further; None when there is nothing to write.

    Settles the attempts that ended, decides due waits and gates, starts every node that is ready
    and has a place, and parks or finishes the run when nothing runs and nothing can start.
    """
    draft = Draft(view, change_id=change_id, now_ms=now_ms)
    for item in settled:
        settle(draft, item)
    wake_due(draft)
    if draft.run.status is S.RUNNING:
        _start_ready(draft, engine_id)
    _rest(draft)
    return draft.close() if draft.events else None


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
    for ref in outcome.artifacts:
        draft.artifacts.append(NodeArtifact(node_no=node.node_no, attempt=node.attempts, ref=ref))
    complete(draft, plan_node, output=item.output, output_ref=item.output_ref)


def complete(
    draft: Draft,
    plan_node: PlanNode,
    *,
    output: bytes | None,
    output_ref: ArtifactRef | None = None,
    reason: str = "",
) -> None:
    """Count a node as completed with this output."""
    node = draft.node(plan_node.node_no)
    done = msgspec.structs.replace(
        node,
        state=N.COMPLETED,
        due_at_ms=None,
        finished_at_ms=draft.now_ms,
        output=output,
        output_ref=output_ref,
        repair=(),
        failure=None,
    )
    draft.move(plan_node, E.NODE_COMPLETED, done, attempt=node.attempts or None, reason=reason)
    draft.run.detail = f"completed node `{plan_node.node_id}`; continuing"
    failure = draft.run.last_failure
    if failure is not None and failure.node_id == plan_node.node_id:
        draft.run.last_failure = None
        draft.moved = True


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
    kept = msgspec.structs.replace(
        node, output=item.output, output_ref=item.output_ref, repair=outcome.reasons
    )
    if outcome.failure_class in _CLASSES_OF_VERIFICATION:
        _halt(draft, plan_node, kept, E.NODE_VERIFY_FAILED, "verification_failed", reason)
    else:
        _halt(draft, plan_node, kept, E.NODE_BLOCKED, "artifact_contract_unmet", reason)
        _block_descendants(draft, plan_node)


def _settle_failure(draft: Draft, plan_node: PlanNode, node: NodeRun, outcome: Failed) -> None:
    reason = outcome.message[:REASON_CHARS_MAX]
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
            _halt(
                draft, plan_node, node, E.NODE_FAILED, outcome.failure_class.value, reason, why=why
            )
        case _:
            assert_never(decision)


def _halt(
    draft: Draft,
    plan_node: PlanNode,
    node: NodeRun,
    event: RunEvent,
    kind: str,
    reason: str,
    *,
    why: str = "",
) -> None:
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
    draft: Draft, plan_node: PlanNode, node: NodeRun, *, reason: str, counts: bool
) -> None:
    """Decide what follows an attempt that was cut off: by the engine, or by the engine's death.

    A node with outside effects is not repeated silently: a person is asked. `counts` says that
    the engine died with it; a node that keeps taking its engine down stops being tried.
    """
    if plan_node.node.effective_effects == "external":
        _ask_for_outcome(draft, plan_node, node, reason)
        return
    interruptions = node.interruptions + counts
    if interruptions >= INTERRUPTIONS_MAX:
        cut = msgspec.structs.replace(node, interruptions=interruptions)
        text = f"its engine died {interruptions} times while it ran"
        _halt(draft, plan_node, cut, E.NODE_FAILED, FailureClass.INTERRUPTED.value, text)
        return
    again = msgspec.structs.replace(
        node,
        state=N.PENDING,
        attempts_used=max(node.attempts_used - 1, 0),
        interruptions=interruptions,
    )
    draft.move(
        plan_node,
        E.NODE_INTERRUPTED,
        again,
        attempt=node.attempts,
        reason=reason,
        metadata={"blocker_category": FailureClass.INTERRUPTED.value} if counts else {},
    )


def _ask_for_outcome(draft: Draft, plan_node: PlanNode, node: NodeRun, reason: str) -> None:
    asked = msgspec.structs.replace(node, state=N.GATED, gates=node.gates + 1)
    draft.move(plan_node, E.NODE_OUTCOME_UNKNOWN, asked, attempt=node.attempts, reason=reason)
    _add_gate(
        draft,
        plan_node,
        instance=asked.gates,
        purpose=GatePurpose.OUTCOME_UNKNOWN,
        title=f"Was node `{plan_node.node_id}` done?",
        instructions=(
            f"Attempt {node.attempts} has effects outside and was interrupted ({reason}). "
            "Find out whether it took place: `done` counts it as completed, `retry` runs it again."
        ),
        decisions=("done", "retry", "cancel"),
        expires_after_ms=None,
        on_expiry="remind",
    )


def end_attempt(
    draft: Draft,
    node: NodeRun,
    end: AttemptEnd,
    *,
    failure_class: str = "",
    message: str = "",
    detail: str = "",
    exit_code: int | None = None,
) -> None:
    """Close the row of the newest attempt of a node."""
    plan_node = draft.plan.nodes[node.node_no]
    draft.attempts_ended.append(
        Attempt(
            attempt_id=attempt_id(draft.run.run_id, plan_node.node_id, node.attempts),
            node_no=node.node_no,
            number=node.attempts,
            epoch=draft.run.epoch,
            engine_id=draft.run.engine_id or EngineId(""),
            started_at_ms=0,
            ended_at_ms=draft.now_ms,
            outcome=end,
            failure_class=failure_class,
            message=message,
            detail=detail,
            exit_code=exit_code,
        )
    )


def wake_due(draft: Draft) -> None:
    """Complete the waits that are due and expire the gates that are late."""
    for wait in draft.open_waits():
        if wait.due_at_ms <= draft.now_ms:
            _wake(draft, wait)
    for gate in draft.open_gates():
        if gate.expires_at_ms is not None and gate.expires_at_ms <= draft.now_ms:
            _expire(draft, gate)


def _wake(draft: Draft, wait: Wait) -> None:
    draft.waits[wait.wait_id] = msgspec.structs.replace(
        wait, status=WaitStatus.WOKEN, ended_at_ms=draft.now_ms
    )
    draft.happen(E.WAIT_WOKEN, node_id=wait.node_id)
    output = msgspec.json.encode(
        {"kind": wait.kind, "due_at_ms": wait.due_at_ms, "woken_at_ms": draft.now_ms}
    )
    complete(draft, draft.plan.nodes[wait.node_no], output=output)


def _expire(draft: Draft, gate: Gate) -> None:
    if gate.on_expiry not in ("cancel", "resume"):
        return
    decision = "expired" if gate.on_expiry == "cancel" else "timeout_resume"
    draft.gates[gate.gate_id] = msgspec.structs.replace(
        gate, status=GateStatus.EXPIRED, decision=decision, decided_at_ms=draft.now_ms
    )
    draft.happen(E.GATE_EXPIRED, node_id=gate.node_id, metadata={"gate_id": gate.gate_id})
    if gate.on_expiry == "resume":
        complete(draft, draft.plan.nodes[gate.node_no], output=gate_output(draft, gate, decision))
        return
    cancel(draft, E.RUN_CANCELLED, reason=f"gate `{gate.node_id}` expired undecided")


def gate_output(
    draft: Draft, gate: Gate, decision: str, *, reason: str = "", decided_by: str = ""
) -> bytes:
    """Return the output that a decided approval gives its node (run-lifecycle 6.3)."""
    return msgspec.json.encode(
        {
            "contract_kind": "approval_gate",
            "decision": decision,
            "reason": reason,
            "decided_by": decided_by,
            "decided_at_ms": draft.now_ms,
        }
    )


def cancel(draft: Draft, event: RunEvent, *, reason: str) -> None:
    """End a run for good; its processes may still live on the engine that drove it."""
    run = draft.run
    kind = StopKind.CANCELLED if event is E.RUN_CANCELLED else StopKind.OPERATOR_STOPPED
    if draft.in_state(N.RUNNING):
        run.cleanup = run.engine_id
    for number in sorted(draft.in_state(N.RUNNING)):
        node = draft.node(number)
        end_attempt(draft, node, AttemptEnd.STOPPED, message=reason)
        draft.move(
            draft.plan.nodes[number], E.NODE_INTERRUPTED, node, attempt=node.attempts, reason=reason
        )
    withdraw(draft)
    draft.happen(event, reason=reason, stop_kind=kind)
    run.stop_kind = kind
    run.stop_reason = reason
    run.detail = reason
    run.owner = None


def withdraw(draft: Draft, nodes: Iterable[int] | None = None) -> None:
    """Close the open gates and waits of these nodes, or of all, without a decision."""
    chosen = None if nodes is None else set(nodes)
    for gate in draft.open_gates():
        if chosen is None or gate.node_no in chosen:
            draft.gates[gate.gate_id] = msgspec.structs.replace(
                gate, status=GateStatus.WITHDRAWN, decided_at_ms=draft.now_ms
            )
    for wait in draft.open_waits():
        if chosen is None or wait.node_no in chosen:
            draft.waits[wait.wait_id] = msgspec.structs.replace(
                wait, status=WaitStatus.CANCELLED, ended_at_ms=draft.now_ms
            )


def _start_ready(draft: Draft, engine_id: EngineId) -> None:
    if draft.in_state(N.FAILED):
        # A node failed for good: what runs may land, nothing new starts.
        return
    fresh = draft.unblocked()
    parked = [n for n in (*draft.view.ready_parked, *fresh) if draft.plan.nodes[n].is_parked]
    for number in dict.fromkeys(parked):
        _ask_or_wait(draft, draft.plan.nodes[number])
    free = draft.plan.parallel - len(draft.in_state(N.RUNNING))
    for number in _candidates(draft, fresh):
        if free <= 0:
            return
        _start(draft, draft.plan.nodes[number], engine_id)
        free -= 1


def _candidates(draft: Draft, fresh: Sequence[int]) -> Iterable[int]:
    """Yield the nodes that may start now: due retries first, then in the order they got ready."""
    for number in sorted(draft.in_state(N.BACKOFF)):
        if (draft.node(number).due_at_ms or 0) <= draft.now_ms:
            yield number
    reset = (n for n, node in draft.nodes.items() if node.state is N.PENDING)
    for number in dict.fromkeys((*draft.view.ready, *fresh, *reset)):
        if (
            draft.node(number).state is N.PENDING
            and draft.open_deps(number) == 0
            and not draft.plan.nodes[number].is_parked
        ):
            yield number


def _start(draft: Draft, plan_node: PlanNode, engine_id: EngineId) -> None:
    node = draft.node(plan_node.node_no)
    number = node.attempts + 1
    running = msgspec.structs.replace(
        node,
        state=N.RUNNING,
        attempts=number,
        attempts_used=node.attempts_used + 1,
        due_at_ms=None,
        started_at_ms=node.started_at_ms or draft.now_ms,
        finished_at_ms=None,
    )
    draft.move(plan_node, E.NODE_STARTED, running, attempt=number)
    draft.attempts_started.append(
        Attempt(
            attempt_id=attempt_id(draft.run.run_id, plan_node.node_id, number),
            node_no=node.node_no,
            number=number,
            epoch=draft.run.epoch,
            engine_id=engine_id,
            started_at_ms=draft.now_ms,
        )
    )
    _tell_running(draft, node.node_no)


def _tell_running(draft: Draft, node_no: int) -> None:
    name, number = draft.plan.nodes[node_no].node_id, draft.node(node_no).attempts
    draft.run.detail = f"running node `{name}` attempt {number}"


def _ask_or_wait(draft: Draft, plan_node: PlanNode) -> None:
    wait = plan_node.node.effective_wait
    if isinstance(wait, TimerWait):
        _register_timer(draft, plan_node, wait)
    else:
        _open_approval(draft, plan_node)


def _register_timer(draft: Draft, plan_node: PlanNode, wait: TimerWait) -> None:
    node = draft.node(plan_node.node_no)
    due_at_ms = timer_due_at_ms(wait, now_ms=draft.now_ms)
    registered = msgspec.structs.replace(
        node, state=N.WAITING, gates=node.gates + 1, started_at_ms=draft.now_ms
    )
    draft.move(plan_node, E.WAIT_REGISTERED, registered, metadata={"due_at_ms": due_at_ms})
    wait_id = WaitId(f"automation-v2:{draft.run.run_id}:{plan_node.node_id}:wait:{node.gates + 1}")
    draft.waits[wait_id] = Wait(
        wait_id=wait_id,
        node_no=plan_node.node_no,
        node_id=plan_node.node_id,
        kind="timer",
        due_at_ms=due_at_ms,
        registered_at_ms=draft.now_ms,
    )


def timer_due_at_ms(wait: TimerWait, *, now_ms: int) -> int:
    """Return when a timer wakes; `wake_at` is a moment, `delay_ms` counts from now."""
    if wait.delay_ms is not None:
        return now_ms + wait.delay_ms
    value = getattr(wait.wake_at, "value", None)
    return int(value) if isinstance(value, int) else now_ms


def _open_approval(draft: Draft, plan_node: PlanNode) -> None:
    node, gate = draft.node(plan_node.node_no), plan_node.node.effective_gate
    if gate is None:
        raise AssertionError(f"node {plan_node.node_id} is no approval")
    expiry = gate.expiry_policy
    # "Never unbounded" (run-lifecycle 6.4): a missing or zero span is the default one.
    expires_after_ms = (expiry.expires_after_ms if expiry else None) or GATE_EXPIRES_AFTER_MS
    asked = msgspec.structs.replace(
        node, state=N.GATED, gates=node.gates + 1, started_at_ms=draft.now_ms
    )
    draft.move(plan_node, E.GATE_OPENED, asked)
    _add_gate(
        draft,
        plan_node,
        instance=asked.gates,
        purpose=GatePurpose.APPROVAL,
        title=plan_node.node.objective or plan_node.node_id,
        instructions=gate.instructions or "",
        decisions=gate.decisions,
        expires_after_ms=expires_after_ms,
        on_expiry=str((expiry.on_expiry if expiry else None) or "cancel"),
    )


def _add_gate(
    draft: Draft,
    plan_node: PlanNode,
    *,
    instance: int,
    purpose: GatePurpose,
    title: str,
    instructions: str,
    decisions: tuple[str, ...],
    expires_after_ms: int | None,
    on_expiry: str,
) -> None:
    gate_id = GateId(f"automation_v2:{draft.run.run_id}:{plan_node.node_id}:{instance}")
    draft.gates[gate_id] = Gate(
        gate_id=gate_id,
        node_no=plan_node.node_no,
        node_id=plan_node.node_id,
        instance=instance,
        purpose=purpose,
        title=title,
        instructions=instructions,
        decisions=decisions,
        requested_at_ms=draft.now_ms,
        expires_at_ms=None if expires_after_ms is None else draft.now_ms + expires_after_ms,
        on_expiry=on_expiry,
    )


def _rest(draft: Draft) -> None:
    """Park or finish a run in which nothing runs."""
    run = draft.run
    running = draft.in_state(N.RUNNING)
    if running:
        if run.detail.startswith("completed node"):
            # The refresh rule of run-lifecycle 1.6: name what runs, not what is over.
            _tell_running(draft, min(running))
        return
    if run.status is S.PAUSING:
        draft.happen(E.RUN_PAUSED, reason=run.pause_reason)
        run.detail = run.pause_reason
    elif run.status is S.RUNNING:
        _park_or_finish(draft)


def _park_or_finish(draft: Draft) -> None:
    run = draft.run
    failed = _names(draft, N.FAILED)
    if failed:
        run.detail = f"automation run failed from node outcomes: {', '.join(failed)}"
        return draft.happen(E.RUN_FAILED, reason=run.detail)
    gates, waits, backoff = draft.open_gates(), draft.open_waits(), draft.in_state(N.BACKOFF)
    if gates:
        run.detail = f"awaiting approval for gate `{gates[0].node_id}`"
        run.due_at_ms = earliest_due_ms(draft)
        return draft.happen(E.RUN_PARKED_AT_GATE, node_id=gates[0].node_id)
    if backoff:
        run.due_at_ms = earliest_due_ms(draft)
        run.queue_reason = QueueReason.RETRY_BACKOFF
        return draft.happen(E.RUN_PARKED_ON_BACKOFF, metadata={"due_at_ms": run.due_at_ms})
    if waits:
        names = ", ".join(f"`{wait.node_id}`" for wait in waits)
        run.detail = f"waiting at node {names}"
        run.due_at_ms = earliest_due_ms(draft)
        run.parked = f"timer of node {names}"
        draft.happen(E.RUN_PARKED_ON_WAIT, metadata={"due_at_ms": run.due_at_ms})
        return None
    if run.nodes_completed == len(draft.plan):
        run.detail = "automation run completed"
        return draft.happen(E.RUN_COMPLETED)
    if _names(draft, N.BLOCKED):
        run.detail = "automation run blocked by upstream node outcome"
        return draft.happen(E.RUN_BLOCKED, reason=run.detail)
    # Only a graph with a cycle comes here; a run never waits without a reason.
    run.detail = "flow deadlock: no runnable nodes"
    return draft.happen(E.RUN_FAILED, reason=run.detail)


def earliest_due_ms(draft: Draft) -> int | None:
    """Return when the parked run needs attention by itself, if ever."""
    moments = [draft.node(n).due_at_ms for n in draft.in_state(N.BACKOFF)]
    moments += [wait.due_at_ms for wait in draft.open_waits()]
    moments += [
        gate.expires_at_ms for gate in draft.open_gates() if gate.on_expiry in ("cancel", "resume")
    ]
    return min((moment for moment in moments if moment is not None), default=None)


def _names(draft: Draft, state: NodeState) -> list[str]:
    return [draft.plan.nodes[n].node_id for n in sorted(draft.in_state(state))]
