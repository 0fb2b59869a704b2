"""What people are told before a command is what it does, whatever state the run is in.

Random runs are brought into random states by bodies, time and people. Before every command its
preview is taken; then the command is given, and what it did is compared with what was told. Now and
then a copy of the run is driven on by somebody who answers everything and whose bodies all end
well: it has to come to an end, and what was to run again must have run.
"""

import copy
from random import Random
from typing import Any

import msgspec
import pytest

from tandem.domain.accounting import is_skipped
from tandem.domain.command import (
    Adopt,
    Allow,
    Cancel,
    Command,
    ContinueNode,
    DecideGate,
    Dispose,
    HandBack,
    Panic,
    Pause,
    ProcessesEnded,
    Reap,
    Recover,
    Redeliver,
    Repair,
    ResolveWait,
    Resume,
    RetryNode,
    SetOutput,
    Skip,
    Wake,
)
from tandem.domain.decision import decide
from tandem.domain.draft import Draft
from tandem.domain.errors import EngineError
from tandem.domain.forking import begin, new_run, reused_nodes
from tandem.domain.gates import newest_settled
from tandem.domain.guardrail import is_stopped
from tandem.domain.ids import ChangeId, NodeId, RunId
from tandem.domain.lifecycle import DRIVEN, TERMINAL, NodeState, RunState
from tandem.domain.node import Effects
from tandem.domain.outcome import REVIEW_NOT_APPROVED, Blocked
from tandem.domain.partial_failure import stops_starts
from tandem.domain.preview import ResetPreview, preview
from tandem.domain.reading import Reading
from tandem.domain.reset import has_run
from tandem.domain.standing import EngineFacts, Situation, explain
from tandem.domain.view import RunView
from tandem.testing.builders import condition_node, gate_node, python_node, timer_node
from tandem.testing.tale import ENGINE, Tale

N, S = NodeState, RunState

SEEDS = 10
RUNS_PER_SEED = 20
STEPS = 40
DRIVEN_STEPS_MAX = 400
HOUR_MS = 3_600_000


def random_nodes(random: Random, *, phases: bool) -> list[dict[str, Any]]:
    """Return up to seven nodes of all kinds, which react to failure in all ways."""
    names = [f"n{number}" for number in range(random.choice((1, 2, 3, 4, 5, 7)))]
    nodes: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        depends_on = random.sample(names[:number], min(number, random.choice((0, 1, 1, 2))))
        kind = random.choices(("body", "gate", "timer", "condition"), (8, 2, 1, 1))[0]
        if kind == "gate":
            gate: dict[str, Any] = {"required": True}
            if random.random() < 0.4 and number:
                gate["rework_targets"] = random.sample(names[:number], 1)
            if random.random() < 0.2:
                gate["expiry_policy"] = {"expires_after_ms": 500, "on_expiry": "resume"}
            gate["decisions"] = ["approve", "rework", "cancel"]
            node = gate_node(name, *depends_on, gate=gate)
        elif kind == "timer":
            node = timer_node(name, *depends_on, delay_ms=random.choice((1, 700)))
        elif kind == "condition":
            node = condition_node(name, *depends_on, key=name)
        else:
            node = python_node(
                name,
                *depends_on,
                effects=random.choice(("none", "none", "external", "workspace")),
                retry_policy={"max_attempts": random.choice((1, 1, 2, 3))},
            )
            if depends_on and random.random() < 0.15:
                node["stage_kind"] = "review"
            if random.random() < 0.15:
                node["retry_policy"]["terminal_behavior"] = {"mode": "pause_for_review"}
        node["metadata"] = {"builder": {}}
        if random.random() < 0.4:
            mode = random.choice(("pause_all", "continue_independent"))
            node["metadata"]["partial_failure_mode"] = mode
        if kind == "body" and random.random() < 0.15:
            node["metadata"]["triage_gate"] = True
        if phases:
            node["metadata"]["builder"]["phase_id"] = "one" if number < len(names) / 2 else "two"
        nodes.append(node)
    return nodes


