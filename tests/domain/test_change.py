"""A change is data: what it says is what the view becomes."""

import pytest

from tandem.domain.change import Change
from tandem.domain.lifecycle import RunState
from tandem.testing.builders import gate_node, python_node, timer_node
from tandem.testing.tale import Tale


def test_change_carries_only_the_rows_that_it_touches() -> None:
    names = [f"n{number}" for number in range(50)]
    tale = Tale(*(python_node(name) for name in names), parallel=3).claim()

    change = tale.succeed("n0")

    assert [node.node_no for node in change.nodes] == [0, 3]
    assert len(change.events) == 2
    assert (len(change.attempts_started), len(change.attempts_ended)) == (1, 1)
    assert (change.gates, change.waits, change.artifacts) == ((), (), ())


def test_first_step_opens_gates_registers_waits_and_starts_attempts() -> None:
    tale = Tale(python_node("a"), gate_node("g"), timer_node("t")).claim()

    change = tale.changes[-1]

    assert [gate.node_id for gate in change.gates] == ["g"]
    assert [wait.node_id for wait in change.waits] == ["t"]
    assert [attempt.node_no for attempt in change.attempts_started] == [0]
    assert change.run.status is RunState.RUNNING


def test_changes_form_a_chain() -> None:
    tale = Tale(python_node("a"), python_node("b", "a"), python_node("c", "b")).claim()
    for name in ("a", "b", "c"):
        tale.succeed(name)

    ids = [change.change_id for change in tale.changes]
    assert [change.builds_on for change in tale.changes] == ["created", *ids[:-1]]
    assert len(set(ids)) == len(ids)


def test_change_cannot_be_edited() -> None:
    change: Change = Tale(python_node("a")).claim().changes[-1]

    with pytest.raises(AttributeError):
        change.moved = False  # type: ignore[misc]
