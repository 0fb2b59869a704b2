"""What becomes of a run whose engine died (run-lifecycle T14, T70 to T73)."""

import pytest

from tandem.domain.artifact import ArtifactRef
from tandem.domain.command import (
    Adopt,
    Claim,
    DecideGate,
    HandBack,
    LossPolicy,
    Pause,
    Probed,
    Recover,
    Resume,
)
from tandem.domain.errors import Refused
from tandem.domain.ids import ChangeId, Digest, EngineId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.lost import DEFINITION_UNREADABLE, fail_unreadable
from tandem.domain.restart import RUN_INTERRUPTIONS_MAX
from tandem.domain.run import AttemptEnd
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import ENGINE, Tale

S = RunState
DIED = Adopt(dead=ENGINE)
FAILS = Adopt(dead=ENGINE, policy=LossPolicy.FAIL)


def test_running_run_is_queued_with_the_nodes_that_were_in_progress_marked() -> None:
    tale = Tale(python_node("a"), python_node("b"), python_node("c", "a")).claim()
    change = tale.command(DIED)
    assert tale.status is S.QUEUED
    assert tale.run.detail == (
        "automation run queued for resume after server restart; repairable node(s): a, b"
    )
    assert tale.run.resume_reason == "server_restart_rehydration"
    assert tale.run.due_at_ms == tale.now_ms
    interrupted = [event for event in change.events if event.event == "node_interrupted"]
    assert [event.metadata for event in interrupted] == [
        {"status": "needs_repair", "blocker_category": "server_restart_interrupted"}
    ] * 2
    failure = tale.node("a").failure
    assert failure is not None
    assert failure.failure_kind == "server_restart_interrupted"
    assert tale.run.last_failure == failure
    assert tale.run.interruptions == 1


def test_marks_are_gone_when_the_node_runs_again_and_completes() -> None:
    tale = Tale(python_node("a")).claim()
    tale.command(DIED)
    tale.claim()
    assert tale.node("a").failure is None
    tale.succeed("a")
    assert tale.status is S.COMPLETED
    assert tale.run.last_failure is None
    assert tale.run.interruptions == 0


def test_earlier_failure_of_the_run_is_kept() -> None:
    tale = Tale(python_node("a"), python_node("b")).claim()
    tale.command(DIED)
    first = tale.run.last_failure
    tale.claim()
    tale.now_ms += 5
    tale.command(DIED)
    assert tale.run.last_failure == first


def test_claim_under_which_no_work_began_is_told_so() -> None:
    tale = Tale(python_node("a"))
    tale.command(Claim(engine_id=ENGINE))
    tale.command(DIED)
    assert tale.happened() == ["run_execution_claim_expired_requeued"]
    assert tale.status is S.QUEUED
    assert tale.run.detail == (
        "automation run requeued after execution claim lease expired before work began"
    )
    assert tale.run.resume_reason == "abandoned_execution_claim"


def test_policy_fail_fails_the_run_as_the_older_version_did() -> None:
    tale = Tale(python_node("a")).claim()
    change = tale.command(FAILS)
    assert tale.status is S.FAILED
    assert tale.run.detail == tale.run.stop_reason == "automation run interrupted by server restart"
    assert tale.run.stop_kind is StopKind.SERVER_RESTART
    assert change.events[-1].event == "run_failed_server_restart"
    assert change.events[-1].stop_kind is StopKind.SERVER_RESTART
    assert tale.run.due_at_ms is None
    tale.command(Recover())
    assert tale.claim().states() == {"a": "running"}


def test_policy_fail_settles_a_pausing_run_to_paused_as_well() -> None:
    tale = Tale(python_node("a")).claim()
    tale.command(Pause(reason="lunch"))
    tale.command(FAILS)
    assert (tale.status, tale.run.pause_reason) == (S.PAUSED, "lunch")
    assert tale.run.stop_kind is None
    assert tale.happened()[-1] == "run_pausing_settled_on_restart"


def test_pausing_run_without_a_reason_gets_one() -> None:
    tale = Tale(python_node("a")).claim()
    tale.command(Pause(reason=""))
    tale.command(DIED)
    assert tale.run.pause_reason == "automation run settled to paused after server restart"


def test_node_with_outside_effects_is_not_repeated_after_a_failed_restart_either() -> None:
    tale = Tale(python_node("a", effects="external")).claim()
    tale.command(FAILS)
    assert tale.states() == {"a": "gated"}
    tale.command(Recover())
    tale.claim()
    assert tale.status is S.AWAITING_APPROVAL


