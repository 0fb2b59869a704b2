"""Waits: registering them, waking the nodes that wait, and what follows when nothing came."""

from typing import Final, assert_never

import msgspec

from tandem.domain.binding import ReadLarge, bind_moment, bind_text
from tandem.domain.completion import complete
from tandem.domain.deadline import Step, deadline_of, escalated, reminded
from tandem.domain.draft import Draft
from tandem.domain.errors import EngineError
from tandem.domain.graph import PlanNode
from tandem.domain.ids import RunId, WaitId
from tandem.domain.json import JsonObject, JsonValue, encode
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.run import OPEN_WAITS, Failure, Wait, WaitStatus
from tandem.domain.signal import condition_key, kept_metadata, webhook_key
from tandem.domain.stopping import cancel_run
from tandem.domain.wait_definition import ExternalConditionWait, TimerWait, WaitTimeout, WebhookWait

E, N, S = RunEvent, NodeState, RunState

KINDS: Final = {
    "timer": "Timer",
    "webhook": "Webhook",
    "external_condition": "ExternalCondition",
}
"""The kinds as they are named in the detail of a run (T35)."""
REGISTRATION_FAILED: Final = "wait_registration_failed"

NodeWait = TimerWait | WebhookWait | ExternalConditionWait


def register(draft: Draft, plan_node: PlanNode, wait: NodeWait, read_large: ReadLarge) -> None:
    """Register the wait of a node whose dependencies are completed (T35, T36).

    The wait and the state of its node are one change: a registered wait cannot be missing. A
    binding that gives nothing usable fails the node, and with it the run.
    """
    node = draft.node(plan_node.node_no)
    draft.happen(E.WAIT_REGISTRATION_STARTED, node_id=plan_node.node_id)
    try:
        made = _make(draft, plan_node, wait, read_large)
    except EngineError as error:
        _fail(draft, plan_node, str(error))
        return
    registered = msgspec.structs.replace(
        node, state=N.WAITING, gates=node.gates + 1, started_at_ms=draft.now_ms
    )
    draft.move(
        plan_node,
        E.WAIT_REGISTERED,
        registered,
        metadata={
            "wait_id": made.wait_id,
            "wait_kind": made.kind,
            "due_at_ms": made.due_at_ms,
            "timeout_at_ms": made.timeout_at_ms,
        },
    )
    draft.waits[made.wait_id] = made


def _make(draft: Draft, plan_node: PlanNode, wait: NodeWait, read_large: ReadLarge) -> Wait:
    instance = draft.node(plan_node.node_no).gates + 1
    due_at_ms, signal_key, accepts_since_ms = None, "", 0
    match wait:
        case TimerWait():
            due_at_ms = _timer_due_at_ms(draft, wait, read_large)
        case WebhookWait():
            value = bind_text(draft, wait.correlation.value, read_large)
            signal_key = webhook_key(
                draft.run.tenant, wait.trigger_id, wait.correlation.field, value
            )
        case ExternalConditionWait():
            subject = bind_text(draft, wait.condition_key, read_large)
            signal_key = condition_key(draft.run.tenant, subject)
            # The key of a condition is used again: what was said before this run, or before
            # this wait was asked for anew, is about something else.
            accepts_since_ms = draft.run.created_at_ms if instance == 1 else draft.now_ms
        case _:
            assert_never(wait)
    timeout = wait.timeout or WaitTimeout(expires_after_ms=0)
    return Wait(
        wait_id=wait_id(draft, plan_node, instance),
        node_no=plan_node.node_no,
        node_id=plan_node.node_id,
        kind=wait.kind,
        due_at_ms=due_at_ms,
        registered_at_ms=draft.now_ms,
        signal_key=signal_key,
        accepts_since_ms=accepts_since_ms,
        timeout_at_ms=draft.now_ms + timeout.expires_after_ms if wait.timeout else None,
        on_timeout=str(timeout.on_timeout),
        escalate_to=timeout.escalate_to or "",
        remind_every_ms=timeout.remind_every_ms,
    )


def wait_id(draft: Draft, plan_node: PlanNode, instance: int) -> WaitId:
    """Return the id of a wait; the first of a node has the name of the contract."""
    name = f"automation-v2:{draft.run.run_id}:{plan_node.node_id}:wait"
    return WaitId(name if instance == 1 else f"{name}/{instance}")


def run_of_wait(wait: WaitId) -> RunId:
    """Return whose wait it is."""
    return RunId(wait.split(":", 2)[1])


def _timer_due_at_ms(draft: Draft, wait: TimerWait, read_large: ReadLarge) -> int:
    """Return when a timer wakes; `wake_at` is a moment, `delay_ms` counts from now."""
    if wait.wake_at is not None:
        return bind_moment(draft, wait.wake_at, read_large)
    return draft.now_ms + (wait.delay_ms or 0)


def _fail(draft: Draft, plan_node: PlanNode, why: str) -> None:
    reason = f"failed to register wait node `{plan_node.node_id}`: {why}"
    failure = Failure(
        node_id=plan_node.node_id,
        reason=reason,
        failed_at_ms=draft.now_ms,
        failure_kind=REGISTRATION_FAILED,
    )
    node = msgspec.structs.replace(
        draft.node(plan_node.node_no), finished_at_ms=draft.now_ms, failure=failure
    )
    draft.move(plan_node, E.WAIT_REGISTRATION_FAILED, node, reason=reason)
    draft.run.last_failure = failure
    draft.moved = True


