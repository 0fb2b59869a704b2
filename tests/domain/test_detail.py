"""The detail of a run names what it is doing now (run-lifecycle 1.6)."""

import pytest

from tandem.domain.automation import Automation
from tandem.domain.change import Change
from tandem.domain.command import Claim, DecideGate
from tandem.domain.decision import decide
from tandem.domain.detail import detail_node_id, refreshed_detail
from tandem.domain.driving import advance
from tandem.domain.graph import Plan
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    EngineId,
    RunId,
)
from tandem.domain.lifecycle import RunState
from tandem.domain.outcome import Succeeded
from tandem.domain.run import Run
from tandem.domain.settling import Settled
from tandem.domain.view import RunView
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import Tale

ENGINE = EngineId("engine")


def view_of(*nodes: tuple[str, list[str]]) -> RunView:
    """Return a claimed run of nodes that call a function."""
    action = {"kind": "python", "function": "m:f"}
    automation = Automation.model_validate(
        {
            "automation_id": "a",
            "flow": {
                "nodes": [
                    {"node_id": name, "depends_on": after, "action": action}
                    for name, after in nodes
                ]
            },
        }
    )
    digest = DefinitionDigest("d")
    run = Run(
        run_id=RunId("r"),
        tenant=LOCAL_TENANT,
        automation_id=AutomationId("a"),
        definition_digest=digest,
        last_change_id=ChangeId("0"),
        created_at_ms=0,
        updated_at_ms=0,
    )
    view = RunView(run, Plan(automation, digest))
    view.apply(decide(view, Claim(engine_id=ENGINE), change_id=ChangeId("1"), now_ms=1))
    return view


def step(view: RunView, *done: int) -> Change:
    """Settle these nodes and go one step on."""
    settled = [Settled(node_no=n, number=1, outcome=Succeeded(output=None)) for n in done]
    change = advance(view, settled=settled, engine_id=ENGINE, change_id=ChangeId("2"), now_ms=2)
    assert change is not None
    view.apply(change)
    return change


def test_it_names_a_node_that_runs_when_another_one_completed() -> None:
    view = view_of(("collect", []), ("draft", []))
    step(view)
    assert view.run.detail == "running node `draft` attempt 1"
    step(view, 1)
    assert view.run.detail == "running node `collect` attempt 1"


def test_it_names_the_node_that_just_started() -> None:
    view = view_of(("collect", []), ("draft", ["collect"]))
    step(view)
    step(view, 0)
    assert view.run.detail == "running node `draft` attempt 1"
    step(view, 1)
    assert view.run.detail == "automation run completed"


@pytest.mark.parametrize(
    ("detail", "node_id"),
    [
        ("running node `draft` attempt 1", "draft"),
        ("node `a` after node `b`", "a"),
        ("subnode `a`", "a"),
        ("no name here", None),
        ("node `unterminated", None),
        ("node `` is blank", None),
        ("node `  ` is blank", None),
    ],
)
def test_node_in_a_detail(detail: str, node_id: str | None) -> None:
    assert detail_node_id(detail) == node_id


def refreshed(detail: str, *active: tuple[str, int], completed: str = "collect") -> str:
    """Return the detail of a running run in which one node is completed."""
    return refreshed_detail(
        detail, is_completed=lambda name: name == completed, active=lambda: active
    )


def test_stale_running_detail_moves_to_active_attempt() -> None:
    found = refreshed("running node `collect` attempt 1", ("draft", 1), ("other", 2))
    assert found == "running node `draft` attempt 1"


def test_detail_of_a_completed_node_says_so_when_nothing_is_active() -> None:
    assert refreshed("running node `collect` attempt 1") == "completed node `collect`; continuing"


@pytest.mark.parametrize("detail", ["running node `draft` attempt 1", "something else", ""])
def test_detail_that_names_no_completed_node_stays(detail: str) -> None:
    assert refreshed(detail, ("draft", 2)) == detail


def test_every_change_of_a_running_run_refreshes_its_detail() -> None:
    tale = Tale(python_node("a"), gate_node("g"), python_node("b", "g", "a")).claim()
    tale.command(DecideGate(decision="approve"))
    assert tale.run.detail == "running node `a` attempt 1"


def test_node_that_waits_for_its_next_attempt_is_active_when_nothing_runs() -> None:
    backoff = {"strategy": "fixed", "initial_delay_ms": 50}
    policy = {"max_attempts": 3, "backoff": backoff}
    tale = Tale(python_node("a"), python_node("b", retry_policy=policy), python_node("c", "a"))
    tale.claim()
    tale.fail("b")
    tale.drains = True
    tale.succeed("a")
    assert tale.run.detail == "running node `b` attempt 1"


def test_detail_of_a_run_that_does_not_run_is_left_alone() -> None:
    tale = Tale(python_node("a"), gate_node("g"), python_node("b", "g")).claim()
    tale.succeed("a")
    tale.command(DecideGate(decision="approve"))
    assert tale.status is RunState.QUEUED
    assert tale.run.detail == "completed node `g`; continuing"
