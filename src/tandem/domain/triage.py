"""Triage: a node that finds nothing to do spares the nodes after it (run-lifecycle 4.2, row 4).

A node is skipped when a triage gate right before it reports `has_work: false`, or a node right
before it was itself skipped, and no other node right before it did real work.
"""

import msgspec

from tandem.domain.completion import evidence
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.reading import SKIPPED, Reading

_OUTPUT = msgspec.json.encode(
    {"status": SKIPPED, "triage_skipped": True, "contract_kind": "text_summary"}
)
_SKIPPED = Reading(status=SKIPPED, has_work=False)


def has_nothing_to_do(draft: Draft, plan_node: PlanNode) -> bool:
    """Say whether a node whose dependencies are all completed is to be skipped."""
    if not draft.plan.has_triage:
        return False
    works = [_did_work(draft, number) for number in plan_node.depends_on]
    return bool(works) and not any(works)


def _did_work(draft: Draft, number: int) -> bool:
    reading = draft.node(number).reading
    return reading is None or reading.has_work


def skip(draft: Draft, plan_node: PlanNode) -> None:
    """Complete a node without running it."""
    skipped = msgspec.structs.replace(
        draft.node(plan_node.node_no),
        state=NodeState.COMPLETED,
        due_at_ms=None,
        finished_at_ms=draft.now_ms,
        output=_OUTPUT,
        output_ref=None,
        repair=(),
        failure=None,
        reading=_SKIPPED,
    )
    draft.move(
        plan_node,
        RunEvent.NODE_SKIPPED_NO_WORK,
        skipped,
        reason="no work upstream",
        metadata=evidence(skipped.output, None, ()),
    )
    draft.run.detail = f"completed node `{plan_node.node_id}`; continuing"
