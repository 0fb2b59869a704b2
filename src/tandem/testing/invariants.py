"""What must hold after every commit of every engine, read from the store's own rows."""

from pathlib import Path
from typing import Any

import apsw
import msgspec

from tandem.adapters.sql.rows import ATTEMPT_BITS, NODE_BITS
from tandem.domain.graph import Plan
from tandem.domain.lifecycle import (
    DRIVEN,
    NODE_EVENTS,
    NODE_TRANSITIONS,
    RUN_TRANSITIONS,
    TERMINAL,
    NodeState,
    RunEvent,
    RunState,
)
from tandem.testing.executor import Bodies, Body

E, N, S = RunEvent, NodeState, RunState
_RESETTING = frozenset({E.RUN_RECOVERED, E.GATE_DECIDED})
_GATE_ENDS = frozenset({E.GATE_DECIDED, E.GATE_EXPIRED})


class Violation(AssertionError):
    """Something that must never happen has happened."""


class Seen(msgspec.Struct, frozen=True):
    """One lifecycle event as it came out of the store."""

    run_id: str
    seq: int
    event: RunEvent
    node_id: str | None
    change_id: str
    metadata: frozenset[str] = frozenset()
    """The keys of what it carries."""


class _Replay:
    """A run rebuilt from nothing but its events."""

    def __init__(self, run_id: str, plan: Plan) -> None:
        self.run_id = run_id
        self.plan = plan
        self.status = S.QUEUED
        self.seq = 0
        self.epoch = 0
        self.nodes = [N.PENDING] * len(plan)
        self.change_id = ""
        self.in_change: set[tuple[RunEvent, str | None]] = set()


