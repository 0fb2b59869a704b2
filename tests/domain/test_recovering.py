"""Recovery, and dead letters that are sent out again."""

import pytest
from tests.domain.operated import ONCE, chain, chain_in, code_of

from tandem.domain.command import Pause, Recover, Redeliver, Resume
from tandem.domain.ids import NodeId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.recovering import DISPATCHES_MAX
from tandem.domain.run import Failure
from tandem.testing.builders import python_node, timer_node
from tandem.testing.tale import ENGINE, Tale

S = RunState


@pytest.mark.parametrize("status", RunState)
def test_recover_is_for_failed_blocked_and_paused_runs(status: RunState) -> None:
    allowed = status in (S.FAILED, S.BLOCKED, S.PAUSED)
    code = "" if allowed else "AUTOMATION_V2_RUN_NOT_RECOVERABLE"
    assert code_of(chain_in(status), Recover()) == code


@pytest.mark.parametrize(
    ("status", "recovering", "sending"),
    [
        (S.FAILED, "run_cleanup_pending", "run_cleanup_pending"),
        (S.CANCELLED, "AUTOMATION_V2_RUN_NOT_RECOVERABLE", "dead_letter_not_retryable"),
    ],
)
def test_only_what_may_be_done_later_is_to_be_tried_again_when_processes_have_ended(
    status: S, recovering: str, sending: str
) -> None:
    tale = chain_in(status)
    tale.view.run.cleanup = ENGINE
    assert (code_of(tale, Recover()), code_of(tale, Redeliver())) == (recovering, sending)


def test_recovery_of_a_failed_run_keeps_the_siblings_and_resets_the_descendants() -> None:
    tale = Tale(
        python_node("a", retry_policy=ONCE), python_node("s"), python_node("b", "a", "s")
    ).claim()
    tale.fail("a")
    tale.succeed("s", b'"kept"')

    tale.command(Recover(reason="again", owner=ENGINE))

    assert tale.events[-2].metadata == {"roots": ["a"]}
    assert tale.states() == {"a": "pending", "s": "completed", "b": "pending"}
    assert tale.node("s").output == b'"kept"'
    assert (tale.run.resume_reason, tale.run.owner) == ("again", ENGINE)


def test_node_of_the_last_failure_is_a_root_even_when_it_is_not_halted() -> None:
    tale = chain_in(S.FAILED)
    tale.view.run.last_failure = Failure(node_id=NodeId("c"), reason="", failed_at_ms=0)
    tale.command(Recover())
    assert tale.events[-2].metadata == {"roots": ["b", "c"]}

    other = chain_in(S.FAILED)
    other.view.run.last_failure = Failure(node_id=NodeId("a"), reason="", failed_at_ms=0)
    other.command(Recover())
    assert other.states()["a"] == "completed"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (S.FAILED, "AUTOMATION_V2_RUN_FAILURE_CONTEXT_MISSING"),
        (S.BLOCKED, "AUTOMATION_V2_RUN_BLOCKED_CONTEXT_MISSING"),
    ],
)
def test_run_that_stopped_for_no_known_reason_is_not_recovered(status: S, code: str) -> None:
    tale = chain()
    tale.view.run.status = status
    tale.view.running.clear()
    with pytest.raises(Exception, match="nothing says which node stopped it") as refused:
        tale.command(Recover())
    assert getattr(refused.value, "code", "") == code


def test_run_that_was_stopped_as_a_whole_goes_on_where_it_was() -> None:
    tale = chain_in(S.PAUSED)
    tale.view.run.status = tale._replayed = S.FAILED
    tale.view.run.stop_kind = StopKind.PANIC

    tale.command(Recover())

    assert tale.happened() == ["run_recovered"]
    assert (tale.status, tale.run.stop_kind) == (S.QUEUED, None)


def test_recovery_from_a_pause_resets_nothing() -> None:
    tale = chain()
    tale.succeed("a")
    tale.command(Pause(reason="lunch"))
    tale.stop("b")
    before = tale.node("b")

    tale.command(Recover())

    assert tale.happened() == ["run_recovered_from_pause"]
    assert tale.node("b") == before
    assert (tale.status, tale.run.pause_reason) == (S.QUEUED, "")


