"""The detail of a run names what it is doing now (run-lifecycle 1.6)."""

from tandem.domain.automation import Automation
from tandem.domain.change import Change
from tandem.domain.command import Claim
from tandem.domain.decision import decide
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
from tandem.domain.outcome import Succeeded
from tandem.domain.run import Run
from tandem.domain.settling import Settled
from tandem.domain.view import RunView

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
