"""Weaknesses of the original around what operators do, each with a mutant that has it.

Each scenario is told twice: once as it is, once with our own code broken in the way that the
original was. The second must fail, or the first proves nothing.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem import Automation, Engine
from tandem.domain import driving, lifecycle, operating, reset, reviving, stopping, tasks
from tandem.domain.command import Cancel, Command, Pause, Recover, Resume, RetryNode
from tandem.domain.completion import end_attempt
from tandem.domain.draft import Draft
from tandem.domain.errors import EngineError, Refused
from tandem.domain.ids import NodeId, RunId
from tandem.domain.lifecycle import RunEvent, RunState, StopKind
from tandem.domain.outcome import Failed, FailureClass, Succeeded
from tandem.domain.run import AttemptEnd, NodeRun
from tandem.domain.settling import Settled, interrupt
from tandem.engine.driver import Driver
from tandem.engine.drives import Drives
from tandem.testing.builders import python_node
from tandem.testing.tale import Tale

Patch = Callable[[pytest.MonkeyPatch], None]
S = RunState
ONCE = {"max_attempts": 1}
WAIT_S = 20
LINGERS_S = 1.0


def caught(scenario: Callable[[], object]) -> None:
    """Run a scenario that has to fail."""
    with pytest.raises((AssertionError, EngineError)):
        scenario()


# W-03: check, then act, without a check inside of the update


async def two_people(folder: Path) -> None:
    """Two people retry one node at the same moment: one of them is refused."""
    async with Engine.open(f"sqlite:///{folder}/t.db", functions={"t:ok": lambda: 1}) as engine:
        nodes = [{"node_id": "a", "action": {"kind": "python", "function": "t:ok"}}]
        run = await engine.run(Automation.from_dict({"automation_id": "x", "nodes": nodes}))
        async with asyncio.timeout(WAIT_S):
            await run.wait()
            answers = await asyncio.gather(
                *(run.retry("a", reason=f"person {n}") for n in range(2)), return_exceptions=True
            )
            await run.wait()
        retried = [event for event in run.events() if event.event == "run_task_retried"]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert [answer.code for answer in refused] == ["AUTOMATION_V2_RUN_TASK_NOT_MUTABLE"]
    assert len(retried) == 1


def guards_look_away(patch: pytest.MonkeyPatch) -> None:
    """A command acts whatever state the run has come to meanwhile."""
    table = dict(lifecycle.RUN_TRANSITIONS)
    for state in RunState:
        table[state, RunEvent.RUN_TASK_RETRIED] = S.QUEUED
    patch.setattr(lifecycle, "RUN_TRANSITIONS", table)
    patch.setattr(tasks, "refuse_unless_resting", lambda *_args, **_more: None)


async def test_w03_of_two_commands_at_once_one_is_refused(tmp_path: Path) -> None:
    await two_people(tmp_path)


async def test_w03_of_two_commands_at_once_one_is_refused_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guards_look_away(monkeypatch)
    with pytest.raises(AssertionError):
        await two_people(tmp_path)


# W-04: pause and resume while an attempt is in flight gave two executors


async def pause_and_resume_in_flight(folder: Path) -> None:
    """A run that is paused at once and resumed never has two bodies of one node."""
    live = most = 0
    loop = asyncio.get_running_loop()
    began, release, overlaps = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def body() -> int:
        nonlocal live, most
        live += 1
        most = max(most, live)
        if most > 1:
            overlaps.set()
        began.set()
        try:
            await release.wait()
        except asyncio.CancelledError:
            # What is stopped takes its time to end, or until another body runs beside it.
            # It may be told to end more than once meanwhile.
            until_s = loop.time() + LINGERS_S
            while not overlaps.is_set() and loop.time() < until_s:
                with suppress(TimeoutError, asyncio.CancelledError):
                    async with asyncio.timeout_at(until_s):
                        await overlaps.wait()
            raise
        finally:
            live -= 1
        return 1

    async with Engine.open(f"sqlite:///{folder}/t.db", functions={"t:body": body}) as engine:
        nodes = [{"node_id": "a", "action": {"kind": "python", "function": "t:body"}}]
        run = await engine.run(Automation.from_dict({"automation_id": "x", "nodes": nodes}))
        async with asyncio.timeout(WAIT_S):
            await began.wait()
            began.clear()
            await run.pause(now=True)
            waiters = engine.parts.waiters
            await waiters.wait(run.run_id, until=lambda row: row.status is S.PAUSED)
            await run.resume()
            await began.wait()
            release.set()
            await run.wait()
    assert most == 1


def pause_lets_go_of_the_run_at_once(patch: pytest.MonkeyPatch) -> None:
    """The run counts as paused before its bodies are dead; nobody waits for them to die."""
    original, to_end = operating.pause, Drives._drive_to_end

    async def drive_to_end(drives: Drives, driver: Driver, run_id: RunId, _before: object) -> None:
        await to_end(drives, driver, run_id, [])

    def pause(draft: Draft, command: Pause) -> None:
        original(draft, command)
        for number in sorted(draft.in_state(operating.N.RUNNING)):
            node = draft.node(number)
            end_attempt(draft, node, AttemptEnd.STOPPED)
            interrupt(draft, draft.plan.nodes[number], node, reason="", counts=False)
        draft.happen(RunEvent.RUN_PAUSED)

    patch.setattr(operating, "pause", pause)
    patch.setattr(Drives, "_drive_to_end", drive_to_end)


async def test_w04_resume_never_overlaps_what_a_pause_stops(tmp_path: Path) -> None:
    await pause_and_resume_in_flight(tmp_path)


async def test_w04_resume_never_overlaps_what_a_pause_stops_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_lets_go_of_the_run_at_once(monkeypatch)
    with pytest.raises(AssertionError):
        await pause_and_resume_in_flight(tmp_path)


# W-09: resets took the results of finished siblings along


def siblings_of_a_verify_failure() -> None:
    """A sibling that ends after a terminal verify failure keeps its result, also on recovery."""
    tale = Tale(python_node("bad", retry_policy=ONCE), python_node("good")).claim()
    tale.repair("bad", FailureClass.VERIFICATION_FAILED)
    tale.succeed("good", b'"done"')
    assert tale.status is S.FAILED

    tale.command(Recover())

    assert tale.states() == {"bad": "pending", "good": "completed"}
    assert tale.node("good").output == b'"done"'
    tale.claim()
    assert tale.node("good").attempts == 1


def recovery_resets_everything(patch: pytest.MonkeyPatch) -> None:
    """What is not to blame is reset with what is."""
    original = reviving.reset

    def reset_all(draft: Draft, _roots: object, **how: Any) -> None:
        original(draft, range(len(draft.plan)), **how)

    patch.setattr(reviving, "reset", reset_all)


def test_w09_siblings_keep_their_results() -> None:
    siblings_of_a_verify_failure()


def test_w09_siblings_keep_their_results_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    recovery_resets_everything(monkeypatch)
    caught(siblings_of_a_verify_failure)


# W-30: a retried node that had used up its attempts failed again at once


def retry_of_an_exhausted_node() -> None:
    """A retried node gets the attempts of its policy anew."""
    tale = Tale(python_node("a", retry_policy={"max_attempts": 2})).claim()
    tale.fail("a")
    tale.now_ms += 1
    tale.claim() if tale.status is S.QUEUED else tale.advance()
    tale.fail("a")
    assert tale.status is S.FAILED

    tale.command(RetryNode(node_id=NodeId("a")))
    tale.claim()
    tale.fail("a")

    assert tale.status is not S.FAILED
    assert tale.node("a").attempts >= 3


def resets_keep_what_is_charged(patch: pytest.MonkeyPatch) -> None:
    """The attempts that the policy charges survive a reset."""
    original = reset.reset_one

    def reset_one(draft: Draft, number: int, **how: object) -> None:
        used = draft.node(number).attempts_used
        original(draft, number, **how)  # type: ignore[arg-type] # passed on as they are
        node: NodeRun = draft.nodes[number]
        draft.nodes[number] = msgspec.structs.replace(node, attempts_used=used)

    patch.setattr(reset, "reset_one", reset_one)


def test_w30_retried_node_gets_attempts() -> None:
    retry_of_an_exhausted_node()


def test_w30_retried_node_gets_attempts_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    resets_keep_what_is_charged(monkeypatch)
    caught(retry_of_an_exhausted_node)


# W-31: an old stale pause made a later recovery wipe every pending node


def recovery_after_an_old_stale_pause() -> None:
    """The reason of a pause is gone with the recovery from it."""
    tale = Tale(python_node("a")).claim()
    tale.command(Pause(reason="stale_no_provider_activity"))
    tale.stop("a")
    tale.view.run.stop_kind = StopKind.STALE_REAPED
    tale.command(Recover())
    assert (tale.run.pause_reason, tale.run.stop_kind) == ("", None)
    tale.claim()
    tale.fail("a")
    tale.advance()
    tale.command(Pause(reason="lunch"))
    if tale.status is S.PAUSING:
        tale.stop("a")
    used = tale.node("a").attempts_used
    assert used

    tale.command(Recover())

    assert tale.node("a").attempts_used == used


def recovery_leaves_the_reasons(patch: pytest.MonkeyPatch) -> None:
    """A recovered run still says why it was paused long ago."""
    original = reviving.queue

    def queue(draft: Draft) -> None:
        kind, reason = draft.run.stop_kind, draft.run.pause_reason
        original(draft)
        draft.run.stop_kind, draft.run.pause_reason = kind, reason

    patch.setattr(reviving, "queue", queue)


def test_w31_recovery_forgets_the_old_pause() -> None:
    recovery_after_an_old_stale_pause()


def test_w31_recovery_forgets_the_old_pause_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    recovery_leaves_the_reasons(monkeypatch)
    caught(recovery_after_an_old_stale_pause)


# W-39: results of ended runs were overwritten, and the end of a cancelled blocked run was old


def end_of_a_cancelled_blocked_run() -> None:
    """Cancelling a blocked run is another end, with its own moment."""
    tale = Tale(python_node("a", retry_policy=ONCE)).claim()
    tale.repair("a")
    assert tale.status is S.BLOCKED
    tale.now_ms += 1_000

    tale.command(Cancel())

    assert tale.run.finished_at_ms == tale.now_ms


def cancelling_keeps_the_old_end(patch: pytest.MonkeyPatch) -> None:
    """The finish time is set once, whatever happens later."""
    original = stopping.cancel_run

    def cancel_run(draft: Draft, event: RunEvent, *, reason: str) -> None:
        before = draft.run.finished_at_ms
        original(draft, event, reason=reason)
        draft.run.finished_at_ms = before

    patch.setattr(operating, "cancel_run", cancel_run)


def test_w39_cancelled_blocked_run_ends_anew() -> None:
    end_of_a_cancelled_blocked_run()


def test_w39_cancelled_blocked_run_ends_anew_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelling_keeps_the_old_end(monkeypatch)
    caught(end_of_a_cancelled_blocked_run)


def results_of_ended_runs() -> None:
    """Nothing but what people ask for by name leaves an end, or changes it."""
    for command in (Pause(now=True), Resume(), Cancel()):
        tale = Tale(python_node("a")).claim()
        tale.succeed("a")
        before = msgspec.structs.replace(tale.run)
        _ask(tale, command)
        late = Settled(
            node_no=0,
            number=1,
            outcome=Failed(failure_class=FailureClass.EXECUTION_ERROR, message="late"),
        )
        tale.advance(late)
        tale.advance(Settled(node_no=0, number=1, outcome=Succeeded(output=2), output=b"2"))
        assert tale.run == before
        assert tale.node("a").output == b"1"


def _ask(tale: Tale, command: Command) -> None:
    with pytest.raises(Refused):
        tale.command(command)


def late_outcomes_count(patch: pytest.MonkeyPatch) -> None:
    """An outcome counts although its node has ended."""
    original = driving.settle

    def settle(draft: Draft, item: Settled) -> None:
        node = draft.node(item.node_no)
        if node.state is operating.N.RUNNING:
            original(draft, item)
            return
        draft.nodes[item.node_no] = msgspec.structs.replace(node, output=item.output)
        draft.happen(RunEvent.NODE_DISPOSITION_SET)

    patch.setattr(driving, "settle", settle)


def test_w39_late_results_change_nothing() -> None:
    results_of_ended_runs()


def test_w39_late_results_change_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    late_outcomes_count(monkeypatch)
    caught(results_of_ended_runs)