class Operated:
    """A run that people, bodies and time do things to, and what its bodies were given."""

    def __init__(self, random: Random, tale: Tale) -> None:
        self.random = random
        self.tale = tale
        self.given: dict[int, dict[int, bytes | None]] = {}
        """What the newest attempt of each node was given, by the nodes before it."""
        self.gone: set[bytes] = set()
        """Outputs that do not count any more."""
        self.begun: list[int] = []
        """Nodes that ran, asked or waited, in order."""

    def copy(self) -> "Operated":
        """Return a copy that can be driven on by itself."""
        tale = copy.copy(self.tale)
        for name, value in vars(tale).items():
            if isinstance(value, list | dict):
                setattr(tale, name, value.copy())
        before = self.tale.view
        tale.view = RunView(
            msgspec.structs.replace(before.run),
            before.plan,
            before.nodes.values(),
            tale.gates_left(),
            tale.waits_left(),
        )
        made = Operated(Random(1), tale)
        made.given, made.gone = dict(self.given), set(self.gone)
        return made

    # What happens

    def note(self, before: dict[int, Any]) -> None:
        """See what the newest step started and took back."""
        view = self.tale.view
        for number, node in view.nodes.items():
            was = before.get(number)
            old = (was.output if was is not None else None) or b""
            if old != node.output and old.startswith((b'"n', b'"by hand')):
                self.gone.add(old)
            asked = was.gates if was is not None else 0
            tried = was.attempts if was is not None else 0
            assert node.attempts >= tried
            assert node.gates >= asked
            if node.attempts > tried:
                deps = view.plan.nodes[number].depends_on
                self.given[number] = {n: view.node(n).output for n in deps}
                for n in deps:
                    assert view.node(n).state is N.COMPLETED
                    assert view.node(n).output not in self.gone
            if node.attempts > tried or node.gates > asked:
                self.begun.append(number)

    def do(self, act: Any) -> Any:
        before = dict(self.tale.view.nodes)
        usage = self.tale.run.usage
        done = act()
        self.note(before)
        assert self.tale.run.usage.total_tokens >= usage.total_tokens
        assert self.tale.run.nodes_total == len(self.tale.view.plan)
        return done

    def end_body(self, *, well: bool = False) -> None:
        tale, view = self.tale, self.tale.view
        number = self.random.choice(sorted(view.running))
        name = view.plan.nodes[number].node_id
        token = (
            f'"{name}/{tale.run.run_id}/{view.node(number).attempts}/{len(tale.changes)}"'.encode()
        )
        how = self.random.choices(
            ("succeed", "fail", "repair", "block", "reject", "stop"), (8, 2, 1, 1, 1, 1)
        )[0]
        if self.random.random() < 0.5:
            tale.spend(name, total_tokens=self.random.choice((0, 10, 40)))
        if well or how == "succeed":
            triage = view.plan.nodes[number].is_triage_gate and self.random.random() < 0.5
            read = {"reading": Reading(has_work=False)} if triage else {}
            self.do(lambda: tale.succeed(name, token, **read))
        elif how == "fail":
            self.do(lambda: tale.fail(name))
        elif how == "repair":
            self.do(lambda: tale.repair(name))
        elif how == "stop":
            self.do(lambda: tale.stop(name))
        else:
            kind = REVIEW_NOT_APPROVED if how == "reject" else "stuck"
            outcome = Blocked(kind=kind, reason="no")
            self.do(lambda: tale.settle(name, outcome, output=token))

    def step(self) -> None:
        """Let one thing happen."""
        if self.random.random() < 0.6:
            self.pass_by()
        else:
            self.ask()

    def pass_by(self) -> None:
        """Let bodies, engines and time do something."""
        tale, run = self.tale, self.tale.run
        if run.cleanup and run.status not in DRIVEN:
            self.do(lambda: tale.command(ProcessesEnded(engine_id=ENGINE)))
        elif run.status is S.QUEUED:
            assert run.due_at_ms is not None
            tale.now_ms = max(tale.now_ms, run.due_at_ms)
            self.do(tale.claim)
        elif run.status in DRIVEN and self.random.random() < 0.04:
            self.lose()
        elif run.status in DRIVEN:
            if run.pause_mode == "now" and tale.view.running:
                name = tale.view.plan.nodes[min(tale.view.running)].node_id
                self.do(lambda: tale.stop(name))
            elif tale.view.running and self.random.random() < 0.8:
                self.end_body()
            else:
                tale.now_ms += self.random.choice((0, 100, 1_000))
                self.do(tale.advance)
        else:
            tale.now_ms += self.random.choice((0, 100, 1_000))
            self.wake()

    def lose(self) -> None:
        """Let the engine die, stop or show no life."""
        tale, run = self.tale, self.tale.run
        quiet = 10 * HOUR_MS
        lost: Command = self.random.choice(
            (
                Adopt(dead=ENGINE),
                HandBack(engine_id=ENGINE),
                Panic(engine_id=ENGINE, reason="ours"),
                Reap(
                    stale_after_ms=1,
                    seen_change_id=run.last_change_id,
                    seen_activity_at_ms=run.activity_at_ms,
                ),
            )
        )
        if isinstance(lost, Reap):
            tale.now_ms += quiet
        self.do(lambda: tale.command(lost))

    def wake(self) -> None:
        run = self.tale.run
        parked = run.status is S.AWAITING_APPROVAL or bool(run.parked)
        if parked and run.due_at_ms is not None and run.due_at_ms <= self.tale.now_ms:
            self.do(lambda: self.tale.command(Wake()))

    # Somebody who answers everything

    def drive_to_end(self) -> None:
        """Let every body end well and answer whatever is asked, until the run has ended."""
        for _ in range(DRIVEN_STEPS_MAX):
            if self.tale.status in TERMINAL and not self.tale.run.cleanup:
                return
            self.answer()
        raise AssertionError(f"it comes to no end: {self.tale.status} {self.tale.states()}")

    def answer(self) -> None:
        tale, run = self.tale, self.tale.run
        self.check_why()
        if run.cleanup and run.status not in DRIVEN:
            self.do(lambda: tale.command(ProcessesEnded(engine_id=ENGINE)))
        elif run.status is S.QUEUED:
            assert run.due_at_ms is not None
            tale.now_ms = max(tale.now_ms, run.due_at_ms)
            self.do(tale.claim)
        elif run.status in DRIVEN:
            if tale.view.running:
                self.end_body(well=True)
            else:
                tale.now_ms = max(tale.now_ms, tale.view.next_due_at_ms(tale.now_ms) or 0)
                assert self.do(tale.advance) is not None, "nothing runs and nothing happens"
        elif run.status is S.AWAITING_APPROVAL:
            gate = min(tale.open_gates(), key=lambda g: (g.requested_at_ms, g.gate_id))
            word = "approve" if "approve" in gate.decisions else "done"
            if gate.expires_at_ms is not None and gate.expires_at_ms <= tale.now_ms:
                tale.now_ms = max(tale.now_ms, run.due_at_ms or 0)
                self.wake()
            else:
                done = DecideGate(decision=word, gate_id=gate.gate_id, output=b'"done"')
                self.do(lambda: tale.command(done))
        elif run.parked:
            wait = tale.open_waits()[0]
            if run.due_at_ms is not None and not wait.signal_key:
                tale.now_ms = max(tale.now_ms, run.due_at_ms)
                self.wake()
            else:
                came = ResolveWait(idempotency_key="k", wait_id=wait.wait_id)
                self.do(lambda: tale.command(came))
        elif is_stopped(run):
            self.allow()
        else:
            self.allow()
            self.do(lambda: tale.command(Resume()))

    def allow(self) -> None:
        """Give the run more than it can spend; one that has spent all goes on by that alone."""
        more = Allow(reason="more", max_total_tokens=10**9)
        self.do(lambda: self.tale.command(more))

    def check_why(self) -> None:
        tale = self.tale
        told = explain(
            Situation(
                run=tale.run,
                now_ms=tale.now_ms,
                gates=tale.open_gates(),
                waits=tale.open_waits(),
                events=tale.events[::-1],
                engines=[EngineFacts(engine_id=ENGINE, is_alive=True)],
            )
        )
        assert told.sentence
        if tale.status not in (*DRIVEN, *TERMINAL):
            assert told.freed_by, told

    def check_inputs(self) -> None:
        """What a completed run's bodies were given is what the nodes before them have now."""
        view = self.tale.view
        assert view.run.status is S.COMPLETED
        for number, node in view.nodes.items():
            by_hand = node.handling is not None and node.handling.by_hand
            is_done = node.output is not None and node.output.startswith(b'"n')
            if by_hand or not is_done or not node.attempts:
                continue
            now = {n: view.node(n).output for n in view.plan.nodes[number].depends_on}
            assert self.given[number] == now, view.plan.nodes[number].node_id

    # What people ask

    def command(self) -> Command:
        random, view = self.random, self.tale.view
        node = NodeId(random.choice(view.plan.nodes).node_id)
        gates = list(self.tale.gates.values())
        asked = random.choice(gates).gate_id if gates and random.random() < 0.5 else None
        decision = random.choice(("approve", "rework", "rework", "cancel", "done", "retry"))
        choices: list[tuple[Command, int]] = [
            (Pause(), 2),
            (Pause(now=True), 2),
            (Resume(), 3),
            (Cancel(), 1),
            (Recover(), 4),
            (Repair(node_id=node), 2),
            (Repair(node_id=node, inputs={"x": random.randint(0, 9)}), 1),
            (RetryNode(node_id=node), 4),
            (RetryNode(node_id=node, requeue=True), 1),
            (ContinueNode(node_id=node), 2),
            (Skip(node_id=node, reason="no need"), 3),
            (
                SetOutput(
                    node_id=node, output=b'"by hand %d"' % random.getrandbits(30), reason="r"
                ),
                3,
            ),
            (Dispose(node_id=node, disposition="ok"), 1),
            (Redeliver(), 2),
            (Allow(reason="more", max_total_tokens=random.choice((1, 10**6))), 1),
            (DecideGate(decision=decision, gate_id=asked), 2),
            (DecideGate(decision=decision, node_id=node), 2),
            (DecideGate(decision="rework"), 2),
        ]
        commands, weights = zip(*choices, strict=True)
        return random.choices(commands, weights)[0]

    def ask(self) -> None:
        tale = self.tale
        command = self.command()
        frozen = snapshot(tale.view)
        tale.view.settled_gates = newest_settled(tale.gates.values())
        told: ResetPreview | EngineError
        try:
            told = preview(tale.view, command, now_ms=tale.now_ms)
        except EngineError as error:
            told = error
        assert snapshot(tale.view) == frozen
        before, count = self.copy(), len(tale.changes)
        refusal: EngineError | None = None
        try:
            self.do(lambda: tale.command(command))
        except EngineError as error:
            refusal = error
        if refusal is not None:
            assert snapshot(tale.view) == frozen
            assert len(tale.changes) == count
            assert words(told) == words(refusal), command
            return
        change = tale.changes[-1]
        assert isinstance(told, ResetPreview), (command, told)
        if change.denial is not None:
            assert words(told) == (change.denial.code, change.denial.message)
            return
        assert told.refusal is None, (command, told)
        self.compare(before, told, command)
        self.check_twice(command)
        self.look_ahead(before, told, command)

    def compare(self, before: "Operated", told: ResetPreview, command: Command) -> None:
        """Compare what was told with what is now."""
        old, new = before.tale.view, self.tale.view
        name = {p.node_no: p.node_id for p in new.plan.nodes}
        reset = {
            name[n]
            for n in name
            if new.node(n).state is N.PENDING and old.node(n).state not in (N.PENDING, N.RUNNING)
        }
        superseded = {
            name[n]
            for n in name
            if old.node(n).output is not None and new.node(n).output != old.node(n).output
        }
        assert told.status_after == new.run.status.value
        assert reset <= set(told.reset_nodes), (command, told)
        assert all(new.node(new.plan.by_id[NodeId(n)]).state is N.PENDING for n in told.reset_nodes)
        assert superseded == set(told.superseded_outputs), (command, told)
        assert new.run.event_seq > old.run.event_seq
        left = {name[gone.node_no] for gone in self.tale.changes[-1].invalidated}
        assert reset | superseded <= left, (command, left)

    def check_twice(self, command: Command) -> None:
        """The same once more is refused, or says that it is done."""
        if isinstance(command, Allow):
            return
        if isinstance(command, DecideGate) and command.gate_id is None:
            return  # it means whatever gate is open next
        tale = self.tale
        tale.view.settled_gates = newest_settled(tale.gates.values())
        frozen = snapshot(tale.view)
        try:
            again = decide(tale.view, command, change_id=ChangeId("again"), now_ms=tale.now_ms)
        except EngineError:
            assert snapshot(tale.view) == frozen
            return
        assert again.denial is not None, ("obeyed twice", command)

    def look_ahead(self, before: "Operated", told: ResetPreview, command: Command) -> None:
        """Drive a copy on: it comes to an end, and what was told happens."""
        ahead = self.copy()
        ahead.drive_to_end()
        plan = ahead.tale.view.plan
        by_name = {p.node_id: p.node_no for p in plan.nodes}
        goes_on = self.tale.status not in TERMINAL and ahead.tale.status is not S.CANCELLED
        if told.reset_nodes and goes_on:
            ran = {plan.nodes[n].node_id for n in ahead.begun}
            left = set(told.reset_nodes) - ran
            for node_id in sorted(left):
                if is_skipped(ahead.tale.node(node_id)):
                    continue  # there was nothing to do
                state = ahead.tale.states()[node_id]
                halted = [
                    p.node_id
                    for p in plan.nodes
                    if ahead.tale.view.node(p.node_no).state in (N.FAILED, N.BLOCKED)
                    and (
                        by_name[node_id] in plan.with_descendants([p.node_no])
                        or stops_starts(Draft(ahead.tale.view, change_id=ChangeId(""), now_ms=0))
                        or plan.phases.ranks[p.node_no] < plan.phases.ranks[by_name[node_id]]
                    )
                ]
                assert halted, ("was to run again and did not", node_id, state, command)
        was = before.tale.view
        again = {
            plan.nodes[n].node_id
            for n in ahead.begun
            if plan.nodes[n].node.effective_effects is Effects.EXTERNAL
            and has_run(was.node(n))
            and was.node(n).state not in (N.PENDING, N.BACKOFF, N.RUNNING, N.GATED)
        }
        assert again <= set(told.effects), (command, told, again)
        for _ in range(6):
            if ahead.tale.status is S.COMPLETED:
                break
            if ahead.tale.status is S.CANCELLED:
                return
            ahead.allow()
            ahead.do(lambda: ahead.tale.command(Recover()))
            ahead.drive_to_end()
        assert ahead.tale.status is S.COMPLETED, ahead.tale.states()
        ahead.check_inputs()

    def fork(self) -> None:
        """Fork the run: what is taken over never runs, and all the rest does."""
        source, random = self.tale.view, self.random
        node = NodeId(random.choice(source.plan.nodes).node_id)
        asks_again = random.random() < 0.5
        reused = reused_nodes(source, node, asks_again=asks_again)
        run = new_run(
            source, run_id=RunId("fork"), inputs={}, owner=None, change_id=ChangeId("f"), now_ms=1
        )
        fork = Tale.__new__(Tale)
        vars(fork).update(vars(Tale(*[python_node("x")])))
        fork.view = RunView(run, source.plan)
        fork._nodes = [N.PENDING] * len(source.plan)
        fork.now_ms = self.tale.now_ms
        change = begin(
            fork.view,
            source,
            node,
            asks_again=asks_again,
            artifacts=(),
            change_id=ChangeId("f2"),
            now_ms=fork.now_ms,
        )
        fork._add(change)
        made = Operated(random, fork)
        assert set(fork.view.nodes) == set(reused)
        made.copy().check_fork(reused)
        for _ in range(STEPS // 4):
            made.step()

    def check_fork(self, reused: list[int]) -> None:
        made, fork = self, self.tale
        made.drive_to_end()
        assert fork.status is S.COMPLETED, fork.states()
        assert not set(made.begun) & set(reused)
        made.check_inputs()


def words(told: ResetPreview | EngineError) -> tuple[str, str]:
    """Return with which code and words a command is refused; empty ones when it is not."""
    if isinstance(told, EngineError):
        return told.code, str(told)
    refusal = told.refusal
    return ("", "") if refusal is None else (refusal.code, refusal.message)


def snapshot(view: RunView) -> bytes:
    """Return everything that a refused command must leave alone."""
    return msgspec.json.encode(
        [view.run, list(view.nodes.values()), list(view.gates.values()), list(view.waits.values())]
    )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_told_before_a_command_is_what_it_does(seed: int) -> None:
    for number in range(RUNS_PER_SEED):
        story(seed * 1_000 + number)


def story(seed: int) -> None:
    random = Random(seed)
    phases = [{"phase_id": name, "execution_mode": "barrier"} for name in ("one", "two")]
    has_phases = random.random() < 0.3
    tale = Tale(
        *random_nodes(random, phases=has_phases),
        parallel=random.choice((1, 2, 4)),
        limits={"max_total_tokens": random.choice((None, None, 60))},
        metadata={"mission": {"phases": phases}} if has_phases else {},
        inputs={"type": "object", "properties": {"x": {"type": "integer", "default": 0}}},
    )
    operated = Operated(random, tale)
    for _ in range(STEPS):
        if random.random() < 0.98:
            operated.step()
        else:
            operated.fork()
