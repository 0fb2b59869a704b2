"""A change in the making: it reads itself, and its closing rules leave nothing stale."""

import msgspec
import pytest

from tandem.domain.draft import Draft
from tandem.domain.errors import IllegalTransition
from tandem.domain.ids import ChangeId, EngineId
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.run import NodeRun, QueueReason
from tandem.domain.view import RunView
from tandem.testing.builders import fresh_view, python_node

E, N, S = RunEvent, NodeState, RunState


def a_draft(status: RunState = S.RUNNING, **run: object) -> Draft:
    view = fresh_view(python_node("a"), python_node("b", "a"))
    view.run = msgspec.structs.replace(view.run, status=status, **run)
    return Draft(view, change_id=ChangeId("change-1"), now_ms=5_000)


def complete(draft: Draft, number: int) -> None:
    plan_node = draft.plan.nodes[number]
    draft.move(plan_node, E.NODE_STARTED, draft.node(number))
    draft.move(plan_node, E.NODE_COMPLETED, draft.node(number))


def test_draft_sees_itself_and_the_view_does_not() -> None:
    draft = a_draft()

    complete(draft, 0)

    assert draft.node(0).state is N.COMPLETED
    assert draft.open_deps(1) == 0
    assert draft.unblocked() == [1]
    assert draft.run.nodes_completed == 1
    assert draft.view.node(0).state is N.PENDING
    assert draft.view.open_deps == [0, 1]
    assert draft.view.run.nodes_completed == 0


def test_reset_of_a_completed_node_closes_its_successors_again() -> None:
    draft = a_draft()
    complete(draft, 0)

    draft.move(draft.plan.nodes[0], E.NODE_RESET, NodeRun(node_no=0))

    assert draft.open_deps(1) == 1
    assert draft.unblocked() == []
    assert draft.run.nodes_completed == 0


def test_illegal_event_changes_nothing() -> None:
    draft = a_draft(S.PAUSED)

    with pytest.raises(IllegalTransition):
        draft.happen(E.RUN_COMPLETED)
    with pytest.raises(IllegalTransition):
        draft.move(draft.plan.nodes[0], E.NODE_COMPLETED, draft.node(0))
    with pytest.raises(IllegalTransition):
        draft.move(draft.plan.nodes[0], E.NODE_STARTED, draft.node(0))

    assert (draft.events, draft.nodes, draft.run.status) == ([], {}, S.PAUSED)


def test_events_are_numbered_on_from_the_run() -> None:
    draft = a_draft(event_seq=7)

    draft.happen(E.RUN_PAUSE_REQUESTED, reason="why", metadata={"x": 1})
    change = draft.close()

    (event,) = change.events
    assert (event.seq, event.reason, event.metadata) == (8, "why", {"x": 1})
    assert (event.change_id, event.recorded_at_ms) == ("change-1", 5_000)
    assert change.run.event_seq == 8


def test_change_names_what_it_builds_on() -> None:
    draft = a_draft(epoch=3)
    draft.happen(E.RUN_PAUSE_REQUESTED)

    change = draft.close()

    assert (change.builds_on, change.epoch_before) == ("created", 3)
    assert change.status_before is S.RUNNING
    assert change.moved
    assert change.run.last_change_id == change.change_id == "change-1"
    assert change.run.updated_at_ms == 5_000


def test_change_that_leaves_the_state_has_not_moved() -> None:
    draft = a_draft()
    complete(draft, 0)

    assert not draft.close().moved


@pytest.mark.parametrize(
    ("event", "after"),
    [
        (E.RUN_PARKED_AT_GATE, S.AWAITING_APPROVAL),
        (E.RUN_PARKED_ON_WAIT, S.PAUSED),
        (E.RUN_PARKED_ON_BACKOFF, S.QUEUED),
        (E.RUN_COMPLETED, S.COMPLETED),
        (E.RUN_BLOCKED, S.BLOCKED),
        (E.RUN_FAILED, S.FAILED),
        (E.RUN_STOPPED, S.CANCELLED),
    ],
)
def test_closing_drops_what_the_new_state_has_no_use_for(event: RunEvent, after: RunState) -> None:
    draft = a_draft(
        engine_id=EngineId("engine-1"),
        queue_reason=QueueReason.RETRY_BACKOFF,
        parked="timer",
        due_at_ms=9_000,
    )
    draft.happen(event)

    run = draft.close().run

    assert run.status is after
    assert run.engine_id is None
    assert run.queue_reason == (QueueReason.RETRY_BACKOFF if after is S.QUEUED else None)
    assert run.parked == ("timer" if after is S.PAUSED else "")
    is_over = after not in (S.AWAITING_APPROVAL, S.PAUSED, S.QUEUED)
    assert run.due_at_ms == (None if is_over else 9_000)
    assert run.finished_at_ms == (5_000 if is_over else None)


def test_driven_run_keeps_its_claim() -> None:
    draft = a_draft(engine_id=EngineId("engine-1"))
    draft.happen(E.RUN_PAUSE_REQUESTED)

    assert draft.close().run.engine_id == "engine-1"


def test_end_is_dated_once() -> None:
    draft = a_draft(S.CANCELLED, finished_at_ms=4_000)
    draft.happen(E.RUN_PROCESSES_ENDED)

    assert draft.close().run.finished_at_ms == 4_000


def test_nodes_are_found_by_their_state_after_the_draft() -> None:
    view = fresh_view(python_node("a"), python_node("b"), python_node("c"), python_node("d"))
    states = {0: N.RUNNING, 1: N.BACKOFF, 2: N.FAILED, 3: N.BLOCKED}
    view = RunView(
        msgspec.structs.replace(view.run, status=S.RUNNING),
        view.plan,
        [NodeRun(node_no=number, state=state) for number, state in states.items()],
    )
    draft = Draft(view, change_id=ChangeId("change-1"), now_ms=0)
    draft.move(draft.plan.nodes[0], E.NODE_FAILED, draft.node(0))

    assert draft.in_state(N.RUNNING) == set()
    assert draft.in_state(N.BACKOFF) == {1}
    assert draft.in_state(N.FAILED) == {0, 2}
    assert draft.in_state(N.FAILED, N.BLOCKED) == {0, 2, 3}
