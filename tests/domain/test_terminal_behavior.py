"""Nodes that give up: their policy says whether the run ends by it or a person looks first."""

from typing import Any

import pytest

from tandem.domain.command import Resume, RetryNode, Skip
from tandem.domain.ids import NodeId
from tandem.domain.lifecycle import RunState
from tandem.testing.builders import python_node
from tandem.testing.tale import Tale

S = RunState


def reviewed(mode: str = "pause_for_review") -> dict[str, Any]:
    return {"retry_policy": {"max_attempts": 1, "terminal_behavior": {"mode": mode}}}


def test_node_that_gave_up_holds_the_run_for_a_person() -> None:
    tale = Tale(python_node("a", **reviewed()), python_node("b", "a")).claim()

    tale.fail("a")

    assert tale.status is S.PAUSED
    assert tale.states()["a"] == "failed"
    assert tale.run.pause_reason == ("paused for review of a node that gave up: node `a`: it broke")
    assert tale.run.stop_kind is None


def test_what_runs_beside_it_lands_first() -> None:
    tale = Tale(python_node("a", **reviewed()), python_node("b", **reviewed())).claim()

    tale.fail("a")
    assert tale.status is S.PAUSING
    tale.fail("b")

    assert tale.status is S.PAUSED


@pytest.mark.parametrize(
    "command", [RetryNode(node_id=NodeId("a")), Skip(node_id=NodeId("a"), reason="fine")]
)
def test_person_mends_it_and_the_run_goes_on(command: RetryNode | Skip) -> None:
    tale = Tale(python_node("a", **reviewed()), python_node("b", "a")).claim()
    tale.fail("a")

    tale.command(command)
    if tale.status is S.PAUSED:
        tale.command(Resume())
    tale.claim()

    assert "running" in tale.states().values()


def test_plain_resume_lets_the_run_end_by_it() -> None:
    tale = Tale(python_node("a", **reviewed()), python_node("b", "a")).claim()
    tale.fail("a")

    tale.command(Resume())
    tale.claim()

    assert tale.status is S.FAILED


def test_output_that_is_never_mended_is_looked_at_too() -> None:
    tale = Tale(python_node("a", **reviewed()), python_node("b", "a")).claim()

    tale.repair("a")

    assert tale.status is S.PAUSED
    assert tale.states() == {"a": "blocked", "b": "blocked"}


def test_other_modes_end_the_run() -> None:
    for mode in ("fail_run", "dead_letter"):
        tale = Tale(python_node("a", **reviewed(mode))).claim()
        tale.fail("a")
        assert tale.status is S.FAILED
