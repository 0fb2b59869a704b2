"""The pause for a person after an output that violates its schema (run-lifecycle 4.6.4, T41).

By default the node is repaired at once and told what is wrong. Where the document says
`metadata.on_schema_violation: pause`, at the node or at the automation, the run is held instead:
what runs lands first, then a person may mend the contract or the node, or just resume.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tandem.domain.automation import Automation, Node
from tandem.domain.free_json import object_at, text_of
from tandem.domain.graph import PlanNode
from tandem.domain.json import JsonObject, JsonValue, canonical, digest
from tandem.domain.run import NodeRun, Run

VIOLATION: Final = "output_schema_invalid"
PAUSE_REASON: Final = "schema_validation_failed"
REPAIR_OPTIONS: Final = ("resume_run", "repair_node", "retry_after_contract_fix")
_NAMES_MAX = 50


def pauses_on_violation(automation: Automation, node: Node) -> bool:
    """Say whether a violation of this node's schema holds the run; the node's word wins."""
    contract = node.output_contract
    if contract is None or contract.output_schema is None:
        return False
    for metadata in (node.metadata, automation.metadata):
        said = text_of(object_at(metadata).get("on_schema_violation")).lower()
        if said:
            return said == "pause"
    return False


def pause_metadata(
    run: Run, plan_node: PlanNode, node: NodeRun, *, reason: str, actual: str, unmet: Sequence[str]
) -> JsonObject:
    """Return what a person needs to decide; `actual` is the digest of the output, never itself."""
    contract = plan_node.node.output_contract
    schema = contract.output_schema if contract else None
    said = schema if isinstance(schema, Mapping) else {}
    properties = said.get("properties")
    return {
        "version": 1,
        "runtime_state": "paused_attention_required",
        "paused_attention_required": True,
        "run_id": run.run_id,
        "automation_id": run.automation_id,
        "node_id": plan_node.node_id,
        "attempt": node.attempts,
        "max_attempts": plan_node.max_attempts,
        "failure_kind": VIOLATION,
        "reason": reason,
        "expected_contract": {
            "kind": contract.kind if contract else "",
            "schema_digest": digest(canonical(schema)),
            "root_type": said.get("type"),
            "required": _names(said.get("required")),
            "properties": _names(sorted(properties) if isinstance(properties, Mapping) else ()),
        },
        "actual": {"digest": actual},
        "unmet_requirements": list(unmet),
        "repair_options": list(REPAIR_OPTIONS),
    }


def _names(value: JsonValue) -> list[str]:
    found = value if isinstance(value, list | tuple) else ()
    return [name for name in found if isinstance(name, str)][:_NAMES_MAX]
