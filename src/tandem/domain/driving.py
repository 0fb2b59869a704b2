"""How a claimed run goes on: settle what ended, start what is ready, park or finish.

Sources: run-lifecycle 4 and 6, with the parking rule of design section 5: a run is running while
any node runs or can run; a slow node, a gate or a wait never holds back independent nodes.
"""

from collections.abc import Iterator, Sequence

import msgspec

from tandem.domain import attention, guardrail, overrun, triage, waits
from tandem.domain.accounting import UNSEEN, Facts, account
from tandem.domain.artifact import ArtifactRef
from tandem.domain.asking import open_approval
from tandem.domain.attention import earliest_due_ms
from tandem.domain.binding import ReadLarge, Unbound
from tandem.domain.change import Change
from tandem.domain.draft import Draft
from tandem.domain.failure_text import failed_detail
from tandem.domain.gate_policy import GatePolicy
from tandem.domain.graph import PlanNode
from tandem.domain.ids import ChangeId, EngineId, attempt_id
from tandem.domain.json import JsonValue
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind
from tandem.domain.partial_failure import stops_starts
from tandem.domain.phases import is_held
from tandem.domain.run import Attempt, QueueReason
from tandem.domain.selection import candidates, is_ready, open_limit
from tandem.domain.settling import Settled, settle
from tandem.domain.usage import Spent
from tandem.domain.view import RunView
from tandem.domain.wait_definition import ApprovalWait

E, N, S = RunEvent, NodeState, RunState


_DEFAULTS = GatePolicy()


def _unreadable(ref: ArtifactRef) -> JsonValue:
    raise Unbound(f"the output {ref.name} is an artifact, which cannot be read here")


def advance(
    view: RunView,
    *,
    settled: Sequence[Settled],
    facts: Facts = UNSEEN,
    engine_id: EngineId,
    change_id: ChangeId,
    now_ms: int,
    policy: GatePolicy = _DEFAULTS,
    read_large: ReadLarge = _unreadable,
    starts: bool = True,
    spent: Sequence[Spent] = (),
    notes_usage: bool = False,
    active_ms: int | None = None,
) -> Change | None:
    """Take a claimed run one step further; None when there is nothing to write.

    Settles the attempts that ended, does what is due at waits and gates, starts every node that is
    ready and has a place, and parks or finishes the run when nothing runs and nothing can start.
    `policy` fills what a gate that opens does not say; `read_large` reads an output that is an
    artifact, for a wait that takes a value from it. An engine that stops says `starts=False`: then
    what is ready is left to the next engine. `facts` is asked only for what a run that is about to
    complete has promised to leave.

    `spent` is what attempts have spent and no change has counted; alone it makes a change only with
    `notes_usage`. `active_ms` is how long the run has been driven. A run whose budget is reached
    starts nothing more; one that has nothing left to start comes to its end.
    """
    draft = Draft(view, change_id=change_id, now_ms=now_ms)
    draft.active_ms = active_ms
    # The driver has buried the bodies that were stopped before it asks for a step.
    draft.run.cleanup = None
    for item in settled:
        settle(draft, item)
    guardrail.account(draft, spent)
    attention.pass_time(draft)
    _keep_budget(draft)
    if starts:
        if draft.run.status is S.RUNNING:
            _start_ready(draft, engine_id, policy, read_large)
        _rest(draft, facts)
        if draft.run.status is S.RUNNING and not draft.is_anything_running:
            # A node owes a file: it starts again in this very change.
            _start_ready(draft, engine_id, policy, read_large)
    elif not _is_anything_ready(draft):
        _rest(draft, facts)
    if spent and notes_usage and not draft.events:
        guardrail.note_usage(draft)
    return draft.close() if draft.events else None


def _keep_budget(draft: Draft) -> None:
    """Stop the run if its budget is reached and anything would go on."""
    if draft.run.status is not S.RUNNING:
        return
    text = overrun.find_reached(draft)
    if text and (draft.is_anything_running or _is_anything_ready(draft)):
        guardrail.trip(draft, text)


