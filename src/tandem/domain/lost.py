"""Runs whose definition cannot be read any more: they end, and say why (run-lifecycle T72).

Nothing here knows the graph: the nodes have numbers and no names.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from tandem.domain.change import Change
from tandem.domain.draft import close_run
from tandem.domain.errors import Refused
from tandem.domain.ids import AttemptId, ChangeId, EngineId
from tandem.domain.lifecycle import (
    NodeState,
    RunEvent,
    RunState,
    StopKind,
    next_node_state,
    next_run_state,
)
from tandem.domain.receipts import record
from tandem.domain.restart import RESTART_INTERRUPTED
from tandem.domain.run import Attempt, AttemptEnd, LifecycleEvent, NodeRun, Run

E, N, S = RunEvent, NodeState, RunState

DEFINITION_UNREADABLE: Final = f"{RESTART_INTERRUPTED}; definition unreadable"


def fail_unreadable(
    run: Run,
    nodes: Iterable[NodeRun],
    *,
    dead: EngineId,
    why: str,
    change_id: ChangeId,
    now_ms: int,
) -> Change:
    """End a run that an engine which died was driving and nobody can read.

    Raises:
        Refused: the run is not running, or another engine holds it; nothing is to be written.
    """
    if run.status is not S.RUNNING or run.engine_id != dead:
        raise Refused(f"cannot fail run {run.run_id}: engine {dead} does not drive it")
    after = msgspec.structs.replace(run)
    running = [node for node in nodes if node.state is N.RUNNING]
    events = [
        _event(
            after,
            E.NODE_INTERRUPTED,
            attempt=node.attempts,
            metadata={"node_no": node.node_no},
            change_id=change_id,
            now_ms=now_ms,
        )
        for node in running
    ]
    after.detail = after.stop_reason = DEFINITION_UNREADABLE
    after.stop_kind = StopKind.SERVER_RESTART
    after.owner = after.cleanup = None
    events.append(
        _event(
            after,
            E.RUN_FAILED_SERVER_RESTART,
            reason=DEFINITION_UNREADABLE,
            stop_kind=after.stop_kind,
            metadata={"why": why},
            change_id=change_id,
            now_ms=now_ms,
        )
    )
    close_run(after, change_id=change_id, now_ms=now_ms)
    return Change(
        change_id=change_id,
        builds_on=run.last_change_id,
        epoch_before=run.epoch,
        status_before=run.status,
        run=after,
        moved=True,
        nodes=tuple(
            msgspec.structs.replace(node, state=next_node_state(node.state, E.NODE_INTERRUPTED))
            for node in running
        ),
        attempts_ended=tuple(
            Attempt(
                attempt_id=AttemptId(""),
                node_no=node.node_no,
                number=node.attempts,
                epoch=run.epoch,
                engine_id=dead,
                started_at_ms=0,
                ended_at_ms=now_ms,
                outcome=AttemptEnd.INTERRUPTED,
                message=f"engine {dead} died",
            )
            for node in running
        ),
        events=tuple(events),
    )


def _event(
    run: Run,
    event: RunEvent,
    *,
    change_id: ChangeId,
    now_ms: int,
    attempt: int | None = None,
    reason: str = "",
    stop_kind: StopKind | None = None,
    metadata: dict[str, object],
) -> LifecycleEvent:
    run.status = next_run_state(run.status, event)
    return record(
        run,
        LifecycleEvent(
            seq=run.event_seq + 1,
            event=event,
            recorded_at_ms=now_ms,
            change_id=change_id,
            attempt=attempt,
            reason=reason,
            stop_kind=stop_kind,
            metadata=metadata,
        ),
    )