def test_recovery_from_a_stale_pause_gives_pending_nodes_new_attempts() -> None:
    tale = Tale(python_node("a"), python_node("b")).claim()
    tale.fail("a")
    tale.succeed("b")
    tale.fail("a")
    tale.command(Pause())
    tale.stop("a")
    tale.view.run.stop_kind = StopKind.STALE_REAPED

    tale.command(Recover())

    assert tale.happened() == ["run_recovered_from_pause", "node_reset"]
    assert (tale.node("a").attempts, tale.node("a").attempts_used) == (3, 0)
    assert tale.states()["b"] == "completed"
    # The old reason is gone: a later pause of another kind resets nothing.
    tale.claim()
    tale.command(Pause())
    tale.stop("a")
    tale.command(Recover())
    assert tale.happened() == ["run_recovered_from_pause"]


def test_run_that_waits_for_time_is_not_recovered() -> None:
    tale = Tale(timer_node("t")).claim()
    assert code_of(tale, Recover()) == "AUTOMATION_V2_RUN_NOT_RECOVERABLE"


def letter() -> Tale:
    """Return a run whose node with outside effects failed."""
    tale = Tale(
        python_node("send", effects="external", retry_policy=ONCE), python_node("b", "send")
    ).claim()
    tale.fail("send")
    return tale


def test_dead_letter_is_sent_out_again_at_once_and_counted() -> None:
    tale = letter()

    tale.command(Redeliver())

    assert tale.happened() == ["stateful_dead_letter_retry_requeued", "node_reset"]
    assert (tale.status, tale.run.due_at_ms) == (S.QUEUED, tale.now_ms)
    assert tale.run.resume_reason == "stateful_dead_letter_retry_dispatched"
    handling = tale.node("send").handling
    assert handling is not None
    assert (handling.dispatches, handling.dispatched_at_ms) == (1, tale.now_ms)


def test_next_dispatch_waits_for_the_backoff_since_the_last_one() -> None:
    tale = letter()
    waits = []
    for _ in range(DISPATCHES_MAX):
        tale.command(Redeliver())
        assert tale.run.due_at_ms is not None
        waits.append(tale.run.due_at_ms - tale.now_ms)
        tale.now_ms = tale.run.due_at_ms
        tale.claim()
        tale.fail("send")

    assert waits == [0, 2_000, 4_000, 8_000, 16_000]
    assert code_of(tale, Redeliver()) == "retry_exhausted"
    assert tale.status is S.FAILED


def test_waiting_dead_letter_says_why_it_is_not_claimed() -> None:
    tale = letter()
    tale.command(Redeliver())
    tale.claim()
    tale.fail("send")
    tale.command(Redeliver())
    assert tale.run.queue_reason == "retry_backoff"
    assert tale.run.detail == "dead letter of node send waits for its turn"


def test_success_of_the_letter_ends_its_counting_and_a_reset_does_not() -> None:
    tale = letter()
    tale.command(Redeliver())
    tale.claim()
    tale.fail("send")
    tale.command(Recover())
    handling = tale.node("send").handling
    assert handling is not None
    assert handling.dispatches == 1

    tale.claim()
    tale.succeed("send")
    assert tale.node("send").handling is None


def test_only_failed_outside_effects_are_dead_letters() -> None:
    assert code_of(chain_in(S.FAILED), Redeliver()) == "dead_letter_not_found"
    assert code_of(chain_in(S.PAUSED), Redeliver()) == "dead_letter_not_retryable"


def test_second_resume_is_refused() -> None:
    tale = chain_in(S.PAUSED)
    tale.command(Resume())
    assert code_of(tale, Resume()) == "AUTOMATION_V2_RUN_NOT_PAUSED"


def test_run_that_failed_for_a_missing_file_is_recovered_from_whoever_owes_one() -> None:
    contract = {"required_files": ["a.txt"]}
    tale = Tale(
        python_node("a", output_contract=contract, retry_policy=ONCE),
        python_node("b", "a"),
        python_node("s"),
    ).claim()
    for name in "sab":
        tale.succeed(name)
    assert tale.status is S.FAILED

    tale.command(Recover())

    assert tale.states() == {"a": "pending", "b": "pending", "s": "completed"}
    tale.claim()
    tale.facts.texts["a.txt"] = "written"
    tale.succeed("a")
    tale.succeed("b")
    assert tale.status is S.COMPLETED


def test_run_that_failed_for_a_file_that_no_node_owes_is_recovered_from_its_last_nodes() -> None:
    tale = Tale(python_node("a"), python_node("b", "a"), output_targets=["r.md"]).claim()
    tale.succeed("a")
    tale.succeed("b")
    assert tale.status is S.FAILED
    tale.command(Recover())
    assert tale.states() == {"a": "completed", "b": "pending"}
