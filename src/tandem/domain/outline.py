"""What a run would do: its nodes in the order in which they could start. For dry runs."""

import msgspec

from tandem.domain.graph import Plan
from tandem.domain.ids import NodeId


class OutlinedNode(msgspec.Struct, frozen=True, kw_only=True):
    """One node. Those with the same `stage` could run at the same time; the first is 1."""

    stage: int
    node_id: NodeId
    kind: str
    effects: str
    depends_on: tuple[str, ...]
    attempts_max: int
    asks: str = ""
    """What a person would be asked at a gate."""


def outline(plan: Plan) -> list[OutlinedNode]:
    """Return the nodes by stage, then in the order of the document.

    A node that depends on itself by a cycle never could start and is left out.
    """
    stages = stages_of(plan)
    return [_outlined(plan, number, stages[number]) for number in _in_order(stages)]


def stages_of(plan: Plan) -> dict[int, int]:
    """Return the stage of each node: 1 is the first, and each is after all it depends on."""
    stages: dict[int, int] = {}
    waiting = [len(node.depends_on) for node in plan.nodes]
    ready = [number for number, count in enumerate(waiting) if count == 0]
    stage = 0
    while ready:
        stage += 1
        after: list[int] = []
        for number in ready:
            stages[number] = stage
            for successor in plan.nodes[number].successors:
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    after.append(successor)
        ready = after
    return stages


def _in_order(stages: dict[int, int]) -> list[int]:
    return sorted(stages, key=lambda number: (stages[number], number))


def _outlined(plan: Plan, number: int, stage: int) -> OutlinedNode:
    plan_node = plan.nodes[number]
    node = plan_node.node
    gate = node.effective_gate
    return OutlinedNode(
        stage=stage,
        node_id=plan_node.node_id,
        kind=plan_node.kind.value,
        effects=node.effective_effects.value,
        depends_on=node.depends_on,
        attempts_max=plan_node.max_attempts,
        asks="" if gate is None else gate.instructions or node.node_id,
    )
