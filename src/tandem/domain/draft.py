"""A change while it is being decided: reads see what the draft already did, nothing else does."""

from collections.abc import Iterable, Iterator

import msgspec

from tandem.domain.artifact import Invalidated, NodeArtifact
from tandem.domain.budget import active_ms_of
from tandem.domain.change import Change, Denial, Throttle
from tandem.domain.detail import Active, refreshed_detail
from tandem.domain.errors import Refused
from tandem.domain.graph import PlanNode
from tandem.domain.ids import ChangeId, GateId, NodeId, WaitId
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import (
    DRIVEN,
    TERMINAL,
    NodeState,
    RunEvent,
    RunState,
    StopKind,
    next_node_state,
    next_run_state,
)
from tandem.domain.receipts import record
from tandem.domain.run import (
    OPEN_WAITS,
    Attempt,
    Gate,
    GateStatus,
    LifecycleEvent,
    NodeRun,
    Run,
    Wait,
    WaitStatus,
)
from tandem.domain.usage import Spent
from tandem.domain.view import RunView

_NO_METADATA: JsonObject = {}


class Draft:
    """One change in the making. Every transition goes through `happen` or `move`."""

    def __init__(self, view: RunView, *, change_id: ChangeId, now_ms: int) -> None:
        self.view = view
        self.plan = view.plan
        self.run = msgspec.structs.replace(view.run)
        self.change_id = change_id
        self.now_ms = now_ms
        self.nodes: dict[int, NodeRun] = {}
        self.gates: dict[GateId, Gate] = {}
        self.waits: dict[WaitId, Wait] = {}
        self.attempts_started: list[Attempt] = []
        self.attempts_ended: list[Attempt] = []
        self.artifacts: list[NodeArtifact] = []
        self.invalidated: list[Invalidated] = []
        self.denial: Denial | None = None
        self.throttles: list[Throttle] = []
        self.spent: list[Spent] = []
        self.active_ms: int | None = None
        """How long the run was driven, measured by its driver; else it is told from the row."""
        self.active_until_ms = now_ms
        """Until when the run was driven, where that was before now."""
        self.events: list[LifecycleEvent] = []
        self.moved = False
        self.definition: bytes | None = None
        """The document of another version that the run executes from now on."""
        self._deps: dict[int, int] = {}

    def node(self, node_no: int) -> NodeRun:
        """Return the node run as this draft leaves it."""
        return self.nodes.get(node_no) or self.view.nodes.get(node_no) or NodeRun(node_no=node_no)

    def phase_left(self) -> list[int]:
        """Return how many nodes of each phase are not completed after this draft."""
        left, ranks = list(self.view.phase_left), self.plan.phases.ranks
        for number, node in self.nodes.items():
            before = self.view.node(number).state is NodeState.COMPLETED
            if ranks[number] < len(left):
                left[ranks[number]] += before - (node.state is NodeState.COMPLETED)
        return left

    def open_deps(self, node_no: int) -> int:
        """Return how many dependencies of the node are not completed."""
        return self.view.open_deps[node_no] + self._deps.get(node_no, 0)

    def happen(
        self,
        event: RunEvent,
        *,
        node_id: NodeId | None = None,
        attempt: int | None = None,
        reason: str = "",
        stop_kind: StopKind | None = None,
        metadata: JsonObject = _NO_METADATA,
    ) -> None:
        """Record that `event` happened and move the run as the table says.

        Raises:
            IllegalTransition: the run is in a state where this cannot happen.
        """
        run = self.run
        after = next_run_state(run.status, event)
        if after is not run.status:
            run.status = after
            self.moved = True
        self.events.append(
            record(
                run,
                LifecycleEvent(
                    seq=run.event_seq + 1,
                    event=event,
                    recorded_at_ms=self.now_ms,
                    change_id=self.change_id,
                    node_id=node_id,
                    attempt=attempt,
                    reason=reason,
                    stop_kind=stop_kind,
                    metadata=dict(metadata),
                ),
            )
        )

    def move(
        self,
        plan_node: PlanNode,
        event: RunEvent,
        node: NodeRun,
        *,
        attempt: int | None = None,
        reason: str = "",
        metadata: JsonObject = _NO_METADATA,
    ) -> None:
        """Record that `event` happened to a node; `node` is its row with everything but the state.

        Raises:
            IllegalTransition: the node or the run is in a state where this cannot happen.
        """
        before = self.node(node.node_no).state
        after = next_node_state(before, event)
        self.happen(
            event, node_id=plan_node.node_id, attempt=attempt, reason=reason, metadata=metadata
        )
        self.nodes[node.node_no] = (
            node if node.state is after else msgspec.structs.replace(node, state=after)
        )
        step = (before is NodeState.COMPLETED) - (after is NodeState.COMPLETED)
        if step:
            self.run.nodes_completed -= step
            for successor in plan_node.successors:
                self._deps[successor] = self._deps.get(successor, 0) + step

    def unblocked(self) -> list[int]:
        """Return the pending nodes whose last dependency this draft completed."""
        if not self._deps:
            return []
        return [
            number
            for number in self._deps
            if self.open_deps(number) == 0 and self.node(number).state is NodeState.PENDING
        ]

    def gate(self, gate_id: GateId) -> Gate:
        """Return the gate as this draft leaves it."""
        return self.gates.get(gate_id) or self.view.gates[gate_id]

    def wait(self, wait_id: WaitId) -> Wait:
        """Return the wait as this draft leaves it."""
        return self.waits.get(wait_id) or self.view.waits[wait_id]

    def open_gates(self) -> list[Gate]:
        """Return the gates that are open after this draft, oldest first."""
        if not (self.view.gates or self.gates):
            return []  # as in most steps
        gates = {**self.view.gates, **self.gates}
        return [gate for gate in gates.values() if gate.status is GateStatus.OPEN]

    def open_waits(self) -> list[Wait]:
        """Return the waits that are registered after this draft."""
        if not (self.view.waits or self.waits):
            return []
        waits = {**self.view.waits, **self.waits}
        return [wait for wait in waits.values() if wait.status in OPEN_WAITS]

    def withdraw(self, nodes: Iterable[int] | None = None) -> None:
        """Close the open gates and waits of these nodes, or of all, without a decision."""
        chosen = None if nodes is None else set(nodes)
        for gate in self.open_gates():
            if chosen is None or gate.node_no in chosen:
                self.gates[gate.gate_id] = msgspec.structs.replace(
                    gate, status=GateStatus.WITHDRAWN, decided_at_ms=self.now_ms
                )
        for wait in self.open_waits():
            if chosen is None or wait.node_no in chosen:
                self.waits[wait.wait_id] = msgspec.structs.replace(
                    wait, status=WaitStatus.CANCELLED, ended_at_ms=self.now_ms
                )

    def refusal(self, verb: str, hint: str, *, code: str | None = None) -> Refused:
        """Return the refusal of a command that the state of the run does not allow."""
        run = self.run
        text = f"cannot {verb} run {run.run_id}: it is {run.status.value}; {hint}"
        return Refused(text, code=code)

    def in_state(self, *states: NodeState) -> set[int]:
        """Return the nodes that are in one of these states after this draft; not for pending."""
        view, touched = self.view, self.nodes
        found = {n for n, node in touched.items() if node.state in states} if touched else set()
        for state in states:
            if state is NodeState.RUNNING:
                before = view.running
            elif state is NodeState.BACKOFF:
                before = view.backoff
            elif view.halted:
                before = {n for n in view.halted if view.nodes[n].state is state}
            else:
                continue
            if before:
                found.update(before.difference(touched))
        return found

    @property
    def is_anything_running(self) -> bool:
        """Whether any node is running after this draft."""
        touched = self.nodes
        for node in touched.values():
            if node.state is NodeState.RUNNING:
                return True
        return not self.view.running <= touched.keys()

    def _refresh_detail(self) -> None:
        # Whatever starts says so itself, and is not over.
        if self.run.status is RunState.RUNNING and not self.attempts_started:
            self.run.detail = refreshed_detail(
                self.run.detail, is_completed=self._is_completed, active=self._active
            )

    def _is_completed(self, name: str) -> bool:
        number = self.plan.by_id.get(NodeId(name))
        return number is not None and self.node(number).state is NodeState.COMPLETED

    def _active(self) -> Iterator[Active]:
        """Yield what runs, then what was started and waits for its next attempt."""
        for number in sorted(self.in_state(NodeState.RUNNING)):
            yield self.plan.nodes[number].node_id, self.node(number).attempts
        for number in sorted(self.view.nodes.keys() | self.nodes.keys()):
            node = self.node(number)
            if node.attempts and node.state in (NodeState.PENDING, NodeState.BACKOFF):
                yield self.plan.nodes[number].node_id, node.attempts

    @property
    def driven_ms(self) -> int:
        """How long engines have driven the run."""
        if self.active_ms is not None:
            return self.active_ms
        return active_ms_of(self.run, until_ms=self.active_until_ms)

    def close(self) -> Change:
        """Apply the closing rules (run-lifecycle 2.1) and return the change."""
        run, before = self.run, self.view.run
        self._refresh_detail()
        close_run(run, change_id=self.change_id, now_ms=self.now_ms, active_ms=self.driven_ms)
        return Change(
            change_id=self.change_id,
            builds_on=before.last_change_id,
            epoch_before=before.epoch,
            status_before=before.status,
            run=run,
            moved=self.moved,
            nodes=tuple(self.nodes.values()),
            attempts_started=tuple(self.attempts_started),
            attempts_ended=tuple(self.attempts_ended),
            gates=tuple(self.gates.values()),
            waits=tuple(self.waits.values()),
            artifacts=tuple(self.artifacts),
            invalidated=tuple(self.invalidated),
            denial=self.denial,
            throttles=tuple(self.throttles),
            spent=tuple(self.spent),
            events=tuple(self.events),
            definition=self.definition,
        )


def close_run(
    run: Run,
    *,
    change_id: ChangeId,
    now_ms: int,
    active_ms: int | None = None,
) -> None:
    """Bring the row of a run in line with its state, after whatever changed it.

    `active_ms` is how long it was driven, where that was not until now.
    """
    run.last_change_id = change_id
    run.updated_at_ms = now_ms
    if run.status is not RunState.QUEUED:
        run.queued_at_ms = run.queue_reason = None
        run.resource_key = run.rate_limited_provider = ""
    elif run.queued_at_ms is None:
        run.queued_at_ms = now_ms
    if run.status not in DRIVEN:
        run.engine_id = None
        run.active_ms = active_ms_of(run, until_ms=now_ms) if active_ms is None else active_ms
        run.active_since_ms = None
    elif run.active_since_ms is None:
        run.active_since_ms = now_ms
    if run.status is not RunState.PAUSED:
        run.parked = ""
    if run.status is not RunState.PAUSING:
        run.pause_mode = ""
    if run.status in TERMINAL:
        run.due_at_ms = None
        if run.finished_at_ms is None:
            run.finished_at_ms = now_ms