class Invariants:
    """Follows the events of a store and compares them with its rows and with the bodies."""

    def __init__(self, path: Path, bodies: Bodies) -> None:
        self.events: list[Seen] = []
        self._bodies = bodies
        self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._connection.set_row_trace(_as_dict)
        self._replays: dict[int, _Replay] = {}
        self._plans: dict[str, Plan] = {}
        self._cursor = 0

    def expect(self, run_id: str, plan: Plan) -> None:
        """Say which plan the run of this id executes."""
        self._plans[run_id] = plan

    def close(self) -> None:
        """Close the connection."""
        self._connection.close(True)

    def _find(self, sql: str, *values: object) -> list[dict[str, Any]]:
        rows: list[Any] = self._connection.execute(sql, values).fetchall()
        return rows

    # After a commit

    def check(self) -> None:
        """Follow what is new and check every run that it concerns.

        Raises:
            Violation: an invariant is broken.
        """
        found = self._find(
            "SELECT e.*, r.run_id FROM lifecycle_event AS e JOIN run AS r USING (run_no)"
            " WHERE e.cursor > ? ORDER BY e.cursor",
            self._cursor,
        )
        for row in found:
            self._cursor = row["cursor"]
            self._follow(row)
        for run_no in dict.fromkeys(row["run_no"] for row in found):
            self.compare(run_no)

    def check_all(self) -> None:
        """Check everything there is."""
        self.check()
        for run_no in self._replays:
            self.compare(run_no)

    def _follow(self, row: dict[str, Any]) -> None:
        run_no = row["run_no"]
        replay = self._replays.get(run_no)
        if replay is None:
            replay = _Replay(row["run_id"], self._plans[row["run_id"]])
            self._replays[run_no] = replay
        event, node_id = RunEvent(row["event"]), row["node_id"]
        keys = frozenset(msgspec.json.decode(row["metadata"] or "{}"))
        self.events.append(Seen(row["run_id"], row["seq"], event, node_id, row["change_id"], keys))
        where = f"run {run_no} event {row['seq']} {event.value} {node_id or ''}"
        _must(row["seq"] == replay.seq + 1, f"{where}: comes after number {replay.seq}")
        replay.seq = row["seq"]
        if replay.change_id != row["change_id"]:
            replay.change_id = row["change_id"]
            replay.in_change = set()
        replay.in_change.add((event, node_id))
        after = RUN_TRANSITIONS.get((replay.status, event))
        if after is None:
            raise Violation(f"{where}: cannot happen to a run that is {replay.status.value}")
        if replay.status in TERMINAL and after is not replay.status:
            _must(
                event is E.RUN_RECOVERED or event is E.RUN_STOPPED,
                f"{where}: left the terminal state {replay.status.value}",
            )
        replay.status = after
        if event is E.RUN_CLAIMED:
            epoch = msgspec.json.decode(row["metadata"])["lease_epoch"]
            _must(epoch == replay.epoch + 1, f"{where}: epoch {epoch} after {replay.epoch}")
            replay.epoch = epoch
        if event in NODE_EVENTS and node_id is not None:
            self._follow_node(replay, event, node_id, where)

    def _follow_node(self, replay: _Replay, event: RunEvent, node_id: str, where: str) -> None:
        number = replay.plan.by_id[node_id]  # type: ignore[index] # a NodeId
        plan_node = replay.plan.nodes[number]
        state = replay.nodes[number]
        after = NODE_TRANSITIONS.get((state, event))
        if after is None:
            raise Violation(f"{where}: cannot happen to a node that is {state.value}")
        replay.nodes[number] = after
        kinds = {kind for kind, _ in replay.in_change}
        if event in (E.NODE_STARTED, E.GATE_OPENED, E.WAIT_REGISTERED):
            for before in plan_node.depends_on:
                _must(
                    replay.nodes[before] is N.COMPLETED,
                    f"{where}: before its dependency {replay.plan.nodes[before].node_id}",
                )
            running = replay.nodes.count(N.RUNNING)
            _must(running <= replay.plan.parallel, f"{where}: {running} nodes run at once")
        if event is E.NODE_STARTED:
            _must(not plan_node.is_parked, f"{where}: a gate or wait has no body")
        if event is E.NODE_COMPLETED and state is N.GATED:
            decided = any((end, node_id) in replay.in_change for end in _GATE_ENDS)
            _must(decided, f"{where}: past a gate that nobody decided")
        if event is E.NODE_RESET:
            _must(bool(kinds & _RESETTING), f"{where}: nobody asked for the reset")

    def compare(self, run_no: int) -> None:
        """Compare the rows of one run with its events.

        Raises:
            Violation: they do not agree.
        """
        replay = self._replays[run_no]
        run = self._find("SELECT * FROM run WHERE run_no = ?", run_no)[0]
        what = f"run {run_no} ({run['status']}, epoch {run['epoch']})"
        _must(run["status"] == replay.status.value, f"{what}: replay gives {replay.status.value}")
        _must(run["event_seq"] == replay.seq, f"{what}: event_seq is not {replay.seq}")
        _must(run["epoch"] == replay.epoch, f"{what}: the claims gave epoch {replay.epoch}")
        _must(run["last_change_id"] == replay.change_id, f"{what}: newest change is another")
        completed = replay.nodes.count(N.COMPLETED)
        _must(run["nodes_completed"] == completed, f"{what}: {completed} nodes are completed")
        self._compare_nodes(run_no, replay, what)
        self._compare_rest(run, replay, what)

    def _compare_nodes(self, run_no: int, replay: _Replay, what: str) -> None:
        first = run_no << NODE_BITS
        last = (run_no + 1 << NODE_BITS) - 1
        rows = {
            row["node_run_id"] - first: row
            for row in self._find(
                "SELECT * FROM node_run WHERE node_run_id BETWEEN ? AND ?", first, last
            )
        }
        for number, state in enumerate(replay.nodes):
            stored = rows[number]["state"] if number in rows else N.PENDING.value
            _must(stored == state.value, f"{what}: node {number} is {stored}, not {state.value}")
        attempts = self._find(
            "SELECT attempt_no, outcome, ended_at_ms FROM attempt WHERE attempt_no BETWEEN ? AND ?",
            first << ATTEMPT_BITS,
            (last + 1 << ATTEMPT_BITS) - 1,
        )
        counts: dict[int, int] = {}
        for row in attempts:
            key, number = divmod(row["attempt_no"], 1 << ATTEMPT_BITS)
            node_no = key - first
            counts[node_no] = counts.get(node_no, 0) + 1
            _must(number == counts[node_no], f"{what}: attempts of node {node_no} have a gap")
            newest = number == rows[node_no]["attempts"]
            is_open = row["outcome"] is None
            runs = newest and replay.nodes[node_no] is N.RUNNING
            _must(is_open == runs, f"{what}: attempt {number} of node {node_no}: {row['outcome']}")
        for node_no, row in rows.items():
            _must(row["attempts"] == counts.get(node_no, 0), f"{what}: attempts of node {node_no}")

    def _compare_rest(self, run: dict[str, Any], replay: _Replay, what: str) -> None:
        status = replay.status
        gates = self._find(
            "SELECT node_no FROM gate WHERE run_no = ? AND status = 'open'", run["run_no"]
        )
        waits = self._find(
            "SELECT node_no FROM wait WHERE run_no = ? AND status = 'waiting'", run["run_no"]
        )
        gated = sorted(n for n, state in enumerate(replay.nodes) if state is N.GATED)
        waiting = sorted(n for n, state in enumerate(replay.nodes) if state is N.WAITING)
        if status not in TERMINAL:
            _must(sorted(g["node_no"] for g in gates) == gated, f"{what}: gates {gates}")
            _must(sorted(w["node_no"] for w in waits) == waiting, f"{what}: waits {waits}")
        holder = run["engine_id"] is not None
        _must(holder == (status in DRIVEN), f"{what}: held by {run['engine_id']}")
        _must(
            (run["finished_at_ms"] is not None) == (status in TERMINAL), f"{what}: finished_at_ms"
        )
        match status:
            case S.QUEUED:
                known = run["due_at_ms"] is not None or bool(run["resource_key"])
                _must(known, f"{what}: queued without a due moment or a key")
            case S.RUNNING:
                paused = self._find(
                    "SELECT 1 FROM automation WHERE tenant = ? AND automation_id = ?"
                    " AND status = 'paused' AND deleted_at_ms IS NULL",
                    run["tenant"],
                    run["automation_id"],
                )
                _must(not paused, f"{what}: runs although its automation is paused")
            case S.AWAITING_APPROVAL:
                _must(bool(gates), f"{what}: awaits a gate that is not open")
            case S.PAUSED if run["parked"]:
                due = run["due_at_ms"] is not None
                _must(due and bool(waits), f"{what}: parked with nothing that wakes it")
            case S.COMPLETED | S.BLOCKED | S.FAILED | S.CANCELLED:
                _must(run["due_at_ms"] is None, f"{what}: ended, but due")
                if status in (S.COMPLETED, S.CANCELLED):
                    _must(not gates and not waits, f"{what}: ended, but {gates}, {waits} are open")
        if status not in DRIVEN:
            _must(N.RUNNING not in replay.nodes, f"{what}: a node runs without a driver")
        if status in TERMINAL and run["cleanup"] is None:
            left = [b for b in self._bodies.live if b.spec.run_id == replay.run_id]
            _must(not left, f"{what}: bodies live on after its end: {[b.key for b in left]}")

    # Bodies

    def body_started(self, body: Body) -> None:
        """Check that this body may run now.

        Raises:
            Violation: it may not.
        """
        spec = body.spec
        what = f"body {spec.attempt_id} (epoch {spec.epoch})"
        for other in self._bodies.live:
            _must(other.key != body.key, f"{what}: overlaps {other.spec.attempt_id}")
        run = self._find("SELECT * FROM run WHERE run_id = ?", spec.run_id)[0]
        plan = self._plans[spec.run_id]
        count = sum(other.spec.run_id == spec.run_id for other in self._bodies.live)
        _must(count < plan.parallel, f"{what}: {count} bodies run already")
        if run["status"] == S.CANCELLED.value and run["cleanup"] == spec.engine_id:
            return  # cancelled a moment ago; its driver is about to hear of it
        _must(run["epoch"] == spec.epoch, f"{what}: the run has epoch {run['epoch']}")
        _must(run["engine_id"] == spec.engine_id, f"{what}: {run['engine_id']} drives the run")
        number = plan.by_id[spec.node_id]
        found = self._find(
            "SELECT state, attempts FROM node_run WHERE node_run_id = ?",
            run["run_no"] << NODE_BITS | number,
        )
        started = found == [{"state": N.RUNNING.value, "attempts": spec.number}]
        _must(started, f"{what}: started before it was recorded: {found}")

    def body_reaped(self, body: Body) -> None:
        """Check that what is killed as a leftover is one.

        Raises:
            Violation: its engine is alive.
        """
        _must(not body.process.is_alive, f"{body.spec.attempt_id} was killed in a living engine")

    # Answers

    def has_change(self, change_id: str) -> bool:
        """Say whether any event of this change is on disk."""
        sql = "SELECT 1 FROM lifecycle_event WHERE change_id = ? LIMIT 1"
        return bool(self._find(sql, change_id))

    def runs(self) -> list[dict[str, Any]]:
        """Return the rows of all runs."""
        return self._find("SELECT * FROM run ORDER BY run_no")


def _must(holds: bool, message: str) -> None:
    if not holds:
        raise Violation(message)


def _as_dict(cursor: apsw.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    names = [column[0] for column in cursor.get_description()]
    return dict(zip(names, row, strict=True))
