"""Repair: another version of one node, for one run (T61); `saved_repair` has it saved, too."""

from typing import Any

import msgspec
from pydantic import ValidationError

from tandem.domain.admission import needs_of
from tandem.domain.automation import Automation, canonical_document
from tandem.domain.command import Repair
from tandem.domain.draft import Draft
from tandem.domain.errors import InvalidAutomation, InvalidRequest, NotFound
from tandem.domain.graph import PlanNode
from tandem.domain.ids import DefinitionDigest
from tandem.domain.inputs import fill_inputs
from tandem.domain.json import digest
from tandem.domain.lifecycle import RunEvent
from tandem.domain.node import NodeKind
from tandem.domain.reset import declared_files
from tandem.domain.reviving import refuse_unless_resting, revive
from tandem.domain.tasks import find_node
from tandem.domain.validation import check_automation

_AGENT_ONLY = ("prompt", "template_id", "model_policy")


def repair(draft: Draft, command: Repair) -> None:
    """Pin the run to an edited version and let the node and what follows run again.

    The graph stays as it is, and so do the numbers of its nodes. What is edited is in the event,
    before and after.
    """
    plan_node = find_node(
        draft,
        command.node_id,
        required="AUTOMATION_V2_REPAIR_NODE_REQUIRED",
        missing="AUTOMATION_V2_REPAIR_NODE_NOT_FOUND",
    )
    refuse_unless_resting(draft, "repair", code="AUTOMATION_V2_RUN_NOT_REPAIRABLE")
    _refuse_saving_nothing(command)
    metadata: dict[str, Any] = {
        "node_id": plan_node.node_id,
        "reset_only": True,
        "cleared_outputs": declared_files(
            draft.view, draft.plan.with_descendants([plan_node.node_no])
        ),
    }
    metadata |= _edit(draft, plan_node, command)
    if command.decided_by:
        metadata["decided_by"] = command.decided_by
    revive(
        draft,
        RunEvent.RUN_STEP_REPAIRED,
        {plan_node.node_no},
        reason=command.reason,
        metadata=metadata,
        passes_over=True,
    )


def _refuse_saving_nothing(command: Repair) -> None:
    edits = (command.prompt, command.template_id, command.model_policy, command.action)
    if command.save and all(edit is None for edit in edits):
        raise InvalidRequest(
            "there is no edit to save: give a prompt, template, model or action (inputs belong to "
            "the run)",
            code="repair_without_effect",
        )


def _edit(draft: Draft, plan_node: PlanNode, command: Repair) -> dict[str, Any]:
    """Apply the edits to the draft; return what the event says of them."""
    run, automation = draft.run, draft.plan.automation
    changes = _Edits(automation, plan_node, command)
    told: dict[str, Any] = changes.told
    if command.inputs is not None:
        inputs = fill_inputs(automation.inputs, {**run.inputs, **command.inputs})
        told["inputs"] = {
            "before": {name: run.inputs.get(name) for name in command.inputs},
            "after": {name: inputs.get(name) for name in command.inputs},
        }
        run.inputs = dict(inputs)
        needs = needs_of(
            automation,
            draft.plan.demand,
            tenant=run.tenant,
            inputs=inputs,
            real_path=run.lock_path,
        )
        # The key may name an input: the run counts among those that have the new value.
        run.concurrency_key = needs.concurrency_key
        run.concurrency_limit = needs.concurrency_limit
    if not told:
        return told
    document = canonical_document(changes.edited())
    before, run.definition_digest = run.definition_digest, DefinitionDigest(digest(document))
    draft.definition = document
    definition = {"before": before, "after": run.definition_digest}
    return {**told, "reset_only": False, "definition_digest": definition}


class _Edits:
    """The document of an automation with one node edited."""

    def __init__(self, automation: Automation, plan_node: PlanNode, command: Repair) -> None:
        self._automation = automation
        self._plan_node = plan_node
        document: dict[str, Any] = msgspec.json.decode(canonical_document(automation))
        self._document = document
        self._node: dict[str, Any] = document["flow"]["nodes"][plan_node.node_no]
        self.told: dict[str, Any] = {}
        self._refuse_without_effect(command)
        if command.prompt is not None:
            self._edit_prompt(command.prompt)
        if command.template_id is not None:
            self._edit_agent("template_id", command.template_id)
        if command.model_policy is not None:
            self._edit_agent("model_policy", command.model_policy)
        if command.action is not None:
            self._note("action", self._node.get("action"), command.action)
            self._node["action"] = command.action

    def _refuse_without_effect(self, command: Repair) -> None:
        kind, name = self._plan_node.kind, self._plan_node.node_id
        given = [field for field in _AGENT_ONLY if getattr(command, field) is not None]
        if given and kind is not NodeKind.AGENT:
            raise InvalidRequest(
                f"node `{name}` is a {kind.value} and has no {given[0]}; give it another action",
                code="repair_without_effect",
            )
        if command.action is not None and (
            self._plan_node.is_parked or command.action.get("kind") == "agent"
        ):
            raise InvalidRequest(
                f"node `{name}` is a {kind.value} and can get no action of kind "
                f"`{command.action.get('kind')}`: a repair does not change the graph",
                code="repair_without_effect",
            )

    def _note(self, field: str, before: object, after: object) -> None:
        self.told[field] = {"before": before, "after": after}

    def _edit_prompt(self, prompt: str) -> None:
        metadata = self._node.setdefault("metadata", {})
        builder = metadata.setdefault("builder", {}) if isinstance(metadata, dict) else None
        if not isinstance(builder, dict):
            raise InvalidRequest(
                f"the metadata of node `{self._plan_node.node_id}` is no object with a `builder`",
                code="AUTOMATION_V2_REPAIR_METADATA_INVALID",
            )
        self._note("prompt", builder.get("prompt"), prompt)
        builder["prompt"] = prompt

    def _edit_agent(self, field: str, value: object) -> None:
        agent_id = self._plan_node.node.agent_id
        agents = [a for a in self._document.get("agents", ()) if a["agent_id"] == agent_id]
        if not agents:
            raise NotFound(
                f"the automation has no agent `{agent_id}` for node `{self._plan_node.node_id}`",
                code="AUTOMATION_V2_REPAIR_AGENT_NOT_FOUND",
            )
        self._note(field, agents[0].get(field), value)
        agents[0][field] = value

    def edited(self) -> Automation:
        """Return the edited automation.

        Raises:
            InvalidRequest: the edit is none that an automation can have.
            InvalidAutomation: with the mistakes that the edit makes.
        """
        try:
            edited = Automation.model_validate(self._document)
        except ValidationError as error:
            lines = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]
            )
            raise InvalidRequest(
                f"the edit is not valid: {lines}", code="repair_invalid"
            ) from error
        known = {(p.code, p.path) for p in check_automation(self._automation)}
        made = [p for p in check_automation(edited) if (p.code, p.path) not in known]
        if made:
            raise InvalidAutomation(made)
        return edited
