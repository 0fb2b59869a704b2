"""Nodes that people complete: skipped, or with an output of their own."""

import pytest
from tests.domain.operated import ONCE, A, B, C, chain, chain_in, code_of, paused_all

from tandem.domain.artifact import ArtifactRef, Validity
from tandem.domain.command import Pause, Recover, SetOutput, Skip
from tandem.domain.ids import Digest, NodeId
from tandem.domain.json import decode, digest
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.run import Failure
from tandem.testing.builders import gate_node, python_node, timer_node
from tandem.testing.tale import ENGINE, Tale

S = RunState
NOT_MUTABLE = "AUTOMATION_V2_RUN_TASK_NOT_MUTABLE"


def skip(node_id: NodeId = B) -> Skip:
    return Skip(node_id=node_id, reason="not needed", decided_by="eve")


def put(node_id: NodeId = B, output: bytes = b"7") -> SetOutput:
    return SetOutput(node_id=node_id, output=output, reason="known already", decided_by="eve")


def test_skipped_node_counts_as_completed_and_its_successors_go_on() -> None:
    tale = chain_in(S.FAILED)

    tale.command(skip())

    assert tale.happened() == ["run_reopened", "node_skipped"]
    assert decode(tale.node("b").output or b"") == {
        "contract_kind": "text_summary",
        "status": "skipped",
        "summary": "not needed",
        "skipped_by": "eve",
        "skipped_at_ms": tale.now_ms,
    }
    handling = tale.node("b").handling
    assert handling is not None
    assert handling.by_hand == "skipped"
    assert (tale.status, tale.run.last_failure, tale.run.finished_at_ms) == (S.QUEUED, None, None)
    tale.claim()
    assert tale.states() == {"a": "completed", "b": "completed", "c": "running"}


def test_skipping_a_blocked_node_frees_what_it_blocked() -> None:
    tale = chain_in(S.BLOCKED)
    tale.command(skip())
    assert tale.happened() == ["run_reopened", "node_skipped", "node_reset"]
    tale.claim()
    assert tale.states()["c"] == "running"


def test_run_in_which_another_node_failed_stays_failed_until_that_is_dealt_with() -> None:
    tale = Tale(python_node("a", retry_policy=ONCE), python_node("b", retry_policy=ONCE)).claim()
    tale.fail("a")
    tale.fail("b")
    detail = tale.run.detail

    tale.command(skip(B))

    assert tale.happened() == ["node_skipped"]
    assert (tale.status, tale.run.detail) == (S.FAILED, detail)
    failure = tale.run.last_failure
    assert isinstance(failure, Failure)
    assert failure.node_id == "a"
    tale.command(skip(A))
    tale.claim()
    assert tale.status is S.COMPLETED


def test_skipping_a_timer_wakes_the_run_that_waited_for_it() -> None:
    tale = Tale(timer_node("t", delay_ms=60_000), python_node("b", "t")).claim()
    assert tale.run.parked

    tale.command(skip(NodeId("t")))

    assert tale.happened() == ["node_skipped", "run_woken"]
    assert (tale.status, tale.run.due_at_ms) == (S.QUEUED, tale.now_ms)
    assert not tale.waits_left()


def test_run_that_a_person_holds_stays_held() -> None:
    tale = chain_in(S.PAUSED)
    detail = tale.run.detail
    tale.command(skip())
    assert tale.happened() == ["node_skipped"]
    assert (tale.status, tale.run.detail) == (S.PAUSED, detail)


def test_run_that_waits_for_a_gate_goes_on_beside_it() -> None:
    tale = Tale(gate_node("g"), python_node("a", "g"), python_node("b")).claim()
    tale.succeed("b")
    assert tale.status is S.AWAITING_APPROVAL

    tale.command(put(A))

    assert tale.happened() == ["node_output_set", "run_woken"]
    tale.claim()
    assert tale.status is S.AWAITING_APPROVAL


def test_node_in_backoff_can_be_skipped_and_the_run_is_due_at_once() -> None:
    backoff = {"backoff": {"strategy": "fixed", "initial_delay_ms": 60_000}}
    tale = Tale(python_node("a", retry_policy=backoff)).claim()
    tale.fail("a")
    assert tale.status is S.QUEUED
    tale.command(skip(A))
    assert tale.run.due_at_ms == tale.now_ms
    tale.claim()
    assert tale.status is S.COMPLETED


