"""Weaknesses of the original around budgets: each with a mutant that brings it back."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tandem import Automation, Engine, Run
from tandem.domain import doubts, driving, guardrail, operating, overrun, retry, settling
from tandem.domain.automation import Automation as Definition
from tandem.domain.command import Allow, Resume
from tandem.domain.draft import Draft
from tandem.domain.errors import EngineError, Refused
from tandem.domain.lifecycle import RunState
from tandem.domain.outcome import FailureClass
from tandem.domain.retry import GiveUp, RetryAt, decide_retry
from tandem.domain.retry_policy import RetryPolicy
from tandem.domain.usage import Spending
from tandem.engine import meter as meter_module
from tandem.engine.driver import Driver
from tandem.testing.builders import python_node
from tandem.testing.tale import Tale
from tests.engine.conftest import WAIT_S, call
from tests.engine.test_meter import TOOL, Desk

S = RunState


def caught(scenario: Callable[[], object]) -> None:
    """Expect that a scenario does not hold."""
    with pytest.raises((AssertionError, EngineError, pytest.fail.Exception)):
        scenario()


# W-11: a run that was stopped at its budget cycles between paused and running


def w11_stopped_run_stays_stopped() -> None:
    tale = Tale(python_node("a"), python_node("b", "a"), limits={"max_total_tokens": 10}).claim()
    tale.spend("a", total_tokens=10).succeed("a")
    seen = len(tale.events)
    for command in (Resume(), Allow(reason="a little", max_total_tokens=10)):
        with pytest.raises(Refused, match="tandem runs allow"):
            tale.command(command)
    assert len(tale.events) == seen, "each lap leaves records"

    tale.command(Allow(reason="enough", max_total_tokens=11))
    assert tale.run.auto_resumes == 0, "the cap of stale runs is for stale runs"


def test_w11_stopped_run_stays_stopped() -> None:
    w11_stopped_run_stays_stopped()


def test_w11_resume_without_a_look_at_the_budget_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_away(draft: Draft, verb: str) -> None:
        """Whatever is used up, the run goes on."""

    for module in (operating, guardrail):
        monkeypatch.setattr(module, "refuse_exceeded", look_away)
    caught(w11_stopped_run_stays_stopped)


def test_w11_resume_that_is_counted_as_a_stale_one_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = guardrail.go_on

    def go_on(draft: Draft) -> None:
        draft.run.auto_resumes += 1
        original(draft)

    monkeypatch.setattr(guardrail, "go_on", go_on)
    caught(w11_stopped_run_stays_stopped)


# W-21: usage is lost on its way, and budgets are looked at between batches only


async def _usage_survives(folder: Path) -> None:
    """What a body spent counts although its run is cancelled before it comes to its end."""
    began = asyncio.Event()

    async def spend(context: SimpleNamespace) -> None:
        context.report_usage(total_tokens=7)
        began.set()
        await asyncio.Event().wait()

    async with Engine.open(f"sqlite:///{folder}/t.db", functions={"test:spend": spend}) as engine:
        run = await engine.run(_automation(call("a", "spend")))
        async with asyncio.timeout(WAIT_S):
            await began.wait()
            await run.cancel()
            await run.wait()
    assert run_total(folder, run) == 7


def _automation(*nodes: dict[str, object]) -> Definition:
    return Automation.from_dict({"automation_id": "x", "nodes": list(nodes)})


def run_total(folder: Path, run: Run) -> int:
    from tandem.adapters.sqlite.store import SqliteStore
    from tandem.domain.ids import LOCAL_TENANT

    store = SqliteStore(folder / "t.db")
    try:
        row = store.find_run(run.run_id, tenant=LOCAL_TENANT)
    finally:
        store.close()
    assert row is not None
    return row.total_tokens


def test_w21_usage_of_a_cancelled_run_counts(tmp_path: Path) -> None:
    asyncio.run(_usage_survives(tmp_path))


def test_w21_usage_that_is_dropped_with_its_session_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget(_driver: Driver) -> None:
        """The run is not ours any more: nobody counts."""

    monkeypatch.setattr(Driver, "_account_rest", forget)
    caught(lambda: asyncio.run(_usage_survives(tmp_path)))


async def _parallel_calls() -> int:
    """Let four attempts of a run call tools at once; return how many calls they made."""
    desk, made = Desk(tool_calls=3), 0

    async def body(number: int) -> None:
        nonlocal made
        meter = desk.meter(number)
        for _ in range(3):
            with await meter.reserve(TOOL) as one:
                made += 1
                await asyncio.sleep(0)
                one.spend(TOOL)

    await asyncio.gather(*map(body, range(1, 5)), return_exceptions=True)
    return made


def w21_batch_does_not_overshoot() -> None:
    assert asyncio.run(_parallel_calls()) == 3


def test_w21_batch_does_not_overshoot() -> None:
    w21_batch_does_not_overshoot()


def test_w21_calls_that_are_counted_after_the_batch_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def enter(ledger: meter_module.Ledger, one: meter_module._Call) -> None:
        ledger._calls.add(one)

    monkeypatch.setattr(meter_module.Ledger, "enter", enter)
    caught(w21_batch_does_not_overshoot)


def w21_budget_trips_while_a_batch_runs() -> None:
    limits = {"max_total_tokens": 10}
    tale = Tale(python_node("a"), python_node("b"), limits=limits).claim()
    tale.spend("a", total_tokens=10)
    tale.advance()
    assert tale.status is S.PAUSING


def test_w21_budget_trips_while_a_batch_runs() -> None:
    w21_budget_trips_while_a_batch_runs()


def test_w21_budget_that_is_looked_at_between_batches_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = driving._keep_budget

    def between_batches(draft: Draft) -> None:
        if not draft.view.running:
            original(draft)

    monkeypatch.setattr(driving, "_keep_budget", between_batches)
    caught(w21_budget_trips_while_a_batch_runs)


# W-24: limits and policies that are read and never acted on


def w24_limits_are_kept() -> None:
    tale = Tale(python_node("a"), python_node("b", "a"), limits={"max_total_tool_calls": 1})
    tale.claim()
    tale.spend("a", tool_calls=1).succeed("a")
    assert tale.status is S.PAUSED

    asyncio.run(_node_limit())

    policy = RetryPolicy.model_validate(
        {
            "max_elapsed_ms": 50,
            "backoff": {"strategy": "fixed", "initial_delay_ms": 10, "jitter_ms": 20},
        }
    )
    assert isinstance(decide(policy, failed_at_ms=100), GiveUp)
    found = {decide(policy, failed_at_ms=0, key=str(n)) for n in range(20)}
    assert len(found) > 1, "the delays are spread"

    behavior = {"max_attempts": 1, "terminal_behavior": {"mode": "pause_for_review"}}
    tale = Tale(python_node("a", retry_policy=behavior)).claim()
    tale.fail("a")
    assert tale.status is S.PAUSED

    document = {
        "automation_id": "x",
        "nodes": [call("a", retry_policy={"manual_override": {"enabled": True}})],
    }
    assert [d.code for d in doubts.find_doubts(Automation.from_dict(document))] == [
        "manual_override_without_effect"
    ]


async def _node_limit() -> None:
    meter = Desk().meter(tool_calls_max=1)
    meter.report(TOOL)
    meter.report(TOOL)
    assert meter.ending is not None


def decide(policy: RetryPolicy, *, failed_at_ms: int, key: str = "") -> RetryAt | GiveUp:
    return decide_retry(
        policy,
        attempts_max=9,
        attempts_used=1,
        failure_class=FailureClass.EXECUTION_ERROR,
        failed_at_ms=failed_at_ms,
        first_started_at_ms=0,
        jitter_key=key,
    )


def test_w24_limits_are_kept() -> None:
    w24_limits_are_kept()


def no_tool_calls(patch: pytest.MonkeyPatch) -> None:
    """Calls of tools are counted and never compared."""
    original = overrun.reached

    def reached(used: object, budget: object) -> str:
        text = original(used, budget)  # type: ignore[arg-type] # as it was called
        return "" if "tool_calls" in text else text

    patch.setattr(overrun, "reached", reached)


def no_node_limit(patch: pytest.MonkeyPatch) -> None:
    """The limit of a node is read and forgotten."""

    def report(meter: meter_module.AttemptMeter, spending: Spending) -> None:
        meter._ledger.spend(meter, meter._ledger.price(spending))

    patch.setattr(meter_module.AttemptMeter, "report", report)


def no_jitter(patch: pytest.MonkeyPatch) -> None:
    """Jitter is parsed and never applied."""
    patch.setattr(retry, "_jitter_ms", lambda _span_ms, _key: 0)


def no_review(patch: pytest.MonkeyPatch) -> None:
    """What follows when the attempts are used up is recorded only."""
    patch.setattr(settling, "_ask_for_review", lambda *_: None)


def no_doubts(patch: pytest.MonkeyPatch) -> None:
    """What has no effect is accepted in silence."""
    patch.setattr(doubts, "_without_effect", lambda *_: iter(()))


@pytest.mark.parametrize("mutant", [no_tool_calls, no_node_limit, no_jitter, no_review, no_doubts])
def test_w24_inert_configuration_is_caught(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    caught(w24_limits_are_kept)
