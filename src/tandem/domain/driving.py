"""How a claimed run goes on: settle what ended, start what is ready, park or finish.

Sources: run-lifecycle 4 and 6, with the parking rule of design section 5: a run is running while
any node runs or can run; a slow node, a gate or a wait never holds back independent nodes.
"""

from collections.abc import Iterable, Sequence

import msgspec

from tandem.domain import attention, waits
from tandem.domain.artifact import ArtifactRef
from tandem.domain.asking import open_approval
from tandem.domain.attention import earliest_due_ms
from tandem.domain.automation import ApprovalWait
from tandem.domain.binding import ReadLarge, Unbound
from tandem.domain.change import Change
from tandem.domain.draft import Draft
from tandem.domain.gate_policy import GatePolicy
from tandem.domain.graph import PlanNode
from tandem.domain.ids import ChangeId, EngineId, attempt_id
from tandem.domain.json import JsonValue
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind
from tandem.domain.run import Attempt, QueueReason
from tandem.domain.settling import Settled, settle
from tandem.domain.view import RunView

E, N, S = RunEvent, NodeState, RunState


_DEFAULTS = GatePolicy()


def _unreadable(ref: ArtifactRef) -> JsonValue:
    raise Unbound(f"the output {ref.name} is an artifact, which cannot be read here")


def advance(
    view: RunView,
    *,
    settled: Sequence[Settled],
    engine_id: EngineId,
    change_id: ChangeId,
    now_ms: int,
    policy: GatePolicy = _DEFAULTS,
    read_large: ReadLarge = _unreadable,
    starts: bool = True,
) -> Change | None:
    """Take a claimed run one step further; None when there is nothing to write.

    Settles the attempts that ended, does what is due at waits and gates, starts every node that is
    ready and has a place, and parks or finishes the run when nothing runs and nothing can start.
    `policy` fills what a gate that opens does not say; `read_large` reads an output that is an
    artifact, for a wait that takes a value from it. An engine that stops says `starts=False`: then
    what is ready is left to the next engine.
    """
    draft = Draft(view, change_id=change_id, now_ms=now_ms)
    for item in settled:
        settle(draft, item)
    attention.pass_time(draft)
    if starts:
        if draft.run.status is S.RUNNING:
            _ask_and_wait(draft, policy, read_large)
            _start_ready(draft, engine_id)
        _rest(draft)
    elif not _is_anything_ready(draft):
        _rest(draft)
    return draft.close() if draft.events else None


def _ask_and_wait(draft: Draft, policy: GatePolicy, read_large: ReadLarge) -> None:
    """Open the gates and register the waits that nothing holds back."""
    if draft.in_state(N.FAILED):
        return
    parked = (n for n in (*draft.view.ready_parked, *draft.unblocked()))
    for number in dict.fromkeys(n for n in parked if draft.plan.nodes[n].is_parked):
        plan_node = draft.plan.nodes[number]
        wait = plan_node.node.effective_wait
        if wait is None or isinstance(wait, ApprovalWait):
            open_approval(draft, plan_node, policy)
        else:
            waits.register(draft, plan_node, wait, read_large)


def _is_anything_ready(draft: Draft) -> bool:
    """Say whether a node would start, ask or wait if the engine went on."""
    if draft.run.status is not S.RUNNING or draft.in_state(N.FAILED):
        return False
    fresh = draft.unblocked()
    parked = (n for n in (*draft.view.ready_parked, *fresh) if draft.plan.nodes[n].is_parked)
    return any(True for _ in (*parked, *_candidates(draft, fresh)))


def _start_ready(draft: Draft, engine_id: EngineId) -> None:
    if draft.in_state(N.FAILED):
        # A node failed for good: what runs may land, nothing new starts.
        return
    fresh = draft.unblocked()
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
    yield from (
        number
        for number in dict.fromkeys((*draft.view.ready, *fresh, *reset))
        if draft.node(number).state is N.PENDING
        and draft.open_deps(number) == 0
        and not draft.plan.nodes[number].is_parked
    )


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
        failure=None,
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


def _rest(draft: Draft) -> None:
    """Park or finish a run in which nothing runs."""
    run = draft.run
    if draft.in_state(N.RUNNING):
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
        failure = run.last_failure
        if failure is not None and failure.failure_kind == waits.REGISTRATION_FAILED:
            run.detail = run.stop_reason = failure.reason
            run.stop_kind = StopKind.GUARDRAIL_STOPPED
        return draft.happen(E.RUN_FAILED, reason=run.detail, stop_kind=run.stop_kind)
    gates, backoff = draft.open_gates(), draft.in_state(N.BACKOFF)
    if gates:
        run.detail = f"awaiting approval for gate `{gates[0].node_id}`"
        run.due_at_ms = earliest_due_ms(draft)
        return draft.happen(E.RUN_PARKED_AT_GATE, node_id=gates[0].node_id)
    if backoff:
        run.due_at_ms = earliest_due_ms(draft)
        run.queue_reason = QueueReason.RETRY_BACKOFF
        run.resource_key = _backoff_key(draft, backoff)
        return draft.happen(E.RUN_PARKED_ON_BACKOFF, metadata={"due_at_ms": run.due_at_ms})
    if draft.open_waits():
        return attention.park_on_waits(draft)
    if run.nodes_completed == len(draft.plan):
        run.detail = "automation run completed"
        return draft.happen(E.RUN_COMPLETED)
    if _names(draft, N.BLOCKED):
        run.detail = "automation run blocked by upstream node outcome"
        return draft.happen(E.RUN_BLOCKED, reason=run.detail)
    # Only a graph with a cycle comes here; a run never waits without a reason.
    run.detail = "flow deadlock: no runnable nodes"
    return draft.happen(E.RUN_FAILED, reason=run.detail)


def _backoff_key(draft: Draft, backoff: set[int]) -> str:
    """Name the first backoff to end, as run-lifecycle 3.6 does."""
    first = min(backoff, key=lambda n: (draft.node(n).due_at_ms or 0, n))
    run, node_id = draft.run, draft.plan.nodes[first].node_id
    return f"automation://{run.automation_id}/runs/{run.run_id}/nodes/{node_id}"


def _names(draft: Draft, state: NodeState) -> list[str]:
    return [draft.plan.nodes[n].node_id for n in sorted(draft.in_state(state))]
