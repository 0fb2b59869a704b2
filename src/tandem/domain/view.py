"""A run as its driver holds it in memory: the row, the nodes, and which of them are ready."""

from collections.abc import Iterable

from tandem.domain.automation import parse_document
from tandem.domain.change import Change
from tandem.domain.deadline import next_look_at_ms
from tandem.domain.graph import Plan
from tandem.domain.ids import GateId, WaitId
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import NodeState
from tandem.domain.run import OPEN_WAITS, Gate, GateStatus, NodeRun, Run, Wait

N = NodeState


class RunView:
    """The state of one run, changed in place by the changes that were decided on it.

    `open_deps[n]` counts the dependencies of node n that are not completed. `ready_lanes` holds the
    pending nodes without open dependencies that need a place to run, by their lanes, `ready_parked`
    those that only ask or wait. Both keep the order in which the nodes became ready. `phase_left`
    counts the nodes of each phase that are not completed.
    """

    __slots__ = (
        "backoff",
        "completed",
        "gates",
        "halted",
        "nodes",
        "open_deps",
        "phase_left",
        "plan",
        "ready_lanes",
        "ready_parked",
        "run",
        "running",
        "settled_gates",
        "waits",
    )

    def __init__(
        self,
        run: Run,
        plan: Plan,
        nodes: Iterable[NodeRun] = (),
        gates: Iterable[Gate] = (),
        waits: Iterable[Wait] = (),
        settled_gates: Iterable[Gate] = (),
    ) -> None:
        self.run = run
        self.plan = plan
        self.nodes: dict[int, NodeRun] = {}
        self.open_deps = [len(node.depends_on) for node in plan.nodes]
        self.ready_lanes: dict[int, dict[int, None]] = {}
        """Lanes with nodes in them only."""
        self.phase_left = list(plan.phases.sizes)
        self.ready_parked: dict[int, None] = {}
        self.running: set[int] = set()
        self.backoff: set[int] = set()
        self.halted: set[int] = set()
        """Nodes that are blocked or failed."""
        self.completed = 0
        self.gates: dict[GateId, Gate] = {gate.gate_id: gate for gate in gates}
        self.waits: dict[WaitId, Wait] = {wait.wait_id: wait for wait in waits}
        self.settled_gates = tuple(settled_gates)
        """Gates that are over, newest first; loaded only for those who decide one."""
        for plan_node in plan.nodes:
            if not plan_node.depends_on:
                self._enter(plan_node.node_no, N.PENDING)
        for node in nodes:
            self._put(node)

    @property
    def ready(self) -> list[int]:
        """The nodes that are ready for a place, in the order of their lanes."""
        return [n for lane_no in sorted(self.ready_lanes) for n in self.ready_lanes[lane_no]]

    def node(self, node_no: int) -> NodeRun:
        """Return the node run; a node that never started is pending."""
        return self.nodes.get(node_no) or NodeRun(node_no=node_no)

    @property
    def runtime_context(self) -> JsonObject | None:
        """The context of the run: that of its definition, else the one that it was given."""
        return self.plan.runtime_context or self.run.runtime_context

    def next_due_at_ms(self, looked_at_ms: int) -> int | None:
        """Return the moment at which a backoff, a wait or a gate needs attention, if any does.

        A backoff that was over when somebody looked last waits for a place, not for a moment.
        """
        if not (self.backoff or self.waits or self.gates):
            return None  # as it is for most runs
        backoffs = (self.nodes[n].due_at_ms for n in self.backoff)
        moments = [at_ms for at_ms in backoffs if at_ms is None or at_ms > looked_at_ms]
        moments += [next_look_at_ms(wait) for wait in self.waits.values()]
        moments += [next_look_at_ms(gate) for gate in self.gates.values()]
        return min((moment for moment in moments if moment is not None), default=None)

    def apply(self, change: Change) -> None:
        """Make a decided change part of this view. The change must build on this very state."""
        self.run = change.run
        if change.definition is not None:
            # Another version of the same graph: the numbers of the nodes stay.
            self.plan = Plan(parse_document(change.definition), self.run.definition_digest)
        for node in change.nodes:
            self._put(node)
        for gate in change.gates:
            if gate.status is GateStatus.OPEN:
                self.gates[gate.gate_id] = gate
            else:
                self.gates.pop(gate.gate_id, None)
        for wait in change.waits:
            if wait.status in OPEN_WAITS:
                self.waits[wait.wait_id] = wait
            else:
                self.waits.pop(wait.wait_id, None)

    def _put(self, node: NodeRun) -> None:
        number = node.node_no
        before = self.nodes[number].state if number in self.nodes else N.PENDING
        self.nodes[number] = node
        if before is not node.state:
            self._leave(number, before)
            self._enter(number, node.state)

    def _enter(self, number: int, state: NodeState) -> None:
        match state:
            case N.RUNNING:
                self.running.add(number)
            case N.BACKOFF:
                self.backoff.add(number)
            case N.BLOCKED | N.FAILED:
                self.halted.add(number)
            case N.COMPLETED:
                self.completed += 1
                self._count_phase(number, -1)
                self._count_dependency(number, -1)
            case N.PENDING if self.open_deps[number] == 0:
                self._get_ready(number)

    def _leave(self, number: int, state: NodeState) -> None:
        match state:
            case N.RUNNING:
                self.running.discard(number)
            case N.BACKOFF:
                self.backoff.discard(number)
            case N.BLOCKED | N.FAILED:
                self.halted.discard(number)
            case N.COMPLETED:
                self.completed -= 1
                self._count_phase(number, +1)
                self._count_dependency(number, +1)
            case N.PENDING:
                self._get_unready(number)

    def _count_dependency(self, number: int, step: int) -> None:
        for after in self.plan.nodes[number].successors:
            self.open_deps[after] += step
            node = self.nodes.get(after)
            if node is None or node.state is N.PENDING:
                if self.open_deps[after] == 0:
                    self._get_ready(after)
                else:
                    self._get_unready(after)

    def _count_phase(self, number: int, step: int) -> None:
        rank = self.plan.phases.ranks[number]
        if rank < len(self.phase_left):
            self.phase_left[rank] += step

    def _get_ready(self, number: int) -> None:
        if self.plan.nodes[number].is_parked:
            self.ready_parked[number] = None
        else:
            self.ready_lanes.setdefault(self.plan.lane_no[number], {})[number] = None

    def _get_unready(self, number: int) -> None:
        if self.plan.nodes[number].is_parked:
            self.ready_parked.pop(number, None)
            return
        lane_no = self.plan.lane_no[number]
        lane = self.ready_lanes.get(lane_no)
        if lane is not None:
            lane.pop(number, None)
            if not lane:
                del self.ready_lanes[lane_no]
