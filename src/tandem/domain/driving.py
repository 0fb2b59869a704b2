"""How a claimed run goes on: settle what ended, start what is ready, park or finish.

Sources: run-lifecycle 4 and 6, with the parking rule of design section 5: a run is running while
any node runs or can run; a slow node, a gate or a wait never holds back independent nodes.
"""

from collections.abc import Iterable, Sequence

import msgspec

from tandem.domain import gates, waits
from tandem.domain.change import Change
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.ids import ChangeId, EngineId, attempt_id
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.run import Attempt, QueueReason
from tandem.domain.settling import Settled, settle
from tandem.domain.view import RunView
from tandem.domain.wait_definition import TimerWait

E, N, S = RunEvent, NodeState, RunState


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


def wake_due(draft: Draft) -> None:
    """Complete the waits that are due and expire the gates that are late."""
    for wait in draft.open_waits():
        if wait.due_at_ms <= draft.now_ms:
            waits.wake(draft, wait)
    for gate in draft.open_gates():
        if gate.expires_at_ms is not None and gate.expires_at_ms <= draft.now_ms:
            gates.expire(draft, gate)


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
        waits.register_timer(draft, plan_node, wait)
    else:
        gates.open_approval(draft, plan_node)


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