def test_running_run_takes_notice_at_its_next_step() -> None:
    tale = Tale(python_node("a"), python_node("x"), python_node("b", "a", "x"), parallel=1)
    tale.claim()
    tale.command(skip(NodeId("x")))
    tale.succeed("a")
    assert tale.states() == {"a": "completed", "x": "completed", "b": "running"}


@pytest.mark.parametrize("command", [skip, put])
def test_what_runs_is_not_completed_by_hand(command: type) -> None:
    tale = chain()
    assert code_of(tale, command(A)) == NOT_MUTABLE
    tale.command(Pause())
    tale.stop("a")
    assert code_of(tale, command(A)) == ""


@pytest.mark.parametrize("command", [skip, put])
def test_no_way_leads_past_a_gate_without_a_decision(command: type) -> None:
    tale = Tale(python_node("a"), gate_node("g", "a")).claim()
    assert code_of(tale, command(NodeId("g"))) == "gate_needs_decision"
    tale.succeed("a")
    assert code_of(tale, command(NodeId("g"))) == "gate_needs_decision"
    unknown = Tale(python_node("out", effects="external")).claim()
    unknown.stop("out")
    assert code_of(unknown, command(NodeId("out"))) == "gate_needs_decision"


def test_cancelled_run_and_one_with_living_processes_are_left_alone() -> None:
    assert code_of(chain_in(S.CANCELLED), skip()) == NOT_MUTABLE
    tale = chain_in(S.FAILED)
    tale.view.run.cleanup = ENGINE
    assert code_of(tale, skip()) == "run_cleanup_pending"


def test_reason_is_needed() -> None:
    tale = chain_in(S.FAILED)
    assert code_of(tale, Skip(node_id=B, reason=" ")) == "reason_required"
    assert code_of(tale, SetOutput(node_id=B, output=b"1", reason="")) == "reason_required"


def test_completed_node_is_not_skipped() -> None:
    assert code_of(chain_in(S.FAILED), skip(A)) == NOT_MUTABLE


# Outputs by hand


def test_output_by_hand_completes_a_failed_node() -> None:
    tale = chain_in(S.FAILED)
    tale.command(put())
    assert tale.node("b").output == b"7"
    assert tale.events[-1].metadata == {"output_digest": digest(b"7"), "decided_by": "eve"}
    tale.claim()
    tale.succeed("c")
    assert tale.status is S.COMPLETED


def test_large_output_by_hand_is_registered_in_place_of_the_earlier_one() -> None:
    tale = chain_in(S.COMPLETED)
    ref = ArtifactRef(name="b", digest=Digest("sha256:1"), size_bytes=9, media_type="x")

    change = tale.command(SetOutput(node_id=B, output=b"8", ref=ref, reason="r", decided_by="eve"))

    assert [(left.node_no, left.ref, left.validity) for left in change.artifacts] == [
        (1, ref, Validity.VALID)
    ]
    # Nobody sent `c` back: it was only made from the earlier output.
    assert {gone.node_no: gone.validity for gone in change.invalidated} == {
        1: Validity.SUPERSEDED,
        2: Validity.SUPERSEDED,
    }
    (given,) = (event for event in change.events if event.event is RunEvent.NODE_OUTPUT_SET)
    assert given.metadata["output_digest"] == "sha256:1"


def test_another_output_makes_what_was_made_from_the_first_run_again() -> None:
    tale = chain_in(S.COMPLETED)

    tale.command(put())

    assert tale.happened() == ["run_reopened", "node_reset", "node_output_set"]
    assert tale.states() == {"a": "completed", "b": "completed", "c": "pending"}
    assert tale.status is S.QUEUED


def test_another_output_of_the_last_node_leaves_a_completed_run_completed() -> None:
    tale = chain_in(S.COMPLETED)
    finished, detail = tale.run.finished_at_ms, tale.run.detail
    tale.now_ms += 5
    tale.command(put(C))
    assert tale.happened() == ["node_output_set"]
    assert (tale.status, tale.run.detail) == (S.COMPLETED, detail)
    assert tale.run.finished_at_ms == finished


def test_output_of_a_completed_node_is_not_replaced_while_what_follows_runs() -> None:
    tale = chain()
    tale.succeed("a")
    assert code_of(tale, put(A)) == NOT_MUTABLE


