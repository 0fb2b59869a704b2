"""Runs at their budgets: stopped, kept stopped, allowed more, going on."""

from typing import Any

import pytest

from tandem.domain.budget import Budget
from tandem.domain.command import (
    Account,
    Adopt,
    Allow,
    AutoResume,
    HandBack,
    Pause,
    ProcessesEnded,
    Reap,
    Recover,
    Resume,
    RetryNode,
)
from tandem.domain.errors import BudgetReached, InvalidRequest, NothingToDo, Refused
from tandem.domain.guardrail import not_counted
from tandem.domain.ids import EngineId, NodeId
from tandem.domain.lifecycle import RunEvent, RunState, StopKind
from tandem.domain.overrun import budget_for, is_raised
from tandem.domain.run import RuntimeClock
from tandem.domain.standing import ReasonKind, Situation, explain
from tandem.domain.usage import Spent, Usage
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import ENGINE, Tale

E, S = RunEvent, RunState
TOKENS = "run exceeded max_total_tokens (10/10)"
RUNTIME = "run exceeded max_total_runtime_ms (500/500)"


def limited(*nodes: dict[str, Any], **limits: Any) -> Tale:
    return Tale(*nodes, limits=limits or {"max_total_tokens": 10})


def stopped() -> Tale:
    """A run of two nodes that was stopped after the first."""
    tale = limited(python_node("a"), python_node("b", "a")).claim()
    tale.spend("a", total_tokens=10)
    tale.succeed("a")
    assert tale.status is S.PAUSED
    return tale


def test_run_at_its_budget_starts_nothing_more_and_pauses() -> None:
    tale = stopped()

    assert tale.states() == {"a": "completed", "b": "pending"}
    run = tale.run
    assert run.stop_kind is StopKind.GUARDRAIL_STOPPED
    assert run.detail == run.pause_reason == run.stop_reason == TOKENS
    paused = tale.events[-1]
    assert (paused.event, paused.reason, paused.stop_kind) == (
        E.RUN_PAUSED,
        TOKENS,
        StopKind.GUARDRAIL_STOPPED,
    )


def test_run_with_nothing_left_to_start_comes_to_its_end() -> None:
    tale = limited(python_node("a")).claim().spend("a", total_tokens=99)

    tale.succeed("a")

    assert tale.status is S.COMPLETED


def test_failed_node_ends_its_run_whatever_the_budget() -> None:
    once = {"retry_policy": {"max_attempts": 1}}
    tale = limited(python_node("a", **once), python_node("b", "a")).claim()

    tale.spend("a", total_tokens=99).fail("a")

    assert tale.status is S.FAILED


def test_budget_of_nothing_lets_nothing_start() -> None:
    tale = limited(python_node("a"), max_total_cost_usd=0.0).claim()

    assert tale.status is S.PAUSED
    assert tale.run.detail == "run exceeded max_total_cost_usd (0.0000/0.0000)"


def test_what_runs_at_a_spent_budget_is_let_to_its_end_before_the_pause() -> None:
    tale = limited(python_node("a"), python_node("b"), python_node("c", "b")).claim()
    tale.spend("a", total_tokens=10)

    tale.advance()
    assert tale.status is S.PAUSING
    assert tale.run.pause_mode == ""
    tale.succeed("b")
    assert tale.status is S.PAUSING
    tale.succeed("a")

    assert tale.status is S.PAUSED
    assert tale.states() == {"a": "completed", "b": "completed", "c": "pending"}


def test_reached_runtime_ends_what_runs_at_once() -> None:
    tale = limited(python_node("a"), max_total_runtime_ms=500).claim()
    tale.now_ms += 499
    assert tale.advance() is None
    tale.now_ms += 1

    tale.advance()

    assert (tale.status, tale.run.pause_mode) == (S.PAUSING, "now")
    tale.stop("a")
    assert tale.status is S.PAUSED
    assert tale.run.stop_reason == RUNTIME
    assert tale.node("a").attempts_used == 0, "what the engine cut off is not charged"


def test_reached_runtime_pauses_in_one_step_when_nothing_runs() -> None:
    tale = limited(python_node("a"), python_node("b", "a"), max_total_runtime_ms=500).claim()
    tale.now_ms += 600

    tale.succeed("a")

    assert tale.status is S.PAUSED
    assert tale.run.pause_mode == ""