def pass_time(draft: Draft, of: WaitId) -> None:
    """Do everything that is due at this wait now; a timeout due at or before the wake wins."""
    while True:
        wait = draft.wait(of)
        if wait.status not in OPEN_WAITS:
            return
        deadline = deadline_of(wait)
        step, due_at_ms = deadline.due(draft.now_ms), wait.due_at_ms
        is_due = due_at_ms is not None and due_at_ms <= draft.now_ms
        if is_due and (step is None or not _goes_first(wait, step)):
            wake(draft, wait, event_type="stateful_runtime.wait.timer_woken")
        elif step is not None:
            _take(draft, wait, step)
        else:
            return


def _goes_first(wait: Wait, step: Step) -> bool:
    """Say whether what is due by the timeout comes before the wake of a timer that is due too."""
    if step is Step.REMIND and wait.policy_state.expired_reminder:
        return False
    at_ms, due_at_ms = wait.timeout_at_ms, wait.due_at_ms
    return at_ms is not None and due_at_ms is not None and at_ms <= due_at_ms


def _take(draft: Draft, wait: Wait, step: Step) -> None:
    match step:
        case Step.CANCEL:
            _time_out(draft, wait)
            what = "stateful_runtime.wait.timeout_cancelled"
            cancel_run(
                draft,
                E.WAIT_TIMEOUT_CANCELLED,
                reason=f"wait of node `{wait.node_id}` timed out",
                node_id=wait.node_id,
                metadata={"wait_id": wait.wait_id, "event_type": what},
            )
        case Step.RESUME:
            wake(draft, wait, event_type="stateful_runtime.wait.timeout_resumed", timed_out=True)
        case Step.ESCALATE:
            state = escalated(wait, now_ms=draft.now_ms)
            told = msgspec.structs.replace(wait, status=WaitStatus.ESCALATED, policy_state=state)
            what = "stateful_runtime.wait.timeout_escalated"
            _note(draft, told, what, escalated_to=state.escalated_to)
        case Step.REMIND:
            state = reminded(wait, now_ms=draft.now_ms)
            told = msgspec.structs.replace(wait, policy_state=state)
            what = "stateful_runtime.wait.timeout_reminded"
            _note(
                draft,
                told,
                what,
                expired=state.expired_reminder,
                reminder_count=state.reminder_count,
            )
        case Step.MARK_STALE:  # pragma: no cover # a wait has no stale moment
            raise AssertionError("a wait has no stale mark")
        case _:
            assert_never(step)


def _time_out(draft: Draft, wait: Wait) -> None:
    draft.waits[wait.wait_id] = msgspec.structs.replace(
        wait, status=WaitStatus.TIMED_OUT, ended_at_ms=_end_ms(draft, wait)
    )


def _note(draft: Draft, wait: Wait, event_type: str, **facts: str | int | bool) -> None:
    """Record that somebody has to be told; the wait stays open and can still be woken (T90)."""
    draft.waits[wait.wait_id] = wait
    metadata: JsonObject = {
        "wait_id": wait.wait_id,
        "event_type": event_type,
        "timeout_at_ms": wait.timeout_at_ms,
        **facts,
    }
    draft.happen(E.WAIT_TIMEOUT_NOTED, node_id=wait.node_id, metadata=metadata)


def wake(
    draft: Draft,
    wait: Wait,
    *,
    event_type: str,
    idempotency_key: str = "",
    metadata: JsonValue = None,
    timed_out: bool = False,
) -> None:
    """End a wait and complete its node; a run that was parked goes on (T88).

    A run that a person holds stays held, with the node completed.
    """
    run, now_ms = draft.run, _end_ms(draft, wait)
    draft.waits[wait.wait_id] = msgspec.structs.replace(
        wait,
        status=WaitStatus.TIMED_OUT if timed_out else WaitStatus.WOKEN,
        idempotency_key=idempotency_key,
        ended_at_ms=now_ms,
    )
    facts: JsonObject = {"wait_id": wait.wait_id, "event_type": event_type}
    draft.happen(E.WAIT_WOKEN, node_id=wait.node_id, metadata=facts)
    output = {
        "contract_kind": "stateful_wait",
        "status": "completed",
        "kind": wait.kind,
        "due_at_ms": wait.due_at_ms,
        "woken_at_ms": now_ms,
        "content": {
            "wait_id": wait.wait_id,
            "wait_kind": wait.kind,
            "event_type": event_type,
            "woken_at_ms": now_ms,
            "wake_metadata": kept_metadata(metadata),
        },
    }
    complete(draft, draft.plan.nodes[wait.node_no], output=encode(output))
    if run.status is S.QUEUED:
        run.due_at_ms = now_ms
    elif run.status is S.AWAITING_APPROVAL or (run.status is S.PAUSED and run.parked):
        draft.happen(E.WAIT_WOKEN_REQUEUED, node_id=wait.node_id, metadata=facts)
        run.due_at_ms = draft.now_ms
        run.resume_reason = event_type
        run.pause_reason = ""
        run.stop_kind = None
        run.stop_reason = ""


def _end_ms(draft: Draft, wait: Wait) -> int:
    """Return now; a clock that was set back does not end a wait before it began."""
    return max(draft.now_ms, wait.registered_at_ms)
