"""The checkpoint of a run as the wire contract shows it (run-lifecycle 1.2), made from the rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tandem.domain.gate_record import decision_record, denial_record, pending_gate
from tandem.domain.graph import PlanNode
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import NodeState
from tandem.domain.node_output_record import output_record, output_status, without_nothing
from tandem.domain.outline import stages_of
from tandem.domain.run import Attempt, Failure, LifecycleEvent, NodeRun, Run
from tandem.domain.run_picture import CONTENT_BYTES_MAX, VERDICTS_MAX, RunPicture
from tandem.domain.starting import CHECKPOINT_NODE
from tandem.domain.trigger import is_dry_run
from tandem.domain.verdict import verdict_of
from tandem.domain.view import RunView

N = NodeState
_PENDING = frozenset({N.PENDING, N.RUNNING, N.BACKOFF, N.GATED, N.WAITING})


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """One node that has left something: its row, its newest attempt that has ended, its status."""

    plan_node: PlanNode
    node: NodeRun
    newest: Attempt | None
    status: str


def settled_nodes(picture: RunPicture) -> list[Settled]:
    """Return the nodes that have left something, in the order of the document."""
    ended = {a.node_no: a for a in picture.attempts if a.outcome is not None}
    found: list[Settled] = []
    for number, node in sorted(picture.view.nodes.items()):
        newest = ended.get(number)
        status = output_status(node, newest)
        if status is not None:
            plan_node = picture.view.plan.nodes[number]
            found.append(Settled(plan_node=plan_node, node=node, newest=newest, status=status))
    return found


def checkpoint_record(picture: RunPicture, settled: Sequence[Settled]) -> dict[str, Any]:
    """Return the ten fields; `settled` is what `settled_nodes` found."""
    view = picture.view
    run, plan = view.run, view.plan
    nodes = () if is_dry_run(run.trigger_type) else plan.nodes
    return without_nothing(
        {
            "completed_nodes": completed_nodes(view),
            "pending_nodes": [n.node_id for n in nodes if view.node(n.node_no).state in _PENDING],
            "node_outputs": _outputs(run, settled),
            "node_attempts": {
                plan.nodes[number].node_id: node.attempts
                for number, node in sorted(view.nodes.items())
                if node.attempts and not _begins_anew(node)
            },
            "node_attempt_verdicts": _verdicts(picture),
            "blocked_nodes": blocked_nodes(picture, settled),
            "awaiting_gate": _awaiting_gate(view),
            "gate_history": _gate_history(picture),
            "lifecycle_history": [history_record(event) for event in picture.events],
            "last_failure": failure_record(run.last_failure),
        }
    )


def completed_nodes(view: RunView) -> list[str]:
    """Return the completed nodes in the order in which they were completed.

    Those that were completed at the same moment come in an order that respects what they depend on.
    """
    done = [node for node in view.nodes.values() if node.state is N.COMPLETED]
    stages = stages_of(view.plan)
    done.sort(key=lambda node: (node.finished_at_ms or 0, stages[node.node_no], node.node_no))
    return [view.plan.nodes[node.node_no].node_id for node in done]


def blocked_nodes(picture: RunPicture, settled: Sequence[Settled]) -> list[str]:
    """Return the blocked nodes, sorted: those that say so, and those behind them."""
    if not picture.is_readable:
        return [CHECKPOINT_NODE]
    plan = picture.view.plan
    behind = {n for n in picture.view.halted if picture.view.nodes[n].state is N.BLOCKED}
    return sorted(
        {plan.nodes[number].node_id for number in behind}
        | {each.plan_node.node_id for each in settled if each.status == "blocked"}
    )


def history_record(event: LifecycleEvent) -> dict[str, Any]:
    """Return a lifecycle record (run-lifecycle 1.3); node and attempt stand in its metadata."""
    named = without_nothing({"node_id": event.node_id, "attempt": event.attempt})
    return without_nothing(
        {
            "seq": event.seq,
            "event": event.event.value,
            "recorded_at_ms": event.recorded_at_ms,
            "reason": event.reason or None,
            "stop_kind": event.stop_kind,
            "metadata": (named | event.metadata) or None,
        }
    )


def failure_record(failure: Failure | None) -> dict[str, Any] | None:
    """Return a failure record (run-lifecycle 1.3)."""
    if failure is None:
        return None
    return without_nothing(
        {
            "node_id": failure.node_id,
            "reason": failure.reason,
            "failed_at_ms": failure.failed_at_ms,
            "failure_kind": failure.failure_kind or None,
            "metadata": failure.metadata or None,
        }
    )


def _begins_anew(node: NodeRun) -> bool:
    """Say whether a node was reset and has not run since: its attempts count no more (T57)."""
    return node.state is NodeState.PENDING and not node.attempts_used


def _outputs(run: Run, settled: Sequence[Settled]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    room = CONTENT_BYTES_MAX
    for each in settled:
        room -= len(each.node.output or b"")
        found[each.plan_node.node_id] = output_record(
            each.plan_node,
            each.node,
            each.newest,
            status=each.status,
            profile=run.effective_execution_profile,
            shows_content=room >= 0,
        )
    return found


def _verdicts(picture: RunPicture) -> dict[str, list[JsonObject]]:
    ended: dict[int, list[Attempt]] = {}
    for attempt in picture.attempts:
        if attempt.outcome is not None:
            ended.setdefault(attempt.node_no, []).append(attempt)
    nodes = picture.view.plan.nodes
    return {
        nodes[number].node_id: [verdict_of(nodes[number], a) for a in tried[-VERDICTS_MAX:]]
        for number, tried in ended.items()
    }


def _awaiting_gate(view: RunView) -> dict[str, Any] | None:
    """Return the oldest open gate; others may be open, too, and may be decided before it."""
    if not view.gates:
        return None
    run = view.run
    oldest = min(view.gates.values(), key=lambda gate: (gate.requested_at_ms, gate.gate_id))
    shown = pending_gate(oldest, run_id=run.run_id, tenant=run.tenant, plan=view.plan)
    return _lean(shown)


def _lean(record: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is absent, also within."""
    return {
        name: _lean(value) if isinstance(value, Mapping) else value
        for name, value in record.items()
        if value is not None
    }


def _gate_history(picture: RunPicture) -> list[dict[str, Any]]:
    """Return what was decided, and what was refused as meant for another asking, oldest first."""
    found = [
        *(decision_record(gate) for gate in picture.gates),
        *(denial_record(event) for event in picture.events),
    ]
    records = [without_nothing(record) for record in found if record is not None]
    return sorted(records, key=lambda record: record["decided_at_ms"])
