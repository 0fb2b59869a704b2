"""Every pair of state and event: allowed as the tables say, refused otherwise."""

import pytest

from tandem.domain.errors import IllegalTransition, Refused
from tandem.domain.lifecycle import (
    DRIVEN,
    LIVE,
    NODE_EVENTS,
    NODE_TRANSITIONS,
    RUN_TRANSITIONS,
    TERMINAL,
    NodeState,
    RunEvent,
    RunState,
    is_terminal,
    next_node_state,
    next_run_state,
)

E, N, S = RunEvent, NodeState, RunState


@pytest.mark.parametrize("state", RunState)
def test_event_moves_a_run_only_where_the_table_says(state: RunState) -> None:
    for event in RunEvent:
        if (state, event) in RUN_TRANSITIONS:
            assert next_run_state(state, event) is RUN_TRANSITIONS[state, event], event
            continue
        with pytest.raises(IllegalTransition) as refused:
            next_run_state(state, event)
        assert (refused.value.state, refused.value.event) == (state, event)


@pytest.mark.parametrize("state", NodeState)
def test_event_moves_a_node_only_where_the_table_says(state: NodeState) -> None:
    for event in RunEvent:
        if (state, event) in NODE_TRANSITIONS:
            assert next_node_state(state, event) is NODE_TRANSITIONS[state, event], event
            continue
        with pytest.raises(IllegalTransition) as refused:
            next_node_state(state, event)
        assert (refused.value.state, refused.value.event) == (state, event)


def test_only_what_people_ask_for_leaves_a_terminal_state() -> None:
    leaving = {
        (state, event)
        for (state, event), after in RUN_TRANSITIONS.items()
        if state in TERMINAL and after is not state
    }
    assert leaving == {
        (S.FAILED, E.RUN_RECOVERED),
        (S.BLOCKED, E.RUN_RECOVERED),
        (S.BLOCKED, E.RUN_STOPPED),
        (S.FAILED, E.RUN_REDELIVERED),
        (S.BLOCKED, E.RUN_REDELIVERED),
        *((state, E.RUN_REOPENED) for state in TERMINAL - {S.CANCELLED}),
        *(
            (state, event)
            for state in TERMINAL
            for event in (
                E.RUN_STEP_REPAIRED,
                E.RUN_TASK_RETRIED,
                E.RUN_TASK_REQUEUED,
                E.RUN_TASK_CONTINUED,
            )
        ),
    }


def test_only_a_reset_leaves_a_completed_node() -> None:
    leaving = {
        event
        for (state, event), after in NODE_TRANSITIONS.items()
        if state is N.COMPLETED and after is not state
    }
    assert leaving == {E.NODE_RESET, E.RUN_COMPLETION_REPAIR_REQUESTED}


def test_every_state_can_be_reached_and_every_event_can_happen() -> None:
    reached = {S.QUEUED}
    while True:
        more = reached | {
            after for (state, _), after in RUN_TRANSITIONS.items() if state in reached
        }
        if more == reached:
            break
        reached = more
    assert reached == set(RunState)
    assert {event for _, event in RUN_TRANSITIONS} == set(RunEvent)
    assert set(NODE_TRANSITIONS.values()) == set(NodeState)


def test_every_live_state_can_be_stopped_and_no_node_event_moves_the_run() -> None:
    assert {state for state in LIVE if (state, E.RUN_STOPPED) in RUN_TRANSITIONS} == LIVE
    moving = {
        event
        for (state, event), after in RUN_TRANSITIONS.items()
        if event in NODE_EVENTS and after is not state
    }
    assert moving == set()


def test_terminal_driven_and_live_states_are_told_apart() -> None:
    assert {state for state in RunState if is_terminal(state)} == TERMINAL
    assert DRIVEN < LIVE
    assert not LIVE & TERMINAL


def test_illegal_transition_is_a_refusal_that_names_both() -> None:
    with pytest.raises(Refused, match=r"`run_completed` cannot happen to .* `paused`"):
        next_run_state(S.PAUSED, E.RUN_COMPLETED)
