"""What must hold after every commit of every engine, read from the store's own rows."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec

from tandem.adapters.sql.rows import ATTEMPT_BITS, NODE_BITS, event_of
from tandem.adapters.sqlite.archive import unpack
from tandem.adapters.sqlite.connection import open_connection
from tandem.domain.admission import overlap
from tandem.domain.budget import Used, allowed, reached
from tandem.domain.graph import Plan, PlanNode
from tandem.domain.guardrail import AUTO_RESUMED as ALLOWED_MORE
from tandem.domain.hold import is_automation_key
from tandem.domain.lifecycle import (
    DRIVEN,
    NODE_EVENTS,
    NODE_TRANSITIONS,
    RUN_TRANSITIONS,
    TERMINAL,
    NodeState,
    RunEvent,
    RunState,
    StopKind,
)
from tandem.domain.node import NodeKind
from tandem.domain.phases import is_held
from tandem.domain.receipts import ChainCheck
from tandem.domain.run import Allowance
from tandem.domain.usage import Usage
from tandem.testing.executor import Bodies, Body
from tandem.testing.trigger_invariants import TriggerInvariants

E, N, S = RunEvent, NodeState, RunState
_GATE_ENDS = frozenset({E.GATE_DECIDED, E.GATE_TIMEOUT_RESUMED})
_PARKINGS = frozenset({E.RUN_PARKED_AT_GATE, E.RUN_PARKED_ON_WAIT, E.RUN_PARKED_ON_BACKOFF})
_REVIVING = frozenset(
    {
        E.RUN_RECOVERED,
        E.RUN_RECOVERED_FROM_PAUSE,
        E.RUN_STEP_REPAIRED,
        E.RUN_TASK_RETRIED,
        E.RUN_TASK_REQUEUED,
        E.RUN_TASK_CONTINUED,
        E.RUN_REDELIVERED,
        E.RUN_REOPENED,
    }
)
CALL_TOKENS = 100
"""What a call of a simulated body costs."""
_BY_HAND = frozenset({E.NODE_SKIPPED, E.NODE_OUTPUT_SET})
_RESETTING = _REVIVING | _BY_HAND | {E.GATE_DECIDED, E.NODE_APPROVAL_ROLLBACK}


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
        self.auto_resumes = 0
        self.is_allowed_more = False
        self.tokens_max = plan.budget.tokens
        self.tool_calls_max = plan.budget.tool_calls
        self.is_reaped = False
        self.chain = ChainCheck()


def keep_gone_events(connection: apsw.Connection) -> None:
    """Have a store keep the events of runs that are deleted or packed.

    One commit may hold what happened last to a run, and its deletion or packing.
    """
    names = [row[1] for row in connection.execute("PRAGMA table_info(lifecycle_event)")]
    old = ", ".join(f"OLD.{name}" for name in names)
    connection.execute(
        f"""
        CREATE TABLE gone_event AS SELECT *, '' AS run_id FROM lifecycle_event WHERE 0;
        CREATE TRIGGER run_gone BEFORE DELETE ON run BEGIN
            INSERT INTO gone_event
            SELECT *, OLD.run_id FROM lifecycle_event WHERE run_no = OLD.run_no;
        END;
        CREATE TRIGGER event_gone BEFORE DELETE ON lifecycle_event BEGIN
            INSERT INTO gone_event SELECT {old}, run_id FROM run WHERE run_no = OLD.run_no;
        END;
        """  # noqa: S608 # the names are those of the schema
    )


class Invariants:
    """Follows the events of a store and compares them with its rows and with the bodies."""

    def __init__(self, path: Path, bodies: Bodies) -> None:
        self.events: list[Seen] = []
        self._bodies = bodies
        self._connection = open_connection(path, synchronous="OFF", read_only=True)
        self._names: dict[str, list[str]] = {}
        self._replays: dict[int, _Replay] = {}
        self._plans: dict[str, Plan] = {}
        self._deletable: set[str] = set()
        self._cursor = 0
        self._ends = 0
        self._runs_max = 0
        self._runs_total_max: int | None = None
        self.auto_resumes_max = 2
        self.keeps_budgets = False
        """Whether no two engines can spend for one run without knowing of each other."""
        self.is_apart = False
        """Whether engines have machines of their own and know only the leases of others."""
        self.all_ask: Callable[[str], bool] = lambda _run_id: False
        """Whether all bodies of a run ask before they spend."""
        self.follows_triggers = False
        """Whether anything here starts runs by itself."""
        self.triggers = TriggerInvariants(self._find, may_be_gone=self.may_be_gone, must=_must)
        self.trusted: Callable[[Body], bool] = lambda _body: True
        """Whether the engine of a body could do its work for as long as its lease lasts."""

    def limit(self, runs_max: int, runs_total_max: int | None) -> None:
        """Say how many runs one engine, and all engines, may drive at once."""
        self._runs_max, self._runs_total_max = runs_max, runs_total_max

    def expect(self, run_id: str, plan: Plan) -> None:
        """Say which plan the run of this id executes."""
        self._plans[run_id] = plan

    def expect_fork(self, run_id: str, source: str) -> None:
        """Say that the run of this id executes the plan of another one, if that is known."""
        if source in self._plans:
            self._plans[run_id] = self._plans[source]

    def expect_deletion(self, run_id: str) -> None:
        """Say that somebody asks for the deletion of a run."""
        self._deletable.add(run_id)

    def may_be_gone(self, run_id: str) -> bool:
        """Say whether somebody asked for the deletion of a run."""
        return run_id in self._deletable

    def close(self) -> None:
        """Close the connection."""
        self._connection.close(True)

    def _find(self, sql: str, *values: object) -> list[dict[str, Any]]:
        cursor = self._connection.execute(sql, values)
        first = cursor.fetchone()
        if first is None:
            return []
        names = self._names.get(sql)
        if names is None:
            names = self._names[sql] = [column[0] for column in cursor.get_description()]
        return [dict(zip(names, row, strict=True)) for row in (first, *cursor)]

    # After a commit

    def check(self) -> None:
        """Follow what is new and check every run that it concerns.

        Raises:
            Violation: an invariant is broken.
        """
        self._connection.execute("BEGIN")
        try:
            self._check()
        finally:
            self._connection.execute("COMMIT")

    def _check(self) -> None:
        found = self._find(
            "SELECT e.*, r.run_id FROM lifecycle_event AS e JOIN run AS r USING (run_no)"
            " WHERE e.cursor > ?1"
            " UNION ALL SELECT * FROM gone_event WHERE cursor > ?1 ORDER BY cursor",
            self._cursor,
        )
        for row in found:
            self._cursor = row["cursor"]
            self._follow(row)
        runs = {run["run_no"]: run for run in self.runs()}
        for run_no in dict.fromkeys(row["run_no"] for row in found):
            self._compare(run_no, runs.get(run_no))
        self._check_admission(runs)
        self.check_learning()
        if self.follows_triggers:
            self.triggers.check(list(runs.values()))

    def _check_admission(self, runs: dict[int, dict[str, Any]]) -> None:
        """Compare what runs hold with what is locked and counted.

        Raises:
            Violation: they do not agree.
        """
        holding = [run for run in runs.values() if run["engine_id"] or run["cleanup"]]
        locks = self._find("SELECT * FROM workspace_lock")
        self._check_locks(runs, holding, locks)
        self._check_holders(holding)
        self._check_counts(holding)
        self._check_blocked(runs, holding, locks)
        (totals,) = self._find("SELECT * FROM admission")
        # Deleted runs were claimed, too.
        epochs = sum(replay.epoch for replay in self._replays.values())
        _must(totals["admitted_total"] == epochs, f"{epochs} claims, but {totals}")
        _must(totals["completed_total"] == self._ends, f"{self._ends} ends, but {totals}")

    def check_learning(self) -> None:
        """Compare the ends of runs with what was counted of them, and with what is to be learned.

        Raises:
            Violation: an end was lost, or counted twice (W-34).
        """
        (review,) = self._find("SELECT sum(runs_total) AS ends FROM review")
        _must(review["ends"] == self._ends, f"{self._ends} ends, but {review} in the reviews")
        forgotten = self._find(
            "SELECT run_no FROM run WHERE status IN ('completed', 'blocked', 'failed', 'cancelled')"
            " AND run_no NOT IN (SELECT run_no FROM learning_due)"
            " AND run_no NOT IN (SELECT run_no FROM run_facts)"
        )
        _must(not forgotten, f"nothing will be learned from {forgotten}")

    def _check_locks(
        self,
        runs: dict[int, dict[str, Any]],
        holding: list[dict[str, Any]],
        locks: list[dict[str, Any]],
    ) -> None:
        for number, lock in enumerate(locks):
            run = runs[lock["run_no"]]
            _must(run in holding, f"{lock}: its run {run['run_id']} rests ({run['status']})")
            same = (run["lock_path"], run["epoch"], run["engine_id"] or run["cleanup"])
            _must(same == (lock["path"], lock["epoch"], lock["engine_id"]), f"{lock}: not {same}")
            for other in locks[:number]:
                _must(not overlap(lock["path"], other["path"]), f"{lock} overlaps {other}")
        held = {lock["run_no"] for lock in locks}
        for run in holding:
            locked = run["run_no"] in held or not run["lock_path"]
            _must(locked, f"run {run['run_id']} works in {run['lock_path']} without its lock")

    def _check_holders(self, holding: list[dict[str, Any]]) -> None:
        """Nobody would find the runs of an engine that the store does not know."""
        known = {row["engine_id"] for row in self._find("SELECT engine_id FROM engine")}
        for run in holding:
            for holder in {run["engine_id"], run["cleanup"]} - {None, ""}:
                _must(holder in known, f"{run['run_id']} is held by {holder}, which nobody knows")

    def _check_counts(self, holding: list[dict[str, Any]]) -> None:
        driven = Counter(run["engine_id"] for run in holding if run["engine_id"])
        for engine_id, count in driven.items():
            _must(count <= self._runs_max, f"{engine_id} drives {count} runs")
        if self._runs_total_max is not None:
            _must(driven.total() <= self._runs_total_max, f"the engines drive {driven}")
        for key in {run["concurrency_key"] for run in holding} - {""}:
            limits = [run["concurrency_limit"] for run in holding if run["concurrency_key"] == key]
            _must(len(limits) <= max(limits), f"{len(limits)} runs hold {key}")

    def _is_paused(self, run: dict[str, Any]) -> bool:
        found = self._find(
            "SELECT 1 FROM automation WHERE tenant = ? AND automation_id = ?"
            " AND status = 'paused' AND deleted_at_ms IS NULL",
            run["tenant"],
            run["automation_id"],
        )
        return bool(found)

    def _check_blocked(
        self,
        runs: dict[int, dict[str, Any]],
        holding: list[dict[str, Any]],
        locks: list[dict[str, Any]],
    ) -> None:
        paths = {lock["path"] for lock in locks}
        for run in runs.values():
            if run["status"] != S.QUEUED.value or run["due_at_ms"] is not None:
                continue
            key = run["resource_key"]
            claims = sum(other["concurrency_key"] == key for other in holding)
            if is_automation_key(key):
                taken = self._is_paused(run)
            elif key.startswith("/"):
                taken = key in paths
            else:
                taken = claims >= run["concurrency_limit"]
            _must(taken, f"run {run['run_id']} waits for {key}, which is free")

    def check_all(self) -> None:
        """Check everything there is."""
        self.check()
        runs = {run["run_no"]: run for run in self.runs()}
        for run_no in self._replays:
            self._compare(run_no, runs.get(run_no))

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
        replay.chain.follow([event_of({name: row[name] for name in row if name != "run_id"}, None)])
        _must(not replay.chain.problems, f"{where}: {replay.chain.problems}")
        if replay.change_id != row["change_id"]:
            replay.change_id = row["change_id"]
            replay.in_change = set()
        replay.in_change.add((event, node_id))
        after = RUN_TRANSITIONS.get((replay.status, event))
        if after is None:
            raise Violation(f"{where}: cannot happen to a run that is {replay.status.value}")
        if replay.status in TERMINAL and after is not replay.status:
            _must(
                event in _REVIVING or event is E.RUN_STOPPED,
                f"{where}: left the terminal state {replay.status.value}",
            )
        self._ends += after in TERMINAL and replay.status not in TERMINAL
        if event in (E.RUN_PAUSED_STALE, E.RUN_FAILED_STALE):
            self._follow_reap(replay, where)
        if event is E.RUN_BUDGET_CHANGED:
            replay.is_allowed_more = True
            given = msgspec.json.decode(row["metadata"])["allowed"]
            replay.tokens_max = _larger(replay.tokens_max, given.get("max_total_tokens"))
            replay.tool_calls_max = _larger(
                replay.tool_calls_max, given.get("max_total_tool_calls")
            )
        if event is E.RUN_AUTO_RESUMED and row["reason"] == ALLOWED_MORE:
            _must(replay.is_allowed_more, f"{where}: nobody allowed it more")
            replay.is_allowed_more = False
        elif event is E.RUN_AUTO_RESUMED:
            replay.auto_resumes += 1
            _must(replay.is_reaped, f"{where}: it was not paused as stale")
            _must(replay.auto_resumes <= self.auto_resumes_max, f"{where}: too often")
        if after is not replay.status:
            goes_on = replay.status is S.RUNNING or replay.is_allowed_more
            replay.is_reaped = event is E.RUN_PAUSED_STALE and goes_on
        replay.status = after
        if event is E.RUN_CLAIMED:
            epoch = msgspec.json.decode(row["metadata"])["lease_epoch"]
            _must(epoch == replay.epoch + 1, f"{where}: epoch {epoch} after {replay.epoch}")
            replay.epoch = epoch
        if event in _PARKINGS:
            ready = [n.node_id for n in replay.plan.nodes if _is_ready(replay, n)]
            _must(not ready, f"{where}: parked, although {ready} could run")
        if event in NODE_EVENTS and node_id is not None:
            self._follow_node(replay, event, node_id, where)
        if event is E.RUN_COMPLETED:
            _must(all(state is N.COMPLETED for state in replay.nodes), f"{where}: {replay.nodes}")

    def _follow_reap(self, replay: _Replay, where: str) -> None:
        """A run may be stopped as stale only when nothing of it is alive as far as is known."""
        for body in self._bodies.live:
            healthy = body.spec.run_id == replay.run_id and self.trusted(body)
            _must(not healthy, f"{where}: {body.spec.attempt_id} is alive")

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
            held = state is not N.BACKOFF and _is_held(replay, number)
            _must(not held, f"{where}: past the barrier of an earlier phase")
            running = replay.nodes.count(N.RUNNING)
            _must(running <= replay.plan.parallel, f"{where}: {running} nodes run at once")
        if event is E.NODE_STARTED:
            _must(not plan_node.is_parked, f"{where}: a gate or wait has no body")
            for other in _colliding(replay, number):
                _must(False, f"{where}: claims what node {other} claims, which runs")
        if event is E.NODE_COMPLETED and state is N.GATED:
            decided = any((end, node_id) in replay.in_change for end in _GATE_ENDS)
            _must(decided, f"{where}: past a gate that nobody decided")
        if event is E.NODE_COMPLETED and state is N.WAITING:
            woken = (E.WAIT_WOKEN, node_id) in replay.in_change
            _must(woken, f"{where}: past a wait that nothing woke")
        if event in _BY_HAND:
            _must(
                plan_node.kind is not NodeKind.APPROVAL,
                f"{where}: past an approval without a decision",
            )
        if event is E.NODE_REUSED:
            _must(E.RUN_FORKED_FROM in kinds, f"{where}: reused in a run that is no fork")
        if event is E.NODE_RESET:
            _must(bool(kinds & _RESETTING), f"{where}: nobody asked for the reset")

    def _compare(self, run_no: int, run: dict[str, Any] | None) -> None:
        """Compare the rows of one run with its events.

        Raises:
            Violation: they do not agree.
        """
        replay = self._replays[run_no]
        if run is None:
            self._check_deleted(run_no, replay)
            return
        what = f"run {run_no} ({run['status']}, epoch {run['epoch']})"
        _must(run["status"] == replay.status.value, f"{what}: replay gives {replay.status.value}")
        _must(run["event_seq"] == replay.seq, f"{what}: event_seq is not {replay.seq}")
        _must(run["epoch"] == replay.epoch, f"{what}: the claims gave epoch {replay.epoch}")
        _must(run["last_change_id"] == replay.change_id, f"{what}: newest change is another")
        head = (run["event_hash"] or b"").hex()
        _must(head == replay.chain.head, f"{what}: the chain of its events ends elsewhere")
        completed = replay.nodes.count(N.COMPLETED)
        _must(run["nodes_completed"] == completed, f"{what}: {completed} nodes are completed")
        spent = self._compare_nodes(run_no, replay, what)
        self._compare_usage(run, replay, spent, what)
        self._compare_rest(run, replay, what)

    def _check_deleted(self, run_no: int, replay: _Replay) -> None:
        what = f"run {run_no} ({replay.run_id})"
        _must(replay.run_id in self._deletable, f"{what} is gone and nobody deleted it")
        _must(replay.status in TERMINAL, f"{what} was deleted while {replay.status.value}")
        left = self._find(
            "SELECT (SELECT count(*) FROM lifecycle_event WHERE run_no = ?1)"
            " + (SELECT count(*) FROM gate WHERE run_no = ?1)"
            " + (SELECT count(*) FROM wait WHERE run_no = ?1)"
            " + (SELECT count(*) FROM artifact WHERE run_no = ?1)"
            " + (SELECT count(*) FROM learning_due WHERE run_no = ?1)"
            " + (SELECT count(*) FROM run_facts WHERE run_no = ?1)"
            " + (SELECT count(*) FROM archive_part WHERE run_no = ?1)"
            " + (SELECT count(*) FROM imported_run WHERE run_no = ?1)"
            " + (SELECT count(*) FROM node_run WHERE node_run_id >> 20 = ?1)"
            " + (SELECT count(*) FROM attempt WHERE attempt_no >> 32 = ?1) AS rows",
            run_no,
        )
        _must(left == [{"rows": 0}], f"{what} was deleted and left {left}")

    def _compare_usage(
        self, run: dict[str, Any], replay: _Replay, spent: Counter[str], what: str
    ) -> None:
        """The run is the sum of its attempts, and over its budget by one call at most."""
        for name in Usage.__struct_fields__:
            _must(run[name] == spent[name], f"{what}: {name} is {run[name]}, not {spent[name]}")
        driven = run["active_since_ms"] is not None
        _must(driven == (replay.status in DRIVEN), f"{what}: driven since {driven}")
        if not self.keeps_budgets or not self.all_ask(replay.run_id):
            return
        # One call of unknown size may be under way at a time; tools are counted before.
        if replay.tokens_max is not None:
            within = run["total_tokens"] < replay.tokens_max + CALL_TOKENS
            _must(within, f"{what}: {run['total_tokens']} of {replay.tokens_max} tokens")
        if replay.tool_calls_max is not None:
            within = run["tool_calls"] <= replay.tool_calls_max
            _must(within, f"{what}: {run['tool_calls']} of {replay.tool_calls_max} calls")

    def _compare_nodes(self, run_no: int, replay: _Replay, what: str) -> Counter[str]:
        first = run_no << NODE_BITS
        last = (run_no + 1 << NODE_BITS) - 1
        parts = self._find("SELECT rows FROM archive_part WHERE run_no = ? ORDER BY part", run_no)
        _must(not parts or replay.status in TERMINAL, f"{what}: goes on while it is packed")
        packed = unpack(part["rows"] for part in parts)
        here = self._find("SELECT * FROM node_run WHERE node_run_id BETWEEN ? AND ?", first, last)
        rows = {row["node_run_id"] - first: row for row in (*packed["node_run"], *here)}
        for number, state in enumerate(replay.nodes):
            stored = rows[number]["state"] if number in rows else N.PENDING.value
            _must(stored == state.value, f"{what}: node {number} is {stored}, not {state.value}")
        attempts = self._find(
            "SELECT attempt_no, outcome, ended_at_ms, usage FROM attempt"
            " WHERE attempt_no BETWEEN ? AND ?",
            first << ATTEMPT_BITS,
            (last + 1 << ATTEMPT_BITS) - 1,
        )
        counts: dict[int, int] = {}
        spent: Counter[str] = Counter()
        for row in (*packed["attempt"], *attempts):
            spent.update(msgspec.json.decode(row["usage"] or "{}"))
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
        return spent

    def _compare_rest(self, run: dict[str, Any], replay: _Replay, what: str) -> None:
        status = replay.status
        gates = self._find(
            "SELECT node_no FROM gate WHERE run_no = ? AND status = 'open'", run["run_no"]
        )
        waits = self._find(
            "SELECT * FROM wait WHERE run_no = ? AND status IN ('waiting', 'escalated')",
            run["run_no"],
        )
        gated = sorted(n for n, state in enumerate(replay.nodes) if state is N.GATED)
        waiting = sorted(n for n, state in enumerate(replay.nodes) if state is N.WAITING)
        if status not in TERMINAL:
            _must(sorted(g["node_no"] for g in gates) == gated, f"{what}: gates {gates}")
            _must(sorted(w["node_no"] for w in waits) == waiting, f"{what}: waits {waits}")
            for wait in waits:
                self._compare_wait(wait, what)
        holder = run["engine_id"] is not None
        _must(holder == (status in DRIVEN), f"{what}: held by {run['engine_id']}")
        _must(
            (run["finished_at_ms"] is not None) == (status in TERMINAL), f"{what}: finished_at_ms"
        )
        match status:
            case S.QUEUED:
                known = run["due_at_ms"] is not None or bool(run["resource_key"])
                _must(known, f"{what}: queued without a due moment or a key")
                _must(run["queued_at_ms"] is not None, f"{what}: queued since never")
            case S.RUNNING:
                _must(not self._is_paused(run), f"{what}: runs although its automation is paused")
            case S.AWAITING_APPROVAL:
                _must(bool(gates), f"{what}: awaits a gate that is not open")
            case S.PAUSED if run["parked"]:
                due = run["due_at_ms"] is not None or all(w["signal_key"] for w in waits)
                _must(due and bool(waits), f"{what}: parked with nothing that wakes it")
            case S.PAUSED:
                _must(not _may_spend(run, replay), f"{what}: rests although it may spend more")
            case S.COMPLETED | S.BLOCKED | S.FAILED | S.CANCELLED:
                _must(run["due_at_ms"] is None, f"{what}: ended, but due")
                if status in (S.COMPLETED, S.CANCELLED):
                    _must(not gates and not waits, f"{what}: ended, but {gates}, {waits} are open")
        if status not in DRIVEN:
            _must(N.RUNNING not in replay.nodes, f"{what}: a node runs without a driver")
        if status in TERMINAL and run["cleanup"] is None:
            left = [
                b
                for b in self._bodies.live
                if b.spec.run_id == replay.run_id and not (self.is_apart and _stood_still(b))
            ]
            _must(not left, f"{what}: bodies live on after its end: {[b.key for b in left]}")

    def _compare_wait(self, wait: dict[str, Any], what: str) -> None:
        """Check that something can wake the wait, and that it has not come already."""
        has_waker = wait["due_at_ms"] is not None or bool(wait["signal_key"])
        _must(has_waker, f"{what}: nothing can wake {wait['wait_id']}")
        came = self._find(
            "SELECT s.signal_no FROM signal_key AS k JOIN signal AS s USING (signal_no)"
            " WHERE k.signal_key = ? AND s.received_at_ms >= ? AND s.open_after IS NULL",
            wait["signal_key"],
            wait["accepts_since_ms"],
        )
        _must(not came, f"{what}: {wait['wait_id']} waits for what came already: {came}")

    # Bodies

    def body_started(self, body: Body) -> None:
        """Check that this body may run now.

        Raises:
            Violation: it may not.
        """
        spec = body.spec
        what = f"body {spec.attempt_id} (epoch {spec.epoch})"
        beyond = [other for other in self._bodies.live if self._is_beyond(other, body)]
        for other in self._bodies.live:
            _must(
                other.key != body.key or other in beyond,
                f"{what}: overlaps {other.spec.attempt_id}",
            )
        run = self._find("SELECT * FROM run WHERE run_id = ?", spec.run_id)[0]
        plan = self._plans[spec.run_id]
        count = sum(
            other.spec.run_id == spec.run_id for other in self._bodies.live if other not in beyond
        )
        _must(count < plan.parallel, f"{what}: {count} bodies run already")
        _must(run["epoch"] == spec.epoch, f"{what}: the run has epoch {run['epoch']}")
        _must(run["engine_id"] == spec.engine_id, f"{what}: {run['engine_id']} drives the run")
        number = plan.by_id[spec.node_id]
        found = self._find(
            "SELECT state, attempts FROM node_run WHERE node_run_id = ?",
            run["run_no"] << NODE_BITS | number,
        )
        started = found == [{"state": N.RUNNING.value, "attempts": spec.number}]
        _must(started, f"{what}: started before it was recorded: {found}")

    def _is_beyond(self, other: Body, body: Body) -> bool:
        """Say whether nobody could have ended `other` before `body` starts.

        Its engine stood still on another machine until a moment ago, so it could not see that its
        lease was over. One that merely cannot reach the store has to end its bodies in time.
        """
        return other.process.machine != body.process.machine and _stood_still(other)

    def body_reaped(self, body: Body) -> None:
        """Check that what is killed as a leftover is one.

        Raises:
            Violation: its engine is alive.
        """
        _must(not body.process.is_alive, f"{body.spec.attempt_id} was killed in a living engine")

    # Answers

    def has_change(self, change_id: str) -> bool:
        """Say whether any event of this change is on disk, or was until its run was packed."""
        sql = (
            "SELECT 1 FROM lifecycle_event WHERE change_id = ?1"
            " UNION ALL SELECT 1 FROM gone_event WHERE change_id = ?1 LIMIT 1"
        )
        return bool(self._find(sql, change_id))

    def has_signal(self, signal_no: int) -> bool:
        """Say whether a signal is on disk."""
        return bool(self._find("SELECT 1 FROM signal WHERE signal_no = ?", signal_no))

    def find(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        return self._find(sql, *values)

    def runs(self) -> list[dict[str, Any]]:
        """Return the rows of all runs."""
        return self._find("SELECT * FROM run ORDER BY run_no")


def _is_ready(replay: _Replay, plan_node: PlanNode) -> bool:
    if replay.nodes[plan_node.node_no] is not N.PENDING or _is_held(replay, plan_node.node_no):
        return False
    return all(replay.nodes[number] is N.COMPLETED for number in plan_node.depends_on)


def _may_spend(run: dict[str, Any], replay: _Replay) -> bool:
    """Say whether a run that stopped at its budget was allowed more, and to go on."""
    if run["stop_kind"] != StopKind.GUARDRAIL_STOPPED or not run["allowance"]:
        return False
    allowance = msgspec.json.decode(run["allowance"], type=Allowance)
    usage = Usage(**{name: run[name] for name in Usage.__struct_fields__})
    used = Used(runtime_ms=run["active_ms"], usage=usage)
    return allowance.resumes and not reached(used, allowed(replay.plan.budget, allowance))


def _stood_still(body: Body) -> bool:
    return body.process.is_frozen or body.process.was_frozen()


def _is_held(replay: _Replay, number: int) -> bool:
    phases = replay.plan.phases
    left = [0] * len(phases.sizes)
    for rank, state in zip(phases.ranks, replay.nodes, strict=True):
        if rank < len(left) and state is not N.COMPLETED:
            left[rank] += 1
    return is_held(phases.ranks[number], phases.limit(left))


def _colliding(replay: _Replay, number: int) -> list[int]:
    mine = replay.plan.lane(number).claims
    return [
        other
        for other, state in enumerate(replay.nodes)
        if other != number and state is N.RUNNING and mine.collide(replay.plan.lane(other).claims)
    ]


def _must(holds: bool, message: str) -> None:
    if not holds:
        raise Violation(message)


def _larger(limit: int | None, given: int | None) -> int | None:
    """Return the highest limit that a run ever had; one that began without any stays so."""
    return limit if limit is None or given is None else max(limit, given)
