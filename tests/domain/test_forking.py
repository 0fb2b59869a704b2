"""Forks: what they take over, and what both runs know of it."""

import msgspec
import pytest
from tests.domain.operated import A, B, C, chain_in, fork_of
from tests.domain.test_preview import left

from tandem.domain.artifact import CandidateSource, Validity
from tandem.domain.command import DecideGate, Dispose, NoteFork
from tandem.domain.errors import InvalidAutomation
from tandem.domain.forking import begin, new_run, reused_nodes
from tandem.domain.graph import Plan
from tandem.domain.ids import ChangeId, NodeId, RunId
from tandem.domain.json import digest
from tandem.domain.lifecycle import RunState
from tandem.domain.receipts import ChainCheck, first_event
from tandem.domain.view import RunView
from tandem.testing.builders import automation, gate_node, python_node
from tandem.testing.tale import ENGINE, Tale


def test_fork_is_started_by_whoever_forks_else_by_whoever_started_its_source() -> None:
    tale = chain_in(RunState.COMPLETED)
    tale.view.run.started_by = "ann"
    forked = new_run(
        tale.view,
        run_id=RunId("fork"),
        inputs={},
        owner=None,
        started_by="bob",
        change_id=ChangeId("f"),
        now_ms=9,
    )
    assert forked.started_by == "bob"
    assert fork_of(tale).started_by == "ann"


@pytest.mark.parametrize("status", RunState)
def test_source_notes_its_fork_in_any_state_and_goes_on(status: RunState) -> None:
    tale = chain_in(status)
    tale.command(NoteFork(fork=RunId("fork"), node_id=A, reason="what if"))
    assert tale.happened() == ["run_forked"]
    assert tale.events[-1].metadata == {"run_id": "fork", "node_id": "a"}
    assert tale.status is status


def test_fork_takes_over_what_is_completed_and_does_not_follow_the_node() -> None:
    tale = chain_in(RunState.COMPLETED)
    tale.command(Dispose(node_id=A, disposition="ok"))
    run = fork_of(tale)
    view = RunView(run, tale.view.plan)

    change = begin(
        view,
        tale.view,
        B,
        asks_again=False,
        artifacts=[left(0, "log"), left(1, "sent")],
        change_id=ChangeId("f2"),
        now_ms=10,
    )
    view.apply(change)

    assert [event.event.value for event in change.events] == ["run_forked_from", "node_reused"]
    assert change.events[0].metadata == {"run_id": "run", "node_id": "b", "reused": 1}
    assert change.events[1].metadata == {"output_digest": digest(b"1")}
    assert (change.run.forked_from, change.run.forked_from_node) == ("run", "b")
    taken = view.node(0)
    assert (taken.state.value, taken.output, taken.attempts) == ("completed", b"1", 0)
    assert taken.handling is not None
    assert taken.handling.disposition == "accepted"
    assert list(view.ready) == [1]
    assert [(a.node_no, a.attempt) for a in change.artifacts] == [(0, 0)]
    assert (run.status, run.due_at_ms, run.owner) == (RunState.QUEUED, 9, ENGINE)


def test_fork_takes_over_what_counts_as_what_was_there_before() -> None:
    tale = chain_in(RunState.COMPLETED)
    rejected = msgspec.structs.replace(left(0, "old", "old.md"), validity=Validity.REJECTED)

    change = begin(
        RunView(fork_of(tale), tale.view.plan),
        tale.view,
        B,
        asks_again=False,
        artifacts=[rejected, left(0, "new", "new.md")],
        change_id=ChangeId("f2"),
        now_ms=10,
    )

    (kept,) = change.artifacts
    assert (kept.ref.path, kept.attempt, kept.registered_at_ms) == ("new.md", 0, 10)
    assert kept.provenance.accepted_candidate_source is CandidateSource.PREEXISTING_OUTPUT
    assert not kept.provenance.freshness.current_run
    assert change.events[1].metadata["artifacts"] == {"new.md": "d"}


def test_fork_needs_what_its_source_needs() -> None:
    tale = Tale(python_node("a"))
    tale.run.lock_path = "/work"
    held = automation(python_node("a"), workspace="exclusive", labels=["gpu"])
    tale.view = RunView(tale.run, Plan(held, tale.run.definition_digest))

    run = fork_of(tale)

    assert (run.lock_path, run.labels) == ("/work", ("gpu",))


def test_events_of_a_fork_are_one_chain() -> None:
    tale = chain_in(RunState.COMPLETED)
    run = fork_of(tale)
    change = begin(
        RunView(run, tale.view.plan),
        tale.view,
        B,
        asks_again=False,
        artifacts=[],
        change_id=ChangeId("f2"),
        now_ms=10,
    )
    chain = ChainCheck()
    chain.follow([first_event(run), *change.events])
    chain.close(seq=change.run.event_seq, head=change.run.event_hash)
    assert chain.problems == []


def test_fork_from_the_first_node_takes_nothing_over() -> None:
    assert reused_nodes(chain_in(RunState.COMPLETED).view, A) == []
    assert reused_nodes(chain_in(RunState.FAILED).view, C) == [0]


def test_approvals_are_kept_unless_they_are_asked_again() -> None:
    tale = Tale(gate_node("g"), python_node("x", "g"), python_node("y", "x")).claim()
    tale.command(DecideGate(decision="approve"))
    tale.claim()
    tale.succeed("x")
    assert reused_nodes(tale.view, NodeId("y")) == [0, 1]
    assert reused_nodes(tale.view, NodeId("y"), asks_again=True) == []


def test_inputs_of_a_fork_have_to_fit() -> None:
    with pytest.raises(InvalidAutomation):
        fork_of(chain_in(RunState.FAILED), city="Rome")