def _start_ready(
    draft: Draft, engine_id: EngineId, policy: GatePolicy, read_large: ReadLarge
) -> None:
    """Ask, wait and start where nothing holds back, until no more nodes are skipped.

    A node that is skipped may make others ready, and end a phase.
    """
    goes_on = True
    # A node that failed for good lets what runs land, and nothing new starts; so may a wait that
    # cannot be registered.
    while goes_on and not stops_starts(draft):
        goes_on = False
        if draft.plan.has_parked:
            goes_on = _ask_and_wait(draft, policy, read_large)
            if stops_starts(draft):
                return
        goes_on = _start_some(draft, engine_id) or goes_on


def _ask_and_wait(draft: Draft, policy: GatePolicy, read_large: ReadLarge) -> bool:
    """Open the gates and register the waits that nothing holds back; say whether one is skipped."""
    skipped = False
    for number in _parked(draft, draft.unblocked()):
        plan_node = draft.plan.nodes[number]
        wait = plan_node.node.effective_wait
        if triage.has_nothing_to_do(draft, plan_node):
            triage.skip(draft, plan_node)
            skipped = True
        elif wait is None or isinstance(wait, ApprovalWait):
            open_approval(draft, plan_node, policy)
        else:
            waits.register(draft, plan_node, wait, read_large)
    return skipped


def _is_anything_ready(draft: Draft) -> bool:
    """Say whether a node would start, ask or wait if the engine went on."""
    if draft.run.status is not S.RUNNING or stops_starts(draft):
        return False
    fresh = draft.unblocked()
    return any(True for _ in (*_parked(draft, fresh), *candidates(draft, fresh)))


def _start_some(draft: Draft, engine_id: EngineId) -> bool:
    """Start what has a place; say whether a node was skipped on the way."""
    skipped = False
    free = draft.plan.parallel - len(draft.in_state(N.RUNNING))
    for number in candidates(draft, draft.unblocked()):
        plan_node = draft.plan.nodes[number]
        if triage.has_nothing_to_do(draft, plan_node):
            triage.skip(draft, plan_node)
            skipped = True
            continue
        if free <= 0:
            break
        _start(draft, plan_node, engine_id)
        free -= 1
    return skipped


def _parked(draft: Draft, fresh: Sequence[int]) -> Iterator[int]:
    """Yield the gates and waits that nothing holds back."""
    plan = draft.plan
    if not plan.has_parked:
        return
    limit = open_limit(draft)
    for number in dict.fromkeys((*draft.view.ready_parked, *fresh)):
        if not plan.nodes[number].is_parked or is_held(plan.lane(number).rank, limit):
            continue
        if is_ready(draft, number):
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


def _rest(draft: Draft, facts: Facts) -> None:
    """Park or finish a run in which nothing runs."""
    run = draft.run
    if draft.is_anything_running:
        return
    if run.status is S.PAUSING:
        guardrail.come_to_rest(draft)
    elif run.status is S.RUNNING:
        _park_or_finish(draft, facts)


def _park_or_finish(draft: Draft, facts: Facts) -> None:
    run = draft.run
    if stops_starts(draft):
        return _fail(draft)
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
        return account(draft, facts)
    if draft.in_state(N.FAILED):
        return _fail(draft)
    if draft.in_state(N.BLOCKED):
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


def _fail(draft: Draft) -> None:
    """Fail the run for its failed nodes; one that failed alone says how (T31, T36, T37, T38)."""
    run, failed = draft.run, sorted(draft.in_state(N.FAILED))
    failure = draft.node(failed[0]).failure
    names = ", ".join(draft.plan.nodes[n].node_id for n in failed)
    run.detail = f"automation run failed from node outcomes: {names}"
    if failure is not None and len(failed) == 1:
        run.detail = failed_detail(failure)
    if run.last_failure is None:
        # The run was taken up for another node, and ends by this one again.
        run.last_failure = failure
    last = run.last_failure
    if last is not None and last.failure_kind == waits.REGISTRATION_FAILED:
        run.detail = run.stop_reason = last.reason
        run.stop_kind = StopKind.GUARDRAIL_STOPPED
    draft.happen(E.RUN_FAILED, reason=run.detail, stop_kind=run.stop_kind)
