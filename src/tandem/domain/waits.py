"""Waits for time: registering them, and waking the nodes and runs that wait."""

import msgspec

from tandem.domain.completion import complete
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.ids import WaitId
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.run import Wait, WaitStatus
from tandem.domain.wait_definition import TimerWait

E, N, S = RunEvent, NodeState, RunState


def register_timer(draft: Draft, plan_node: PlanNode, wait: TimerWait) -> None:
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


def wake(draft: Draft, wait: Wait) -> None:
    draft.waits[wait.wait_id] = msgspec.structs.replace(
        wait, status=WaitStatus.WOKEN, ended_at_ms=draft.now_ms
    )
    draft.happen(E.WAIT_WOKEN, node_id=wait.node_id)
    output = msgspec.json.encode(
        {"kind": wait.kind, "due_at_ms": wait.due_at_ms, "woken_at_ms": draft.now_ms}
    )
    complete(draft, draft.plan.nodes[wait.node_no], output=output)


def wake_run(draft: Draft) -> None:
    run = draft.run
    due = run.due_at_ms is not None and run.due_at_ms <= draft.now_ms
    parked = run.status is S.AWAITING_APPROVAL or (run.status is S.PAUSED and run.parked)
    if not due or not parked:
        raise draft.refusal("wake", "it is not waiting for this moment")
    draft.happen(E.RUN_WOKEN)
    run.due_at_ms = draft.now_ms