def test_output_has_to_match_the_schema_of_the_contract() -> None:
    contract = {"kind": "structured_json", "schema": {"type": "object", "required": ["n"]}}
    tale = chain_in(S.FAILED, output_contract=contract)
    assert code_of(tale, put()) == "output_schema_invalid"
    tale.command(put(output=b'{"n":1}'))
    assert tale.node("b").output == b'{"n":1}'


def test_contract_without_a_schema_takes_any_output() -> None:
    tale = chain_in(S.FAILED, output_contract={"kind": "text_summary"})
    tale.command(put())
    assert tale.node("b").output == b"7"


def test_large_output_is_referred_to() -> None:
    ref = ArtifactRef(name="b", digest=Digest("sha256:1"), size_bytes=9, media_type="x")
    tale = chain_in(S.FAILED)
    tale.command(SetOutput(node_id=B, output=b"7", ref=ref, reason="known"))
    assert (tale.node("b").output, tale.node("b").output_ref) == (None, ref)


def test_reset_forgets_what_was_done_by_hand() -> None:
    tale = chain_in(S.BLOCKED)
    tale.command(put(A))
    assert tale.states() == {"a": "completed", "b": "pending", "c": "pending"}
    tale.claim()
    tale.fail("b")
    tale.command(Recover())
    assert tale.node("b").handling is None


def test_run_that_stays_failed_frees_what_the_skipped_node_had_blocked() -> None:
    tale = Tale(
        python_node("a", retry_policy=ONCE),
        python_node("b", "a"),
        python_node("c", retry_policy=ONCE),
    ).claim()
    tale.repair("a")
    tale.fail("c")
    assert tale.status is S.FAILED

    tale.command(skip(A))

    assert tale.states() == {"a": "completed", "b": "pending", "c": "failed"}
    assert tale.status is S.FAILED


def test_output_that_was_set_already_is_not_set_again() -> None:
    tale = chain_in(S.COMPLETED)
    tale.command(put(A))
    tale.claim()
    tale.succeed("b")
    assert code_of(tale, put(A)) == "unchanged"
    assert tale.states() == {"a": "completed", "b": "completed", "c": "running"}

    ref = ArtifactRef(name="a", digest=Digest("d"), size_bytes=9, media_type="application/json")
    large = SetOutput(node_id=C, output=b"9", ref=ref, reason="known already")
    tale.succeed("c")
    assert [code_of(tale, large), code_of(tale, large)] == ["", "unchanged"]


def test_output_set_before_the_failed_node_lets_it_run_again_with_that() -> None:
    tale = chain_in(S.FAILED)

    tale.command(put(A))

    assert tale.happened() == ["run_reopened", "node_reset", "node_output_set"]
    assert (tale.status, tale.run.last_failure) == (S.QUEUED, None)
    tale.claim()
    assert tale.states() == {"a": "completed", "b": "running", "c": "pending"}


def test_what_needs_only_an_output_that_was_set_goes_on_past_a_blocked_node() -> None:
    tale = chain_in(S.BLOCKED)
    tale.command(put(C))
    assert (tale.status, tale.states()["b"]) == (S.QUEUED, "blocked")

    tale = Tale(
        python_node("a", retry_policy=ONCE),
        python_node("b", "a"),
        python_node("c", "b"),
        python_node("d", "a"),
    ).claim()
    tale.repair("a")
    assert set(tale.states().values()) == {"blocked"}
    tale.command(put(B))
    tale.claim()
    assert tale.states() == {"a": "blocked", "b": "completed", "c": "running", "d": "blocked"}


def test_node_that_blocks_later_does_not_block_past_an_output_that_was_set() -> None:
    tale = Tale(
        python_node("a", retry_policy=ONCE),
        python_node("b", "a"),
        python_node("c", "b"),
        parallel=1,
    ).claim()
    tale.command(put(B))
    tale.repair("a")
    assert tale.states() == {"a": "blocked", "b": "completed", "c": "running"}


def test_skipping_a_node_that_paused_all_frees_all() -> None:
    tale = paused_all()
    tale.command(skip(A))
    tale.claim()
    assert tale.states() == {"a": "completed", "s": "completed", "b": "running", "c": "running"}


def test_run_that_goes_on_by_hand_no_longer_says_what_it_waited_for() -> None:
    tale = Tale(timer_node("t"), gate_node("g", "t")).claim()
    assert tale.run.pause_reason
    tale.command(put(NodeId("t")))
    assert (tale.status, tale.run.pause_reason) == (S.QUEUED, "")
