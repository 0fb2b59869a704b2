"""Runs that show no life: stopping them, and letting them go on (run-lifecycle 3.8 and 2.3)."""

from typing import Final

import msgspec

from tandem.domain.asking import ask_for_outcome
from tandem.domain.command import AutoResume, Reap
from tandem.domain.completion import end_attempt
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.guardrail import may_go_on
from tandem.domain.lifecycle import DRIVEN, NodeState, RunEvent, RunState, StopKind
from tandem.domain.outcome import FailureClass
from tandem.domain.overrun import refuse_exceeded
from tandem.domain.reviving import queue
from tandem.domain.run import AttemptEnd, NodeRun, Run
from tandem.domain.settling import halt, mark
from tandem.domain.time_limits import limits_of
from tandem.domain.view import RunView

E, N, S = RunEvent, NodeState, RunState

STALE: Final = FailureClass.STALE.value
SLACK_MS: Final = 60_000
"""What a node gets on top of its own limit before it counts as stale."""
AUTO_RESUMED: Final = "auto_resume_after_stale_reap"


def last_activity_at_ms(run: Run) -> int:
    """Return when the run last showed life: by a change, or by a body that is alive.

    A claim counts: a run that waited long in the queue is not stale when it is claimed. (The
    original does not count it and shields the claimed run by its lease instead.)
    """
    return max(run.updated_at_ms, run.activity_at_ms or 0)


def stale_after_ms(view: RunView, base_ms: int) -> int:
    """Return the span without life after which the run is stale.

    It is the base, or more when a node in progress has a longer limit of its own.
    """
    limits = [limit or 0 for n in view.running for limit in limits_of(view.plan.nodes[n])]
    longest_ms = max(limits, default=0)
    return max(base_ms, longest_ms + SLACK_MS) if longest_ms else base_ms


def reap(draft: Draft, command: Reap) -> None:
    run = draft.run
    if run.status not in DRIVEN:
        raise draft.refusal("reap", "only a run that an engine drives can be stale")
    span_ms = stale_after_ms(draft.view, command.stale_after_ms)
    seen = (command.seen_change_id, command.seen_activity_at_ms)
    quiet_ms = draft.now_ms - last_activity_at_ms(run)
    if (run.last_change_id, run.activity_at_ms) != seen or quiet_ms < span_ms:
        raise draft.refusal("reap", "it has shown life")
    seconds = span_ms // 1_000
    if draft.in_state(N.RUNNING):
        run.cleanup = run.engine_id
    terminal, again = _mark_nodes(draft, seconds)
    run.reaped_at_ms = draft.now_ms
    draft.active_until_ms = last_activity_at_ms(draft.view.run)
    run.owner = None
    quiet = f"after no provider activity for at least {seconds}s"
    if terminal and run.status is S.RUNNING:
        run.pause_reason = ""
        names = ", ".join(terminal)
        _stop(draft, f"automation run failed {quiet}; terminal stale node(s): {names}")
        draft.happen(E.RUN_FAILED_STALE, reason=run.detail, stop_kind=run.stop_kind)
        return
    names = f"; repairable node(s): {', '.join(again)}" if again else ""
    was_held = run.status is S.PAUSING and not may_go_on(draft)
    held = run.stop_kind, run.stop_reason
    _stop(draft, f"automation run paused {quiet}{names}")
    draft.happen(E.RUN_PAUSED_STALE, reason=run.detail, stop_kind=run.stop_kind)
    if was_held:
        # A person or its budget wants it paused, so it does not go on because it was stale.
        run.stop_kind, run.stop_reason = held
    else:
        run.pause_reason = STALE


def _stop(draft: Draft, detail: str) -> None:
    run = draft.run
    run.detail = run.stop_reason = detail
    run.stop_kind = StopKind.STALE_REAPED


def _mark_nodes(draft: Draft, seconds: int) -> tuple[list[str], list[str]]:
    """End the running attempts; return the nodes that failed for good and those that may repeat."""
    reason = f"node execution stalled after no provider activity for at least {seconds}s"
    terminal: list[str] = []
    again: list[str] = []
    for number in sorted(draft.in_state(N.RUNNING)):
        plan_node, node = draft.plan.nodes[number], draft.node(number)
        end_attempt(draft, node, AttemptEnd.STOPPED, failure_class=STALE, message=reason)
        if plan_node.node.effective_effects == "external":
            ask_for_outcome(draft, plan_node, node, reason)
        elif node.attempts_used >= plan_node.max_attempts:
            halt(draft, plan_node, node, E.NODE_FAILED, STALE, reason)
            terminal.append(plan_node.node_id)
        else:
            _repeat(draft, plan_node, node, reason)
            again.append(plan_node.node_id)
    return terminal, again


def _repeat(draft: Draft, plan_node: PlanNode, node: NodeRun, reason: str) -> None:
    pending = msgspec.structs.replace(
        node, state=N.PENDING, repair=(reason,), failure=mark(draft, plan_node, STALE, reason)
    )
    draft.move(
        plan_node,
        E.NODE_REPAIR_REQUESTED,
        pending,
        attempt=node.attempts,
        reason=reason,
        metadata={"status": "needs_repair", "blocker_category": STALE},
    )


def is_within_window(*, now_ms: int, reaped_at_ms: int, window_ms: int) -> bool:
    """Say whether a reap is so fresh that its run may go on by itself; the end counts as inside.

    A reap that seems to lie in the future, because a clock was set back, is inside.
    """
    return now_ms - reaped_at_ms <= window_ms


def auto_resume(draft: Draft, command: AutoResume) -> None:
    run = draft.run
    if run.status is not S.PAUSED or run.stop_kind is not StopKind.STALE_REAPED:
        raise draft.refusal("auto-resume", "it was not paused because it showed no life")
    if run.cleanup:
        raise draft.refusal("auto-resume", f"engine {run.cleanup} still ends its processes")
    if run.auto_resumes >= command.attempts_max:
        raise draft.refusal("auto-resume", f"it was resumed {run.auto_resumes} times already")
    reaped_at_ms = run.reaped_at_ms
    if reaped_at_ms is None or not is_within_window(
        now_ms=draft.now_ms, reaped_at_ms=reaped_at_ms, window_ms=command.window_ms
    ):
        raise draft.refusal("auto-resume", "it was found stale too long ago; a person resumes it")
    refuse_exceeded(draft, "auto-resume")
    if not _is_repairable(draft.view):
        raise draft.refusal("auto-resume", "none of its stale nodes has an attempt left")
    run.auto_resumes += 1
    draft.happen(
        E.RUN_AUTO_RESUMED,
        reason=AUTO_RESUMED,
        metadata={
            "auto_resume_window_ms": command.window_ms,
            "stale_reaped_at_ms": reaped_at_ms,
        },
    )
    queue(draft)
    run.detail = ""
    run.resume_reason = AUTO_RESUMED


def _is_repairable(view: RunView) -> bool:
    """Say whether a stale node may run again; a run without any simply goes on (W-37)."""
    stale = [
        node
        for node in view.nodes.values()
        if node.state is N.PENDING
        and node.failure is not None
        and node.failure.failure_kind == STALE
    ]
    left = (view.plan.nodes[node.node_no].max_attempts - node.attempts_used for node in stale)
    return not stale or any(attempts > 0 for attempts in left)
