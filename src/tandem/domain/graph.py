"""The graph of one automation version, numbered, so that readiness is arithmetic."""

from collections.abc import Iterable, Mapping, Sequence

from tandem.domain.admission import demand_of
from tandem.domain.automation import Automation
from tandem.domain.budget import budget_of
from tandem.domain.definition_version import definition_version
from tandem.domain.deliverable import deliverables_of
from tandem.domain.ids import DefinitionDigest, NodeId
from tandem.domain.lanes import Lane, lanes_of
from tandem.domain.node import Node, NodeKind
from tandem.domain.output_status import reads_status
from tandem.domain.phases import Phases
from tandem.domain.runtime_context import runtime_context_of
from tandem.domain.work import is_triage_gate


class PlanNode:
    """One node with its neighbours as numbers. Immutable by agreement; shared by all runs."""

    __slots__ = (
        "depends_on",
        "is_parked",
        "is_triage_gate",
        "kind",
        "max_attempts",
        "node",
        "node_id",
        "node_no",
        "reads_output",
        "successors",
    )

    def __init__(self, node_no: int, node: Node, depends_on: tuple[int, ...]) -> None:
        self.node_no = node_no
        self.node = node
        self.node_id = NodeId(node.node_id)
        self.kind = node.kind
        self.is_parked = node.kind in (NodeKind.APPROVAL, NodeKind.WAIT)
        self.is_triage_gate = is_triage_gate(node)
        self.reads_output = self.is_triage_gate or reads_status(node)
        """Whether an output of this node says anything of itself that counts."""
        self.max_attempts = node.max_attempts
        self.depends_on = depends_on
        self.successors: tuple[int, ...] = ()


class Plan:
    """A definition made ready to be driven: nodes by number, in the order of the document."""

    __slots__ = (
        "automation",
        "budget",
        "by_id",
        "deliverables",
        "demand",
        "digest",
        "has_parked",
        "has_triage",
        "lane_no",
        "lanes",
        "nodes",
        "parallel",
        "phases",
        "runtime_context",
        "version",
    )

    def __init__(self, automation: Automation, digest: DefinitionDigest) -> None:
        self.automation = automation
        self.digest = digest
        self.by_id: Mapping[NodeId, int] = {
            NodeId(node.node_id): number for number, node in enumerate(automation.flow.nodes)
        }
        self.nodes: Sequence[PlanNode] = tuple(
            PlanNode(
                number,
                node,
                tuple(self.by_id[NodeId(name)] for name in dict.fromkeys(node.depends_on)),
            )
            for number, node in enumerate(automation.flow.nodes)
        )
        successors: list[list[int]] = [[] for _ in self.nodes]
        for plan_node in self.nodes:
            for dependency in plan_node.depends_on:
                successors[dependency].append(plan_node.node_no)
        for plan_node, after in zip(self.nodes, successors, strict=True):
            plan_node.successors = tuple(after)
        self.parallel = automation.parallel_max
        self.budget = budget_of(automation.execution)
        self.phases = Phases(automation)
        self.lanes, self.lane_no = lanes_of(automation, self.phases)
        self.deliverables = deliverables_of(automation)
        self.has_parked = any(plan_node.is_parked for plan_node in self.nodes)
        self.has_triage = any(plan_node.is_triage_gate for plan_node in self.nodes)
        self.runtime_context = runtime_context_of(automation)
        self.demand = demand_of(automation)
        self.version = definition_version(automation, digest)

    def __len__(self) -> int:
        return len(self.nodes)

    def node(self, node_id: NodeId) -> PlanNode | None:
        """Return the node of this name, or None."""
        number = self.by_id.get(node_id)
        return None if number is None else self.nodes[number]

    def lane(self, node_no: int) -> Lane:
        """Return the lane of a node."""
        return self.lanes[self.lane_no[node_no]]

    def with_descendants(self, roots: Iterable[int]) -> tuple[int, ...]:
        """Return the roots and everything after them, in the order of the document."""
        seen = set(roots)
        stack = list(seen)
        while stack:
            for after in self.nodes[stack.pop()].successors:
                if after not in seen:
                    seen.add(after)
                    stack.append(after)
        return tuple(sorted(seen))
