"""A run told step by step without a store: each step is decided, checked and applied."""

from collections.abc import Iterable, Mapping
from typing import Any

from tandem.domain.accounting import FileFact
from tandem.domain.change import Change
from tandem.domain.command import Claim, Command
from tandem.domain.decision import decide
from tandem.domain.driving import advance
from tandem.domain.gates import newest_settled
from tandem.domain.ids import ChangeId, EngineId, NodeId
from tandem.domain.json import decode
from tandem.domain.lifecycle import (
    DRIVEN,
    NODE_EVENTS,
    NODE_TRANSITIONS,
    RUN_TRANSITIONS,
    NodeState,
    RunState,
)
from tandem.domain.outcome import (
    Failed,
    FailureClass,
    NeedsRepair,
    Outcome,
    Stopped,
    Succeeded,
)
from tandem.domain.run import (
    OPEN_WAITS,
    Attempt,
    Gate,
    LifecycleEvent,
    NodeRun,
    Run,
    Wait,
)
from tandem.domain.settling import Settled
from tandem.domain.usage import NOTHING, Spent, Usage
from tandem.domain.view import RunView
from tandem.testing.builders import fresh_view

ENGINE = EngineId("engine-1")


class SeenFiles:
    """The files of a told run by path; see `accounting.Facts`."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def file(self, path: str) -> FileFact:
        """See `Facts.file`."""
        text = self.texts.get(path)
        return FileFact(problem="it was not written") if text is None else FileFact(text=text)

    def output_text(self, node: NodeRun) -> str:
        """See `Facts.output_text`."""
        return (node.output or b"").decode()


class Tale:
    """One run and everything that happened to it. `now_ms` is moved by whoever tells it."""

    def __init__(self, *nodes: Mapping[str, Any], parallel: int = 4, **fields: Any) -> None:
        self.view = fresh_view(*nodes, parallel=parallel, **fields)
        self.now_ms = 1_000
        self.spent: list[Spent] = []
        """What attempts have spent and no change has counted."""
        self.notes_usage = False
        self.active_ms: int | None = None
        """How long the driver has measured; else the wall clock tells."""
        self.drains = False
        """Whether the engine is about to stop and starts nothing new."""
        self.facts = SeenFiles()
        self.changes: list[Change] = []
        self.counted: list[Spent] = []
        self.events: list[LifecycleEvent] = []
        self.started: dict[tuple[int, int], Attempt] = {}
        self.ended: dict[tuple[int, int], Attempt] = {}
        self.gates: dict[str, Gate] = {}
        self.waits: dict[str, Wait] = {}
        self._replayed = RunState.QUEUED
        self._nodes = [NodeState.PENDING] * len(self.view.plan)

    # What is told

    def command(self, command: Command) -> Change:
        """Ask something of the run, as the store does: it also shows the gates that are over."""
        self.view.settled_gates = newest_settled(self.gates.values())
        change = decide(self.view, command, change_id=self._change_id(), now_ms=self.now_ms)
        self._add(change)
        return change

    def claim(self) -> "Tale":
        """Let the engine claim the run and take the first step."""
        self.command(Claim(engine_id=ENGINE))
        self.advance()
        return self

    def advance(self, *settled: Settled) -> Change | None:
        """Let the driver take one step."""
        change = advance(
            self.view,
            settled=settled,
            facts=self.facts,
            engine_id=ENGINE,
            change_id=self._change_id(),
            now_ms=self.now_ms,
            starts=not self.drains,
            spent=tuple(self.spent),
            notes_usage=self.notes_usage,
            active_ms=self.active_ms,
        )
        if change is not None:
            self._add(change)
            self.spent.clear()
        return change

    def spend(self, node_id: str, **usage: int) -> "Tale":
        """Let the newest attempt of a node spend something more."""
        key = self._number(node_id), self.node(node_id).attempts
        added = Usage(**usage)
        before = sum_of([*self.counted, *self.spent], key)
        self.spent.append(
            Spent(node_no=key[0], number=key[1], usage=before.plus(added), added=added)
        )
        return self

    def settle(
        self, node_id: str, outcome: Outcome, *, output: bytes | None = None, **read: Any
    ) -> Change:
        """Let the running attempt of a node end; `read` is what was made of its output."""
        item = Settled(
            node_no=self._number(node_id),
            number=self.node(node_id).attempts,
            outcome=outcome,
            output=output,
            **read,
        )
        change = self.advance(item)
        if change is None:
            raise AssertionError(f"the end of {node_id} changed nothing")
        return change

    def succeed(self, node_id: str, output: bytes = b"1", **read: Any) -> Change:
        """Let a body end well."""
        return self.settle(node_id, Succeeded(output=1), output=output, **read)

    def fail(
        self, node_id: str, failure_class: FailureClass = FailureClass.EXECUTION_ERROR
    ) -> Change:
        """Let a body fail."""
        return self.settle(node_id, Failed(failure_class=failure_class, message="it broke"))

    def repair(
        self,
        node_id: str,
        failure_class: FailureClass = FailureClass.VALIDATION_ERROR,
        *,
        unmet: tuple[str, ...] = (),
        **read: Any,
    ) -> Change:
        """Let a body end with an output that misses its contract."""
        outcome = NeedsRepair(
            reasons=("too short", "no title"), unmet=unmet, failure_class=failure_class
        )
        return self.settle(node_id, outcome, output=b'"draft"', **read)

    def stop(self, node_id: str) -> Change:
        """Let the engine end a body."""
        return self.settle(node_id, Stopped(reason="paused"))

    # What is seen

    @property
    def run(self) -> Run:
        """The row of the run."""
        return self.view.run

    @property
    def status(self) -> RunState:
        """Where the run is."""
        return self.view.run.status

    def node(self, node_id: str) -> NodeRun:
        """Return the row of a node."""
        return self.view.node(self._number(node_id))

    def states(self) -> dict[str, str]:
        """Return the state of every node."""
        plan = self.view.plan
        return {p.node_id: self.view.node(p.node_no).state.value for p in plan.nodes}

    def happened(self) -> list[str]:
        """Return the events of the newest change."""
        return [event.event.value for event in self.changes[-1].events]

    def open_gates(self) -> list[Gate]:
        """Return the gates that are open."""
        return list(self.view.gates.values())

    def open_waits(self) -> list[Wait]:
        """Return the waits that can still be woken."""
        return list(self.view.waits.values())

    def output(self, node_id: str) -> Any:
        """Return the output of a node."""
        return decode(self.node(node_id).output or b"null")

    def _number(self, node_id: str) -> int:
        return self.view.plan.by_id[NodeId(node_id)]

    def _change_id(self) -> ChangeId:
        return ChangeId(f"change-{len(self.changes) + 1}")

    # What must hold

    def _add(self, change: Change) -> None:
        before = self.view.run
        assert change.builds_on == before.last_change_id
        assert change.epoch_before == before.epoch
        assert change.status_before is before.status
        assert change.run.last_change_id == change.change_id
        assert change.run.epoch >= before.epoch
        assert change.events
        self.changes.append(change)
        self.view.apply(change)
        self._replay(change)
        self._keep_rows(change)
        self.check()

    def _replay(self, change: Change) -> None:
        for event in change.events:
            assert event.seq == len(self.events) + 2  # the creation was the first
            self.events.append(event)
            self._replayed = RUN_TRANSITIONS[self._replayed, event.event]
            if event.event in NODE_EVENTS and event.node_id is not None:
                number = self._number(event.node_id)
                self._nodes[number] = NODE_TRANSITIONS[self._nodes[number], event.event]

    def _keep_rows(self, change: Change) -> None:
        for attempt in change.attempts_started:
            key = (attempt.node_no, attempt.number)
            assert key not in self.started
            self.started[key] = attempt
        for attempt in change.attempts_ended:
            key = (attempt.node_no, attempt.number)
            assert key in self.started
            assert key not in self.ended
            self.ended[key] = attempt
        self.counted += change.spent
        self.gates |= {gate.gate_id: gate for gate in change.gates}
        self.waits |= {wait.wait_id: wait for wait in change.waits}

    def check(self) -> None:
        """Check that log, rows and bookkeeping agree."""
        view = self.view
        assert self._replayed is view.run.status
        assert self._nodes == [view.node(n).state for n in range(len(view.plan))]
        fresh = RunView(
            view.run, view.plan, view.nodes.values(), self.gates_left(), self.waits_left()
        )
        for name in ("open_deps", "running", "backoff", "halted", "completed", "gates", "waits"):
            assert getattr(view, name) == getattr(fresh, name), name
        assert set(view.ready) == set(fresh.ready)
        assert set(view.ready_parked) == set(fresh.ready_parked)
        assert view.run.nodes_completed == view.completed
        assert view.run.usage == sum_of(self.counted)
        assert (view.run.active_since_ms is not None) == (view.run.status in DRIVEN)
        open_attempts = {number for number, _ in self.started.keys() - self.ended.keys()}
        assert open_attempts == view.running
        assert len(view.running) <= view.plan.parallel

    def gates_left(self) -> list[Gate]:
        """Return the gates whose newest row is open."""
        return [gate for gate in self.gates.values() if gate.status.value == "open"]

    def waits_left(self) -> list[Wait]:
        """Return the waits whose newest row still waits."""
        return [wait for wait in self.waits.values() if wait.status in OPEN_WAITS]


def sum_of(spent: Iterable[Spent], key: tuple[int, int] | None = None) -> Usage:
    """Return what was spent in all, or by one attempt."""
    total = NOTHING
    for item in spent:
        if key in (None, (item.node_no, item.number)):
            total = total.plus(item.added)
    return total
