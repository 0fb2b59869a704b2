"""Nodes after a triage gate that found nothing to do."""

from typing import Any

import pytest

from tandem.domain.automation import Node
from tandem.domain.command import Pause, Resume
from tandem.domain.json import decode, encode
from tandem.domain.outcome import Succeeded
from tandem.domain.output_status import read_output
from tandem.domain.work import has_work
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import Tale

GATE = {"triage_gate": True}


def finish(tale: Tale, node_id: str, output: Any) -> None:
    """Let a body end well and its output be read, as the engine does it."""
    plan_node = tale.view.plan.nodes[tale.view.plan.by_id[node_id]]  # type: ignore[index] # a NodeId
    read = read_output(plan_node.node, Succeeded(output=output))
    tale.settle(node_id, read.outcome, output=encode(output), reading=read.reading)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"has_work": False}, False),
        ({"structured_handoff": {"has_work": False}}, False),
        ({"content": {"has_work": False}}, False),
        ({"content": {"structured_handoff": {"has_work": False}}}, False),
        ({"content": {"data": {"has_work": False}}}, False),
        ('I looked. {"has_work": false} That is all.', False),
        ({"content": {"text": '{"has_work": false}'}}, False),
        ({"content": "so {it goes"}, True),
        ({"content": "} backwards {"}, True),
        ('["{", 1]}', True),
        ({"has_work": "no"}, True),
        ({"has_work": True, "content": {"has_work": False}}, True),
        ({}, True),
        (None, True),
    ],
)
def test_where_a_triage_gate_says_whether_there_is_work(output: Any, expected: bool) -> None:
    assert has_work(output) is expected


def test_nodes_after_a_triage_gate_without_work_are_skipped_all_the_way() -> None:
    tale = Tale(
        python_node("look", metadata=GATE),
        python_node("mend", "look"),
        gate_node("sign", "mend"),
        python_node("ship", "sign"),
    ).claim()

    finish(tale, "look", {"has_work": False})

    assert tale.happened() == [
        "node_completed",
        *["node_skipped_no_work"] * 3,
        "run_completed",
    ]
    assert decode(tale.node("mend").output or b"") == {
        "status": "skipped",
        "triage_skipped": True,
        "contract_kind": "text_summary",
    }
    assert tale.node("mend").attempts == 0
    assert tale.run.status.value == "completed"


def test_a_node_with_another_parent_that_did_work_runs() -> None:
    tale = Tale(
        python_node("look", metadata=GATE), python_node("work"), python_node("join", "look", "work")
    ).claim()

    finish(tale, "look", {"has_work": False})
    finish(tale, "work", {})

    assert tale.states()["join"] == "running"


def test_a_gate_that_opens_beside_a_skipped_node_opens_once() -> None:
    tale = Tale(
        python_node("look", metadata=GATE),
        python_node("work"),
        gate_node("ask", "look", "work"),
        python_node("mend", "look"),
    ).claim()
    finish(tale, "work", {})

    finish(tale, "look", {"has_work": False})

    assert tale.states()["ask"] == "gated"
    assert tale.states()["mend"] == "completed"
    assert len(tale.open_gates()) == 1


def test_a_gate_that_a_barrier_held_opens_once_beside_a_skipped_node() -> None:
    phases = [{"phase_id": "one", "execution_mode": "barrier"}, {"phase_id": "two"}]
    one, two = ({"builder": {"phase_id": name}} for name in ("one", "two"))
    tale = Tale(
        python_node("look", metadata=GATE | one),
        gate_node("ask", metadata=two),
        python_node("mend", "look"),
        metadata={"mission": {"phases": phases}},
    ).claim()

    finish(tale, "look", {"has_work": False})

    assert tale.happened().count("gate_opened") == 1
    assert tale.states()["mend"] == "completed"


def test_a_triage_gate_with_work_skips_nothing() -> None:
    tale = Tale(python_node("look", metadata=GATE), python_node("mend", "look")).claim()

    finish(tale, "look", {"has_work": True})

    assert tale.states()["mend"] == "running"


def test_a_node_that_got_ready_while_the_run_was_held_is_skipped_later() -> None:
    tale = Tale(python_node("look", metadata=GATE), python_node("mend", "look")).claim()
    tale.command(Pause())
    finish(tale, "look", {"has_work": False})
    assert tale.states()["mend"] == "pending"

    tale.command(Resume())
    tale.claim()

    assert tale.run.status.value == "completed"
    assert "node_skipped_no_work" in tale.happened()


def test_an_approval_after_a_triage_gate_without_work_is_skipped_by_itself() -> None:
    tale = Tale(python_node("look", metadata=GATE), gate_node("sign", "look")).claim()

    finish(tale, "look", {"has_work": False})

    assert tale.run.status.value == "completed"
    assert not tale.open_gates()


def test_an_output_that_a_triage_gate_gives_without_a_reading_is_read() -> None:
    tale = Tale(python_node("look", metadata=GATE), python_node("mend", "look")).claim()

    tale.succeed("look", b'{"has_work":false}')

    assert tale.run.status.value == "completed"


def test_only_a_triage_gate_is_asked_for_work() -> None:
    node = Node.model_validate(python_node("n"))

    assert read_output(node, Succeeded(output={"has_work": False})).reading is None