# The effects probe


def probing() -> Tale:
    """Return a run whose node acts on the world and can be asked about it."""
    return Tale(
        python_node("a", effects="external", effects_probe=["ask"]), python_node("b", "a")
    ).claim()


def test_probe_that_says_done_completes_the_node_with_its_output() -> None:
    tale = probing()
    answer = Probed(node_no=0, is_done=True, output=b'"sent"')
    tale.command(Adopt(dead=ENGINE, probed=(answer,)))
    assert tale.states() == {"a": "completed", "b": "pending"}
    assert tale.node("a").output == b'"sent"'
    assert tale.run.detail == "automation run queued for resume after server restart"
    assert tale.ended[0, 1].outcome is AttemptEnd.INTERRUPTED
    assert tale.claim().states() == {"a": "completed", "b": "running"}


def test_a_large_answer_of_a_probe_is_the_output_of_the_node() -> None:
    tale = probing()
    ref = ArtifactRef(name="a", digest=Digest("sha256:1"), size_bytes=9, media_type="text/plain")
    answer = Probed(node_no=0, is_done=True, output_ref=ref)
    tale.command(Adopt(dead=ENGINE, probed=(answer,)))
    assert tale.states() == {"a": "completed", "b": "pending"}
    assert (tale.node("a").output, tale.node("a").output_ref) == (None, ref)


def test_probe_that_says_not_done_lets_the_node_run_again() -> None:
    tale = probing()
    tale.command(Adopt(dead=ENGINE, probed=(Probed(node_no=0, is_done=False),)))
    assert tale.claim().states() == {"a": "running", "b": "pending"}
    assert tale.node("a").attempts == 2


def test_without_an_answer_a_person_is_asked() -> None:
    tale = probing()
    tale.command(DIED)
    assert tale.states() == {"a": "gated", "b": "pending"}
    tale.claim()
    tale.command(DecideGate(decision="done"))
    assert tale.node("a").output == b"null"


# The run that takes engine after engine down


def dies_at_every_claim(tale: Tale, times: int) -> None:
    """Let an engine die with the run, right after its claim, so many times."""
    for _ in range(times):
        tale.command(Claim(engine_id=ENGINE))
        tale.command(DIED)


def test_run_that_takes_engine_after_engine_down_is_claimed_no_more() -> None:
    tale = Tale(python_node("a"))
    dies_at_every_claim(tale, RUN_INTERRUPTIONS_MAX - 1)
    assert tale.status is S.QUEUED
    dies_at_every_claim(tale, 1)
    assert tale.happened() == ["run_quarantined"]
    assert tale.status is S.PAUSED
    assert tale.run.due_at_ms is None
    assert "quarantined: 8 engines died" in tale.run.detail
    assert tale.run.pause_reason == tale.run.detail
    with pytest.raises(Refused):
        tale.command(Claim(engine_id=ENGINE))


def test_person_lets_a_quarantined_run_try_again() -> None:
    tale = Tale(python_node("a"))
    dies_at_every_claim(tale, RUN_INTERRUPTIONS_MAX)
    tale.command(Resume())
    assert (tale.run.interruptions, tale.run.stop_kind, tale.run.pause_reason) == (0, None, "")
    tale.claim().succeed("a")
    assert tale.status is S.COMPLETED


def test_run_that_gets_on_is_never_quarantined() -> None:
    names = [f"n{number}" for number in range(RUN_INTERRUPTIONS_MAX + 2)]
    after = [[], *([name] for name in names)]
    tale = Tale(*(python_node(n, *before) for n, before in zip(names, after, strict=False)))
    for name in names[:-1]:
        tale.claim()
        tale.succeed(name)
        tale.command(DIED)
        assert tale.status is S.QUEUED
        assert tale.run.interruptions == 1


# Shutdown


def test_stopping_engine_gives_a_run_back_with_a_record() -> None:
    tale = Tale(python_node("a")).claim()
    change = tale.command(HandBack(engine_id=ENGINE))
    assert tale.status is S.QUEUED
    assert tale.run.stop_kind is None
    assert change.events[-1].event == "run_interrupted_shutdown"
    assert change.events[-1].stop_kind is StopKind.SHUTDOWN


