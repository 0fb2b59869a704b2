"""Runs in every state, as operators find them."""

from typing import Any

from tandem.domain.command import Cancel, Command, Pause
from tandem.domain.errors import EngineError
from tandem.domain.forking import new_run
from tandem.domain.ids import ChangeId, NodeId, RunId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Run
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import ENGINE, Tale

ONCE = {"max_attempts": 1}
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def chain(**fields: Any) -> Tale:
    """Return a claimed run of `a`, `b` and `c`, one after the other; `b` has one attempt."""
    return Tale(
        python_node("a"),
        python_node("b", "a", retry_policy=ONCE, **fields),
        python_node("c", "b"),
    ).claim()


def chain_in(status: RunState, **fields: Any) -> Tale:
    """Return that run in this state; `a` is completed where it could be."""
    tale = chain(**fields)
    match status:
        case RunState.QUEUED:
            return Tale(python_node("a"), python_node("b", "a"), python_node("c", "b"))
        case RunState.AWAITING_APPROVAL:
            tale = Tale(python_node("a"), gate_node("g", "a"), python_node("b", "g")).claim()
            tale.succeed("a")
            return tale
    if status is RunState.RUNNING:
        return tale
    if status is RunState.PAUSING:
        tale.command(Pause())
        return tale
    if status is RunState.PAUSED:
        tale.command(Pause())
        tale.succeed("a")
        return tale
    tale.succeed("a")
    match status:
        case RunState.COMPLETED:
            tale.succeed("b")
            tale.succeed("c")
        case RunState.FAILED:
            tale.fail("b")
        case RunState.BLOCKED:
            tale.repair("b")
        case RunState.CANCELLED:
            tale.command(Cancel())
            tale.view.run.cleanup = None
    assert tale.status is status
    return tale


def code_of(tale: Tale, command: Command) -> str:
    """Return the code with which a command is refused; empty when it is obeyed."""
    count = len(tale.changes)
    try:
        tale.command(command)
    except EngineError as error:
        assert len(tale.changes) == count
        return error.code
    return ""


def paused_all() -> Tale:
    """Return a blocked run in which `a` paused all; `b` follows `a`, `c` does not."""
    tale = Tale(
        python_node("a", retry_policy=ONCE, metadata={"partial_failure_mode": "pause_all"}),
        python_node("s"),
        python_node("b", "a"),
        python_node("c", "s"),
    ).claim()
    tale.repair("a")
    tale.succeed("s")
    assert (tale.status, tale.states()["c"]) == (RunState.BLOCKED, "blocked")
    return tale


def fork_of(tale: Tale, **inputs: object) -> Run:
    """Return the row of a fork of this run."""
    return new_run(
        tale.view,
        run_id=RunId("fork"),
        inputs=inputs,
        owner=ENGINE,
        change_id=ChangeId("f"),
        now_ms=9,
    )
