"""Repair: another version of one node, for one run."""

from typing import Any

import pytest
from tests.domain.operated import A, B, chain_in, code_of

from tandem.domain.action import PythonAction
from tandem.domain.automation import Automation
from tandem.domain.command import Repair
from tandem.domain.graph import Plan
from tandem.domain.ids import DefinitionDigest, NodeId
from tandem.domain.lifecycle import RESTING, RunState
from tandem.domain.view import RunView
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import Tale

S = RunState
OTHER = {"kind": "python", "function": "simulated:other"}


@pytest.mark.parametrize("status", RunState)
def test_only_a_run_that_rests_is_repaired(status: RunState) -> None:
    code = code_of(chain_in(status), Repair(node_id=A))
    assert code == ("" if status in RESTING else "AUTOMATION_V2_RUN_NOT_REPAIRABLE")


def test_repair_without_edits_only_resets() -> None:
    tale = chain_in(S.COMPLETED)

    tale.command(Repair(node_id=B))

    assert tale.happened() == ["run_step_repaired", "node_reset", "node_reset"]
    assert tale.events[-3].metadata == {
        "node_id": "b",
        "reset_only": True,
        "cleared_outputs": [],
    }
    assert tale.changes[-1].definition is None


def test_another_action_pins_the_run_to_another_version_of_the_same_graph() -> None:
    contract = {"kind": "report", "required_files": ["out.md"]}
    tale = chain_in(S.FAILED, output_contract=contract)
    before, numbers = tale.run.definition_digest, tale.view.plan.by_id

    tale.command(Repair(node_id=B, action=OTHER, reason="wrong function"))

    (repaired,) = (e for e in tale.changes[-1].events if e.event == "run_step_repaired")
    assert repaired.metadata["action"]["before"]["function"] == "simulated:body"
    assert repaired.metadata["action"]["after"] == OTHER
    assert repaired.metadata["reset_only"] is False
    assert repaired.metadata["cleared_outputs"] == ["out.md"]
    after = repaired.metadata["definition_digest"]["after"]
    assert after == tale.run.definition_digest == tale.view.plan.digest != before
    assert tale.view.plan.by_id == numbers
    action = tale.view.plan.nodes[1].node.action
    assert isinstance(action, PythonAction)
    assert action.function == "simulated:other"
    tale.claim()
    assert tale.states() == {"a": "completed", "b": "running", "c": "pending"}


def test_inputs_get_other_values_and_have_to_fit() -> None:
    tale = chain_in(S.FAILED)
    document = tale.view.plan.automation.model_copy(
        update={"inputs": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}}}
    )
    tale.view.plan = Plan(document, tale.view.plan.digest)
    tale.view.run.inputs = {"city": "Rome", "days": 1}

    assert code_of(tale, Repair(node_id=B, inputs={"city": 5})) == "invalid_automation"
    tale.command(Repair(node_id=B, inputs={"city": "Oslo"}))

    assert tale.run.inputs == {"city": "Oslo", "days": 1}
    repaired = tale.changes[-1].events[0]
    assert repaired.metadata["inputs"] == {"before": {"city": "Rome"}, "after": {"city": "Oslo"}}


def test_node_has_to_be_named_and_known() -> None:
    tale = chain_in(S.FAILED)
    assert code_of(tale, Repair(node_id=NodeId(" "))) == "AUTOMATION_V2_REPAIR_NODE_REQUIRED"
    assert code_of(tale, Repair(node_id=NodeId("z"))) == "AUTOMATION_V2_REPAIR_NODE_NOT_FOUND"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Repair(node_id=B, prompt="p"), "repair_without_effect"),
        (Repair(node_id=B, inputs={}, save=True), "repair_without_effect"),
        (Repair(node_id=B, action={"kind": "agent"}), "repair_without_effect"),
        (Repair(node_id=B, action={"kind": "python"}), "repair_invalid"),
        (
            Repair(node_id=B, action={**OTHER, "arguments": {"x": "${nodes.c.output}"}}),
            "invalid_automation",
        ),
    ],
)
def test_edits_that_would_do_nothing_or_harm_are_refused(command: Repair, code: str) -> None:
    assert code_of(chain_in(S.FAILED), command) == code


def test_gate_gets_no_action() -> None:
    tale = chain_in(S.AWAITING_APPROVAL)
    command = Repair(node_id=NodeId("g"), action=OTHER)
    assert code_of(tale, command) == "repair_without_effect"


def agent_run(**fields: Any) -> Tale:
    """Return a cancelled-like resting run with an agent node `n`."""
    tale = Tale(gate_node("g"), python_node("n")).claim()
    tale.stop("n")
    tale.advance()
    document = tale.view.plan.automation.model_dump(mode="json", by_alias=True, exclude_none=True)
    node = {"node_id": "n", "agent_id": "writer", "objective": "write"} | fields
    document["flow"]["nodes"][1] = node
    document["agents"] = [{"agent_id": "writer", "template_id": "old"}]
    tale = Tale(gate_node("g"), python_node("n", "g")).claim()
    node["depends_on"] = ["g"]
    plan = Plan(Automation.model_validate(document), DefinitionDigest("sha256:1"))
    tale.view = RunView(tale.view.run, plan, tale.view.nodes.values(), tale.view.gates.values())
    assert tale.status is S.AWAITING_APPROVAL
    return tale


def test_prompt_template_and_model_of_an_agent() -> None:
    tale = agent_run()
    model = {"default_model": {"provider_id": "p", "model_id": "m"}}

    tale.command(
        Repair(node_id=NodeId("n"), prompt="Be brief.", template_id="new", model_policy=model)
    )

    metadata = tale.events[-1].metadata
    assert metadata["prompt"] == {"before": None, "after": "Be brief."}
    assert metadata["template_id"] == {"before": "old", "after": "new"}
    assert metadata["model_policy"] == {"before": None, "after": model}
    automation = tale.view.plan.automation
    assert automation.flow.nodes[1].metadata == {"builder": {"prompt": "Be brief."}}
    assert automation.agents[0].template_id == "new"
    assert automation.agents[0].model_policy == model


def test_metadata_that_holds_no_prompt_is_refused() -> None:
    for metadata in ("text", {"builder": 5}):
        tale = agent_run(metadata=metadata)
        code = code_of(tale, Repair(node_id=NodeId("n"), prompt="p"))
        assert code == "AUTOMATION_V2_REPAIR_METADATA_INVALID"


def test_agent_that_is_not_there_is_refused() -> None:
    tale = agent_run(agent_id="nobody")
    code = code_of(tale, Repair(node_id=NodeId("n"), template_id="t"))
    assert code == "AUTOMATION_V2_REPAIR_AGENT_NOT_FOUND"