def test_runtime_is_what_the_driver_measures_whatever_the_wall_clock_says() -> None:
    tale = limited(python_node("a"), python_node("b", "a"), max_total_runtime_ms=500).claim()
    tale.now_ms += 3_600_000
    tale.active_ms = 300

    tale.succeed("a")
    assert tale.status is S.RUNNING
    tale.active_ms = 400
    tale.succeed("b")

    assert (tale.status, tale.run.active_ms) == (S.COMPLETED, 400)


def test_time_in_the_queue_at_gates_and_paused_is_no_runtime() -> None:
    tale = Tale(python_node("a"), gate_node("g", "a"), limits={"max_total_runtime_ms": 500})
    tale.now_ms += 10_000  # in the queue
    tale.claim()
    tale.now_ms += 200
    tale.succeed("a")
    assert tale.status is S.AWAITING_APPROVAL
    tale.now_ms += 10_000

    assert (tale.run.active_ms, tale.run.active_since_ms) == (200, None)


def test_wall_clock_counts_all_of_it() -> None:
    tale = Tale(python_node("a"), python_node("b", "a"), limits={"max_total_runtime_ms": 500})
    tale.view.run.runtime_clock = RuntimeClock.WALL
    tale.claim()
    tale.command(Pause())
    tale.succeed("a")
    tale.now_ms += 10_000

    with pytest.raises(Refused, match="max_total_runtime_ms"):
        tale.command(Resume())


def test_budget_of_a_run_is_that_of_its_definition_with_what_was_allowed() -> None:
    tale = limited(python_node("a"), max_total_tokens=10, max_total_tool_calls=3)
    tale.command(Allow(reason="more", max_total_tokens=20))
    assert budget_for(tale.view) == Budget(tokens=20, tool_calls=3)


def test_refused_call_says_whose_budget_it_is() -> None:
    assert not BudgetReached(TOKENS).of_node
    assert BudgetReached(TOKENS, of_node=True).code == "budget_exceeded"


# Usage


def test_usage_alone_is_written_only_when_it_is_time() -> None:
    tale = limited(python_node("a")).claim().spend("a", total_tokens=3, tool_calls=1)
    assert tale.advance() is None

    tale.notes_usage = True
    tale.advance()

    assert tale.happened() == ["usage_recorded"]
    assert tale.changes[-1].moved
    told = tale.events[-1].metadata
    assert (told["total_tokens"], told["tool_calls"]) == (3, 1)
    assert told["attempts"][0]["node_id"] == "a"


def test_usage_goes_with_any_other_change() -> None:
    tale = limited(python_node("a")).claim().spend("a", cost_nano_usd=7)

    tale.succeed("a")

    assert "usage_recorded" not in tale.happened()
    assert tale.run.cost_nano_usd == 7


def test_late_usage_counts_wherever_the_run_is() -> None:
    tale = stopped()
    usage = Usage(total_tokens=14)

    tale.command(
        Account(spent=(Spent(node_no=0, number=1, usage=usage, added=Usage(total_tokens=4)),))
    )

    assert tale.run.total_tokens == 14
    assert tale.status is S.PAUSED


# No flapping


def test_run_at_its_budget_is_not_resumed() -> None:
    tale = stopped()
    for command in (Resume(), Recover(), RetryNode(node_id=NodeId("a"))):
        with pytest.raises(Refused, match="tandem runs allow run --tokens") as refusal:
            tale.command(command)
        assert refusal.value.code == "run_budget_exceeded"


def test_allowance_lets_the_run_go_on_by_itself() -> None:
    tale = stopped()

    tale.command(Allow(reason="worth it", max_total_tokens=20, decided_by="eve"))

    assert tale.status is S.QUEUED
    assert tale.happened() == ["run_budget_changed", "run_auto_resumed"]
    changed, resumed = tale.events[-2:]
    assert (changed.reason, changed.metadata["actor"]) == ("worth it", "eve")
    assert changed.metadata["allowed"] == {"max_total_tokens": 20}
    assert changed.metadata["before"]["tokens"] == 10
    assert resumed.reason == "auto_resume_after_guardrail_override"
    assert tale.run.auto_resumes == 0, "it is not one of the resumes that are capped"
    assert (tale.run.stop_kind, tale.run.pause_reason, tale.run.detail) == (None, "", "")
    tale.claim()
    tale.succeed("b")
    assert tale.status is S.COMPLETED