def test_stopping_engine_fails_its_runs_when_the_policy_says_so() -> None:
    tale = Tale(python_node("a")).claim()
    change = tale.command(HandBack(engine_id=ENGINE, policy=LossPolicy.FAIL))
    assert tale.status is S.FAILED
    assert (
        tale.run.detail == tale.run.stop_reason == "automation run stopped during server shutdown"
    )
    assert tale.run.stop_kind is StopKind.SHUTDOWN
    assert change.events[-1].event == "run_failed_shutdown"
    tale.command(Recover())
    assert tale.claim().states() == {"a": "running"}


def test_pausing_run_of_a_stopping_engine_comes_to_rest_whatever_the_policy() -> None:
    tale = Tale(python_node("a")).claim()
    tale.command(Pause(reason="lunch"))
    tale.command(HandBack(engine_id=ENGINE, policy=LossPolicy.FAIL))
    assert (tale.status, tale.run.pause_reason, tale.run.stop_kind) == (S.PAUSED, "lunch", None)


def test_draining_driver_starts_nothing_and_does_not_end_the_run_early() -> None:
    tale = Tale(python_node("a"), python_node("b", "a"), gate_node("g", "a")).claim()
    tale.drains = True
    tale.succeed("a")
    assert tale.states() == {"a": "completed", "b": "pending", "g": "pending"}
    assert tale.status is S.RUNNING
    assert tale.advance() is None


@pytest.mark.parametrize(
    ("ends", "status"), [("succeed", S.COMPLETED), ("fail", S.FAILED)], ids=["well", "badly"]
)
def test_draining_driver_ends_a_run_in_which_nothing_is_left(ends: str, status: S) -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1}), python_node("z")).claim()
    tale.drains = True
    tale.succeed("z")
    getattr(tale, ends)("a")
    assert tale.status is status


def test_draining_driver_brings_a_pausing_run_to_rest() -> None:
    tale = Tale(python_node("a"), python_node("b", "a")).claim()
    tale.command(Pause())
    tale.drains = True
    tale.succeed("a")
    assert tale.status is S.PAUSED


# Runs that nobody can read


def test_run_whose_definition_is_unreadable_ends_and_says_so() -> None:
    tale = Tale(python_node("a"), python_node("b")).claim()
    tale.succeed("a")
    tale.run.cleanup = ENGINE
    change = fail_unreadable(
        tale.run,
        tale.view.nodes.values(),
        dead=ENGINE,
        why="no such definition",
        change_id=ChangeId("c"),
        now_ms=9,
    )
    run = change.run
    assert run.status is S.FAILED
    assert run.detail == run.stop_reason == DEFINITION_UNREADABLE
    assert run.detail.startswith("automation run interrupted by server restart")
    assert (run.stop_kind, run.engine_id, run.finished_at_ms) == (StopKind.SERVER_RESTART, None, 9)
    assert run.cleanup is None
    assert [event.event.value for event in change.events] == [
        "node_interrupted",
        "run_failed_server_restart",
    ]
    assert change.events[0].metadata == {"node_no": 1}
    assert change.events[1].metadata == {"why": "no such definition"}
    assert [event.seq for event in change.events] == [run.event_seq - 1, run.event_seq]
    assert [(node.node_no, node.state.value) for node in change.nodes] == [(1, "pending")]
    assert [(a.node_no, a.number, a.outcome) for a in change.attempts_ended] == [
        (1, 1, AttemptEnd.INTERRUPTED)
    ]
    assert tale.status is S.RUNNING  # the run that was given is left alone


@pytest.mark.parametrize("engine", [ENGINE, EngineId("another")])
def test_run_that_another_engine_holds_or_that_waits_is_not_ended(engine: EngineId) -> None:
    tale = Tale(python_node("a")).claim()
    if engine == ENGINE:
        tale.command(HandBack(engine_id=ENGINE))
    with pytest.raises(Refused, match="does not drive it"):
        fail_unreadable(tale.run, (), dead=engine, why="", change_id=ChangeId("c"), now_ms=9)


def test_claim_made_since_the_look_is_not_adopted() -> None:
    tale = Tale(python_node("a")).claim()
    seen = tale.run.epoch
    tale.command(HandBack(engine_id=ENGINE))
    tale.claim()
    with pytest.raises(Refused, match="has claimed it again"):
        tale.command(Adopt(dead=ENGINE, epoch=seen))
    tale.command(Adopt(dead=ENGINE, epoch=tale.run.epoch))
    assert tale.status is S.QUEUED