def test_allowance_without_resume_leaves_it_to_a_person() -> None:
    tale = stopped()

    tale.command(Allow(reason="later", max_total_tokens=20, resume=False))
    assert tale.status is S.PAUSED

    tale.command(Resume())
    assert tale.status is S.QUEUED


def test_allowance_that_would_stop_the_run_again_is_refused() -> None:
    tale = stopped()
    with pytest.raises(Refused, match="max_total_tokens"):
        tale.command(Allow(reason="more", max_total_tokens=10))
    with pytest.raises(Refused, match="max_total_tokens"):
        tale.command(Allow(reason="more time", max_total_runtime_ms=10**9))
    assert tale.run.allowance is None


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Allow(reason="more"), "limit_required"),
        (Allow(reason="  ", max_total_tokens=20), "reason_required"),
        (Allow(reason="less", max_total_tokens=-1), "limit_invalid"),
        (Allow(reason="all", max_total_tokens=2**53), "limit_invalid"),
        (Allow(reason="all", max_total_runtime_ms=2**70), "limit_invalid"),
        (Allow(reason="all", max_total_cost_usd=1.1e9), "limit_invalid"),
    ],
)
def test_allowance_says_what_and_why(command: Allow, code: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        stopped().command(command)
    assert refusal.value.code == code


def test_allowance_of_a_running_run_counts_at_once() -> None:
    tale = limited(python_node("a"), python_node("b", "a")).claim()
    tale.command(Allow(reason="big one", max_total_tokens=100))

    tale.spend("a", total_tokens=50).succeed("a")

    assert tale.states()["b"] == "running"


def test_run_that_is_allowed_more_while_it_pauses_goes_on() -> None:
    tale = limited(python_node("a"), python_node("b", "a")).claim().spend("a", total_tokens=10)
    tale.advance()
    assert tale.status is S.PAUSING
    tale.command(Allow(reason="worth it", max_total_tokens=20))

    tale.succeed("a")

    assert tale.status is S.QUEUED
    assert tale.happened()[-2:] == ["run_paused", "run_auto_resumed"]


def test_run_that_was_allowed_too_little_stays_paused() -> None:
    tale = limited(python_node("a"), python_node("b", "a")).claim().spend("a", total_tokens=10)
    tale.advance()
    tale.command(Allow(reason="worth it", max_total_tokens=12))

    tale.spend("a", total_tokens=2).succeed("a")

    assert tale.status is S.PAUSED


def test_person_who_hurries_the_pause_holds_the_run() -> None:
    tale = limited(python_node("a"), python_node("b", "a")).claim().spend("a", total_tokens=10)
    tale.advance()
    tale.command(Pause(now=True, reason="enough"))
    tale.command(Allow(reason="worth it", max_total_tokens=20))

    tale.stop("a")

    assert tale.status is S.PAUSED
    assert (tale.run.stop_kind, tale.run.pause_reason) == (None, "enough")


# Engines that leave


def stopping() -> Tale:
    tale = limited(python_node("a")).claim().spend("a", total_tokens=10)
    tale.advance()
    assert tale.status is S.PAUSING
    return tale


def test_engine_that_leaves_brings_the_run_to_rest() -> None:
    tale = stopping()
    tale.command(HandBack(engine_id=ENGINE))
    assert tale.run.stop_kind is StopKind.GUARDRAIL_STOPPED
    assert tale.status is S.PAUSED


def test_death_and_silence_do_not_forget_the_budget() -> None:
    for command in (
        Adopt(dead=ENGINE),
        Reap(stale_after_ms=0, seen_change_id="change-3", seen_activity_at_ms=None),  # type: ignore[arg-type] # a ChangeId
    ):
        tale = stopping()
        tale.now_ms += 5_000
        tale.command(command)
        assert tale.status is S.PAUSED
        assert (tale.run.stop_kind, tale.run.stop_reason) == (
            StopKind.GUARDRAIL_STOPPED,
            TOKENS,
        )


def test_run_that_is_allowed_more_while_it_pauses_goes_on_although_its_engine_dies() -> None:
    tale = stopping()
    tale.command(Allow(reason="worth it", max_total_tokens=20))

    tale.command(Adopt(dead=ENGINE))

    assert tale.status is S.QUEUED
    assert tale.happened()[-2:] == ["run_pausing_settled_on_restart", "run_auto_resumed"]


def test_time_in_which_its_engine_was_dead_counts_against_no_budget() -> None:
    tale = stopping()
    tale.command(Allow(reason="worth it", max_total_tokens=20, max_total_runtime_ms=300_000))
    tale.now_ms += 3_600_000

    tale.command(Adopt(dead=ENGINE))

    assert tale.status is S.QUEUED
    assert tale.run.active_ms < 300_000


def test_run_that_is_allowed_more_while_it_pauses_is_stale_as_one_that_runs() -> None:
    tale = stopping()
    tale.command(Allow(reason="worth it", max_total_tokens=20))
    tale.now_ms += 5_000
    tale.command(
        Reap(stale_after_ms=0, seen_change_id=tale.run.last_change_id, seen_activity_at_ms=None)
    )
    assert (tale.status, tale.run.stop_kind) == (S.PAUSED, StopKind.STALE_REAPED)

    tale.command(ProcessesEnded(engine_id=ENGINE))
    tale.command(AutoResume(window_ms=10**9, attempts_max=2))

    assert tale.status is S.QUEUED


def test_time_after_the_last_sign_of_life_of_a_dead_engine_is_not_counted() -> None:
    tale = limited(python_node("a"), max_total_runtime_ms=10_000).claim()
    tale.view.run.activity_at_ms = tale.now_ms + 700
    tale.now_ms += 900_000

    tale.command(Adopt(dead=ENGINE))

    assert tale.run.active_ms == 700


def test_stale_run_at_its_budget_does_not_go_on_by_itself() -> None:
    tale = limited(python_node("a")).claim()
    tale.now_ms += 5_000
    tale.command(
        Reap(stale_after_ms=0, seen_change_id=tale.run.last_change_id, seen_activity_at_ms=None)
    )
    tale.command(
        Account(
            spent=(
                Spent(
                    node_no=0,
                    number=1,
                    usage=Usage(total_tokens=10),
                    added=Usage(total_tokens=10),
                ),
            )
        )
    )
    tale.view.run.cleanup = None
    with pytest.raises(Refused, match="max_total_tokens"):
        tale.command(AutoResume(window_ms=10**9, attempts_max=2))


# Why


def test_reason_says_what_would_free_it() -> None:
    tale = stopped()
    events = tale.events[::-1]

    reason = explain(Situation(run=tale.run, now_ms=tale.now_ms, events=events))

    assert reason.kind is ReasonKind.BUDGET
    assert TOKENS in reason.sentence
    assert reason.freed_by == "`tandem runs allow run --tokens N --reason …`"
    assert reason.since_ms == events[0].recorded_at_ms


def test_reason_of_a_run_that_was_allowed_more_names_the_resume() -> None:
    tale = stopped()
    tale.command(Allow(reason="later", max_total_tokens=20, resume=False))

    reason = explain(Situation(run=tale.run, now_ms=tale.now_ms))

    assert reason.freed_by == "`tandem resume`"
    assert "raised since" in reason.sentence


def test_limit_of_another_kind_raises_nothing() -> None:
    tale = stopped()
    assert not is_raised(tale.run, now_ms=tale.now_ms)
    tale.command(Allow(reason="time", max_total_runtime_ms=10**9, resume=False))
    assert not is_raised(tale.run, now_ms=tale.now_ms)
    tale.run.stop_reason = "something else"
    assert not is_raised(tale.run, now_ms=tale.now_ms)
    reason = explain(Situation(run=tale.run, now_ms=tale.now_ms))
    assert "--tokens" in reason.freed_by


def test_owner_of_an_allowance_drives_the_run() -> None:
    tale = stopped()
    tale.command(Allow(reason="here", max_total_tokens=20, owner=EngineId("mine")))
    assert tale.run.owner == "mine"


def test_a_late_account_counts_only_what_is_not_counted_yet() -> None:
    twice = Spent(node_no=0, number=1, usage=Usage(total_tokens=10), added=Usage(total_tokens=10))
    more = Spent(node_no=1, number=2, usage=Usage(total_tokens=7), added=Usage(total_tokens=7))
    stored = {(0, 1): Usage(total_tokens=10), (1, 2): Usage(total_tokens=4)}
    (left,) = not_counted(Account(spent=(twice, more)), stored).spent
    assert (left.node_no, left.usage, left.added) == (1, more.usage, Usage(total_tokens=3))
    assert not_counted(Account(spent=(more,)), {}).spent == (more,)
    with pytest.raises(NothingToDo, match="counted already"):
        not_counted(Account(spent=(twice,)), stored)
