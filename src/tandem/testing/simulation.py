"""One seeded world: engines on one store, users, faults, and the rules that must hold.

`simulate(seed)` builds the world, lets it go wrong for a while, then lets it calm down and demands
that every run comes to an end. The same seed gives the same events.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import apsw
import msgspec

from tandem.adapters.sql.statements import load_statements
from tandem.adapters.sqlite.reviewing import put_review
from tandem.adapters.sqlite.store import SqliteStore
from tandem.adapters.sqlite.tables import Found
from tandem.domain.automation_keeping import (
    AutomationCommand,
    PauseAutomation,
    ResumeAutomation,
    Save,
)
from tandem.domain.automation_review import Review
from tandem.domain.change import Change
from tandem.domain.command import (
    Allow,
    Cancel,
    Command,
    ContinueNode,
    DecideGate,
    Dispose,
    LossPolicy,
    NoteFork,
    Pause,
    Recover,
    Redeliver,
    Repair,
    Resume,
    RetryNode,
    SetOutput,
    Skip,
)
from tandem.domain.creation import NewRun
from tandem.domain.errors import EngineError, StoreUnavailable, StoreUnsure
from tandem.domain.firing import Fired, FiringPlan
from tandem.domain.gate_policy import GATE_EXPIRES_AFTER_MS
from tandem.domain.handoff import Handoff, Taken
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    Digest,
    NodeId,
    RunId,
    TenantId,
)
from tandem.domain.json import decode
from tandem.domain.lifecycle import TERMINAL, RunState
from tandem.domain.request_key import RequestKey
from tandem.domain.run import GatePurpose, GateStatus, Run
from tandem.domain.signal import Signal
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.view import RunView
from tandem.engine.engine import Engine
from tandem.engine.limits import Limits
from tandem.engine.recovery import RecoveryLimits
from tandem.ports.store import Delivered
from tandem.ports.webhooks import SettledDelivery, Settling
from tandem.testing.artifacts import Files, MemoryArtifacts, MemoryFiles
from tandem.testing.builders import (
    Story,
    ending_of,
    random_story,
    signals_of,
    with_budget,
)
from tandem.testing.clock import SimulatedClock
from tandem.testing.executor import Bodies, Body, Script, ScriptedExecutor
from tandem.testing.faults import Crashed, EngineDied, Fault, Faults, FaultyCommit
from tandem.testing.host import SimulatedHost, SimulatedMachine
from tandem.testing.ids import SeededIds
from tandem.testing.invariants import Invariants, Seen, Violation, keep_gone_events
from tandem.testing.loop import Process, SimulatedLoop
from tandem.testing.triggers import KEYED, STORED, Triggers

T = TypeVar("T")

RETENTION_MS = 400
CALM_S_MAX = 120.0
"""How long a world without faults may take until every run has ended, in simulated seconds."""
LEASE_MS = 3_000
SILENT_MS = 7_000
NOTICE_S = 1.0
"""How long an engine that stood still may take to see what happened in the meantime."""
CRASHES_MAX = 4
"""A node that takes its engine down five times fails, so that many would change how a run ends."""
HOUR_MS = 3_600_000
PAUSED_WORLDS = 0.2
"""The part of all worlds in which somebody pauses the automation."""
BUDGET_WORLDS = 0.3
"""The part of all worlds in which bodies spend, and runs may not spend all they like."""
TRIGGER_WORLDS = 0.25
"""The part of all worlds in which something starts runs by itself."""
TOUCHES = 0.05
"""How likely an engine dies beside a change of a file."""
SIMULATED = AutomationId("simulated")
_MEMORY = Path("/dev/shm")  # noqa: S108 # a folder of its own is made below it


class Broken(AssertionError):
    """A seed under which an invariant does not hold; the message repeats it in one line."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in a world."""

    seed: int
    events: list[Seen]
    crashes: int
    bodies: int
    callbacks: int
    simulated_s: float
    endings: list[RunState]
    triggers: list[str]
    """What started each of the runs."""


class EngineProcess(Process):
    """A process with one engine in it, from its start to its end or its death."""

    def __init__(self, name: str, loop: SimulatedLoop, machine: str) -> None:
        super().__init__(name, machine)
        self._loop = loop
        self.ready: asyncio.Future[Engine] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.stop = asyncio.Event()
        self.store: WatchedStore | None = None
        self.is_cut_off = False
        self._healthy_since_s = loop.now_s

    def is_trusted(self, span_s: float) -> bool:
        """Say whether this engine could do its work for that long."""
        ill = not self.is_alive or self.is_frozen or self.is_cut_off
        return not ill and self._loop.now_s - self._healthy_since_s >= span_s

    def recover(self) -> None:
        """Note that nothing is wrong with this process any more."""
        self.is_cut_off = False
        self._healthy_since_s = self._loop.now_s


class WatchedStore(SqliteStore):
    """The real store; what it answers is compared with what is on disk."""

    def __init__(
        self, path: Path, invariants: Invariants, faults: Faults, commit: FaultyCommit
    ) -> None:
        self._invariants = invariants
        self._faults = faults
        self.is_away: Callable[[], bool] = lambda: False
        self.on_lie: Callable[[str], None] = lambda _text: None
        self.on_new: Callable[[NewRun], None] = lambda _new: None
        super().__init__(path, synchronous="OFF", commit=commit)
        reopen = self.committer._reopen

        def reopen_when_it_can() -> apsw.Connection:
            faults.open()
            return reopen()

        self.committer._reopen = reopen_when_it_can

    def _find(self, name: str, *values: object) -> Found:
        self._may_read()
        return super()._find(name, *values)

    def read(self, run_id: RunId, *, tenant: TenantId) -> RunView:
        """See `Store.load`; it may fail."""
        self._may_read()
        return super().read(run_id, tenant=tenant)

    def _may_read(self) -> None:
        if self.is_away() or self._faults.fails_to_read():
            raise StoreUnavailable("the simulated disk cannot be read")

    async def create_run(self, new: NewRun, *, now_ms: int) -> Run:
        """See `Store.create_run`."""
        self._invariants.expect(new.run_id, new.plan)
        answer = super().create_run(new, now_ms=now_ms)
        if new.key is None:
            return await self._watch(answer, new.change_id)
        self._invariants.triggers.expect_key(new.key.key, new.run_id)
        self.on_new(new)
        return await answer

    async def fire(
        self, row: StoredAutomation, plan: FiringPlan, runs: Sequence[NewRun], **how: Any
    ) -> Fired:
        """See `Store.fire`."""
        for new in runs:
            self._expect(new)
        return await super().fire(row, plan, runs, **how)

    async def take_handoff(
        self, row: StoredAutomation, handoff: Handoff, new: NewRun | None, **how: Any
    ) -> Taken:
        """See `Store.take_handoff`."""
        if new is not None:
            self._expect(new)
        return await super().take_handoff(row, handoff, new, **how)

    async def settle_delivery(
        self, delivery_id: str, settling: Settling, **how: Any
    ) -> SettledDelivery | None:
        """See `Store.settle_delivery`."""
        if settling.run is not None:
            self._expect(settling.run)
        return await super().settle_delivery(delivery_id, settling, **how)

    def _expect(self, new: NewRun) -> None:
        self._invariants.expect(new.run_id, new.plan)
        self.on_new(new)

    def apply(self, change: Change) -> Awaitable[None]:
        """See `Store.apply`."""
        written = super().apply(change)
        if isinstance(written, asyncio.Future):
            written.add_done_callback(lambda done: self._applied(done, change.change_id))
        return written

    def _applied(self, done: asyncio.Future[None], change_id: ChangeId) -> None:
        if not done.cancelled():
            self._compare(done.exception(), change_id)

    async def execute(
        self,
        run_id: RunId,
        command: Command,
        *,
        tenant: TenantId,
        change_id: ChangeId,
        now_ms: int,
        key: RequestKey | None = None,
    ) -> Change:
        """See `Store.execute`."""
        return await self._watch(
            super().execute(
                run_id, command, tenant=tenant, change_id=change_id, now_ms=now_ms, key=key
            ),
            change_id,
        )

    async def deliver(
        self, signal: Signal, *, tenant: TenantId, change_id: ChangeId, now_ms: int
    ) -> Delivered:
        """See `Store.deliver`."""
        found = await super().deliver(signal, tenant=tenant, change_id=change_id, now_ms=now_ms)
        if not self._invariants.has_signal(found.signal_no):
            self.on_lie(f"signal {found.signal_no} was acknowledged and is not on disk")
        return found

    async def fork(self, run_id: RunId, node_id: NodeId, **how: Any) -> Run:
        """See `Store.fork`."""
        self._invariants.expect_fork(how["fork"], run_id)
        return await self._watch(super().fork(run_id, node_id, **how), how["change_id"])

    async def delete_run(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Digest]:
        """See `Store.delete_run`."""
        self._invariants.expect_deletion(run_id)
        left = await super().delete_run(run_id, tenant=tenant)
        if any(row["run_id"] == run_id for row in self._invariants.runs()):
            self.on_lie(f"the deletion of run {run_id} was acknowledged and it is there")
        return left

    async def _watch(self, answer: Coroutine[Any, Any, T], change_id: ChangeId) -> T:
        try:
            result = await answer
        except EngineError as error:
            self._compare(error, change_id)
            raise
        self._compare(None, change_id)
        return result

    def _compare(self, error: BaseException | None, change_id: ChangeId) -> None:
        if error is None and not self._invariants.has_change(change_id):
            self.on_lie(f"change {change_id} was acknowledged and is not on disk")
        is_said = isinstance(error, EngineError) and not isinstance(error, StoreUnsure)
        if is_said and self._invariants.has_change(change_id):
            self.on_lie(f"change {change_id} is on disk, but: {error}")


class World:
    """Everything of one seed. `gentle` worlds have no command that changes how runs end."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = Random(seed)
        self.loop = SimulatedLoop(Random(self.random.random()))
        self.clock = SimulatedClock(self.loop)
        self.path = folder / "tandem.db"
        shutil.copyfile(_template(), self.path)
        self.bodies = Bodies(Random(self.random.random()))
        self.invariants = Invariants(self.path, self.bodies)
        self.bodies.started = self._guarded(self.invariants.body_started)
        self.bodies.reaped = self._guarded(self.invariants.body_reaped)
        self.machine = SimulatedMachine(
            self.loop, Random(self.random.random()), loses=self.random.choice((0, 0, 0.3, 1))
        )
        self.artifacts = MemoryArtifacts()
        self.files: Files = {}
        self.faults = Faults(
            self._draw_faults(),
            read_failures=self.random.choice((0, 0, 0.02, 0.2)),
            random=Random(self.random.random()),
        )
        self.ids = SeededIds(Random(self.random.random()))
        self.gentle = self.random.random() < 0.6
        kind = self.random.choices(("plain", "far", "hung", "apart"), (75, 5, 10, 10))[0]
        self.is_ill = kind in ("hung", "apart")
        """Processes stand still or lose the store for a while."""
        self.is_apart = self.invariants.is_apart = kind in ("far", "apart")
        """Each engine has a machine of its own."""
        self.gentle = self.gentle and kind != "hung"
        self.bodies.leaves_some = not self.is_apart
        # Not drawn: what was found in other worlds stays there.
        retention_ms = RETENTION_MS if seed % 3 == 0 else 0
        self.limits = msgspec.structs.replace(self._draw_limits(), retention_ms=retention_ms)
        self.invariants.limit(self.limits.runs_max, self.limits.runs_total_max)
        self.invariants.auto_resumes_max = self.limits.recovery.auto_resumes_max
        # An engine that works says so several times in this span.
        self.invariants.trusted = lambda body: body.process.is_trusted(LEASE_MS / 1_000)  # type: ignore[attr-defined]
        self.stories: dict[RunId, Story] = {}
        self.scripts: dict[tuple[str, str], Script] = {}
        self.processes: list[EngineProcess] = []
        self.violation: BaseException | None = None
        self.crashes = 0
        self.is_calm = False
        # A source of its own: worlds without a pause stay what their seeds made them.
        self._pauses = Random(f"automation {seed}")
        self._pauses_automation = self._pauses.random() < PAUSED_WORLDS
        self._budgets = Random(f"budget {seed}")
        self._has_budgets = self._budgets.random() < BUDGET_WORLDS
        self._triggers = Random(f"triggers {seed}")
        self._has_triggers = self._triggers.random() < TRIGGER_WORLDS
        self.triggers = Triggers(self, self._triggers)
        self._grace_ms = self._triggers.choice((300, 60_000))
        # An engine that stood still may have spent what the next one does not know of.
        self.invariants.all_ask = self._all_ask
        self.invariants.keeps_budgets = not self.is_ill and not self.is_apart
        self._born = 0
        self._jumped_ms = 0
        self._sent = 0
        self.loop.set_exception_handler(self._callback_failed)

    def _draw_limits(self) -> Limits:
        """Draw how the engines are set up; gentle worlds have what changes no ending."""
        policies = tuple(LossPolicy) if not self.gentle else (LossPolicy.RESUME,)
        stale_after_ms = 600_000 if self.gentle else self.random.choice((4_000, 4_000, 600_000))
        return Limits(
            runs_max=self.random.choice((1, 2, 8)),
            runs_total_max=self.random.choice((None, None, 1, 3)),
            inline_bytes_max=self.random.choice((8, 16_384)),
            lease_ms=LEASE_MS,
            shutdown_grace_ms=self.random.choice((0, 0, 40, 2_000)),
            shutdown_policy=self.random.choice(policies),
            shutdown_timeout_ms=3_000,
            store_is_shared=self.is_apart,
            recovery=RecoveryLimits(
                restart_policy=self.random.choice(policies),
                stale_after_ms=stale_after_ms,
                auto_resume_window_ms=self.random.choice((1_000, 1_200_000)),
                auto_resumes_max=self.random.choice((1, 2)),
            ),
        )

    def _draw_faults(self) -> Mapping[int, Fault]:
        count = self.random.choice((0, 1, 2, 4))
        kinds = list(Fault)
        return {self.random.randint(2, 60): self.random.choice(kinds) for _ in range(count)}

    def _all_ask(self, run_id: str) -> bool:
        story = self.stories.get(RunId(run_id))
        return story is not None and all(script.asks for script in story.scripts.values())

    # Judging

    def break_off(self, error: BaseException) -> None:
        """Remember the first thing that must not happen, and stop the world."""
        if self.violation is None:
            self.violation = _first(error)
            self.loop.stop()

    def _guarded(self, check: Callable[[Body], None]) -> Callable[[Body], None]:
        def guarded(body: Body) -> None:
            try:
                check(body)
            except Violation as violation:
                self.break_off(violation)

        return guarded

    def _committed(self) -> None:
        try:
            self.invariants.check()
        except Violation as violation:
            self.break_off(violation)

    def _callback_failed(self, _loop: object, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Crashed | OSError):
            self.break_off(error or Violation(str(context.get("message"))))

    # Processes

    def boot(self, name: str) -> EngineProcess:
        """Start an engine in a process of its own."""
        self._born += 1
        machine = f"machine-{name}" if self.is_apart else "machine"
        process = EngineProcess(f"{name}-{self._born}", self.loop, machine)
        self.processes.append(process)
        self.loop.spawn(process, self._live(process), name=process.name)
        return process

    async def _live(self, process: EngineProcess) -> None:
        commit = FaultyCommit(
            self.faults, die=lambda: self.kill(process), committed=self._committed
        )
        store = WatchedStore(self.path, self.invariants, self.faults, commit)
        store.on_new = self.triggers.created
        commit.is_away = store.is_away = lambda: process.is_cut_off
        store.on_lie = lambda text: self.break_off(Violation(text))
        process.store = store
        engine = Engine(
            store=store,
            executor=ScriptedExecutor(self.bodies, self.scripts, process, self.clock),
            artifacts=self.artifacts,
            files=MemoryFiles(self.files, self.clock, lambda: self._touch(process)),
            host=SimulatedHost(self.machine, process),
            clock=self.clock,
            ids=self.ids,
            scratch_root="/nowhere",
            limits=self._limits_of(process),
        )
        try:
            async with engine:
                process.ready.set_result(engine)
                await process.stop.wait()
        except EngineError:
            pass  # the store failed at its start or end; the process ends with an error
        except Exception as error:  # noqa: BLE001 # an engine that falls over is a finding
            self.break_off(error)
        left = [body.key for body in self.bodies.live if body.process is process]
        if left and process.is_alive:
            self.break_off(Violation(f"bodies outlive {process.name}, which stopped: {left}"))
        self._bury(process)

    def _limits_of(self, process: EngineProcess) -> Limits:
        """Only the engines of the first name have a label."""
        labels = ("first",) if process.name.startswith("a-") else ()
        return msgspec.structs.replace(self.limits, labels=labels, schedule_grace_ms=self._grace_ms)

    def kill(self, process: EngineProcess) -> None:
        """Kill a process: nothing of it runs from now on, nothing it had in mind is kept."""
        if not process.is_alive:
            return
        self.crashes += 1
        # Not at once: this may be called from deep inside of the dying process.
        process.is_alive = False
        self.loop.call_soon(self._bury, process, context=Context())

    def _touch(self, process: EngineProcess) -> None:
        """Let a process die between two steps of its files."""
        if self.is_calm or self.crashes >= CRASHES_MAX or self._triggers.random() >= TOUCHES:
            return
        self.kill(process)
        raise Crashed

    def _bury(self, process: EngineProcess) -> None:
        process.is_alive = False
        process.held.clear()
        self.bodies.bury(process)
        if process.store is not None:
            with suppress(apsw.Error, OSError):
                process.store.close()
        if not process.ready.done():
            process.ready.cancel()
        if not process.gone.done():
            process.gone.set_result(None)

    async def keep(self, name: str) -> None:
        """Restart the engine of this name whenever it is gone, some time later."""
        while True:
            process = self.boot(name)
            await process.gone
            if self.is_calm:
                await self.clock.sleep(10)
            else:
                await self.clock.sleep(self.random.choice((0, 20, 300, 1_500)))

    def living(self) -> list[EngineProcess]:
        """Return the processes whose engine answers."""
        return [
            p
            for p in self.processes
            if p.is_alive and p.ready.done() and not p.stop.is_set() and not p.is_frozen
        ]

    async def ask(
        self, process: EngineProcess, question: Callable[[Engine], Coroutine[Any, Any, T]]
    ) -> T:
        """Ask an engine from within its process.

        Raises:
            EngineDied: it died before it answered.
            EngineError: its answer.
        """
        engine = process.ready.result()
        answer = self.loop.spawn(process, question(engine), name="question")
        await asyncio.wait({answer, process.gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise EngineDied(process.name)
        try:
            return answer.result()  # type: ignore[no-any-return]
        except (apsw.ConnectionClosedError, Crashed):
            raise EngineDied(process.name) from None

    # Users

    async def start_run(self, story: Story) -> None:
        """Have a run of this story created by some engine, however often that takes."""
        while True:
            living = self.living()
            if not living:
                await self.clock.sleep(20)
                continue
            process = self.random.choice(living)
            # An engine refuses to have a run for itself that needs what it has not.
            owned = (
                self.random.random() < 0.3
                and not story.automation.resources_of(story.automation.nodes[0]).labels
            )
            before = {run["run_id"] for run in self.invariants.runs()}
            try:
                run = await self.ask(process, partial(self._start, story=story, owned=owned))
            except EngineDied:
                # Nobody knows whether it was created; a user looks.
                created = {run["run_id"] for run in self.invariants.runs()} - before
                if created & self.stories.keys():
                    return
            except EngineError:
                await self.clock.sleep(50)
            else:
                if all(
                    row["run_id"] != run.run_id for row in self.invariants.runs()
                ) and not self.invariants.may_be_gone(run.run_id):
                    raise Violation(f"run {run.run_id} was acknowledged and is lost")
                if self.random.random() < 0.1:
                    process.stop.set()  # while the run is being claimed
                return

    async def _start(self, engine: Engine, story: Story, *, owned: bool) -> Run:
        # The bodies of a run may start before its id is told.
        known = self.ids.peek()
        run_id = RunId(f"automation-v2-run-{known}")
        self.stories[run_id] = story
        for name, script in story.scripts.items():
            self.scripts[run_id, name] = script
        return await engine.start(story.automation, workspace=story.workspace, owned=owned)

    async def _interfere(self) -> None:
        """Do one thing that users, operators and bad luck do."""
        living = self.living()
        runs = self.invariants.runs()
        what = self.random.choices(
            ("kill", "stop", "jump", "signal", "freeze", "cut", "command", "fork", "delete"),
            (
                *(2, 2, 1, 2),
                *((8, 4) if self.is_ill else (0, 0)),
                *((12, 1, 0 if self.gentle else 1) if runs else (0, 0, 0)),
            ),
        )[0]
        if what == "jump":
            self.jump(self.random.choice((-HOUR_MS, HOUR_MS, -500, 500)))
        elif not living:
            return
        elif what == "kill" and self.crashes < CRASHES_MAX:
            self.kill(self.random.choice(living))
        elif what in ("freeze", "cut") and self.crashes < CRASHES_MAX:
            # It may cost the engine its runs, as a crash does.
            self.crashes += 1
            self.disturb(self.random.choice(living), freezes=what == "freeze")
        elif what == "stop":
            self.random.choice(living).stop.set()
        elif what == "signal":
            await self.signal(self.random.choice(living), self.random.random())
        elif what == "command":
            run_id = RunId(self.random.choice(runs)["run_id"])
            command = self.random.choice(commands_of(self, run_id, self._draw_node(run_id)))
            await self.command(self.random.choice(living), run_id, command)
        elif what == "fork":
            run_id = RunId(self.random.choice(runs)["run_id"])
            await self.fork(self.random.choice(living), run_id, self._draw_node(run_id))
        elif what == "delete":
            run_id = RunId(self.random.choice(runs)["run_id"])
            await self.delete(self.random.choice(living), run_id)

    def disturb(self, process: EngineProcess, *, freezes: bool) -> None:
        """Let a process stand still, or take its store away, for a while."""
        if freezes:
            process.is_frozen = True
        else:
            process.is_cut_off = True
        span_s = self.random.choice((0.3, 2.0, 5.0, 15.0, 15.0))
        self.loop.call_later(span_s, self._release, process)

    def _release(self, process: EngineProcess) -> None:
        if process.is_frozen:
            noticed_at_s = self.loop.now_s + NOTICE_S
            process.was_frozen = lambda: self.loop.now_s < noticed_at_s
        if process.is_frozen or process.is_cut_off:
            process.recover()
            self.loop.thaw(process)

    def _draw_node(self, run_id: RunId) -> NodeId:
        return self.random.choice(self.nodes_of(run_id))

    def nodes_of(self, run_id: RunId) -> list[NodeId]:
        """Return the nodes of a run."""
        return [NodeId(node.node_id) for node in self.stories[run_id].automation.flow.nodes]

    async def command(self, process: EngineProcess, run_id: RunId, command: Command) -> None:
        """Ask something of a run; a refusal is an answer too."""
        with suppress(EngineDied, EngineError):
            await self.ask(process, lambda engine: engine.execute(run_id, command))

    async def signal(self, process: EngineProcess, choice: float) -> None:
        """Send what one of the waits needs, perhaps before there is such a wait."""
        signals = [s for story in self.stories.values() for s in signals_of(story).values()]
        if signals:
            await self._send(process, signals[int(choice * len(signals))])

    async def _send(self, process: EngineProcess, signal: Signal) -> None:
        self._sent += 1
        numbered = msgspec.structs.replace(signal, idempotency_key=f"key-{self._sent}")
        with suppress(EngineDied, EngineError):
            await self.ask(process, lambda engine: engine.signal(numbered))

    async def fork(self, process: EngineProcess, source: RunId, node_id: NodeId) -> None:
        """Fork a run; its bodies do what those of the source do."""

        async def fork(engine: Engine) -> Run:
            run_id = RunId(f"automation-v2-run-{self.ids.peek()}")
            story = self.stories[run_id] = self.stories[source]
            for name, script in story.scripts.items():
                self.scripts[run_id, name] = script
            return await engine.fork(source, node_id, asks_again=self.random.random() < 0.5)

        with suppress(EngineDied, EngineError):
            await self.ask(process, fork)

    async def delete(self, process: EngineProcess, run_id: RunId) -> None:
        """Delete a run; while it goes on that is refused."""
        with suppress(EngineDied, EngineError):
            await self.ask(process, lambda engine: engine.delete(run_id))

    def jump(self, span_ms: int) -> None:
        """Set the wall clock; it is set right again when the world calms down."""
        self._jumped_ms += span_ms
        self.clock.jump_ms(span_ms)

    async def _pause_automation(self) -> None:
        """Save the automation of all runs, then pause it and let it go on a few times."""
        save = Save(
            definition_digest=DefinitionDigest("sha256:0"), name="simulated", creator_id="user"
        )
        commands: list[AutomationCommand] = [save]
        for _ in range(self._pauses.choice((1, 2, 3))):
            commands += [PauseAutomation(by="user"), ResumeAutomation(by="user")]
        for command in commands:
            await self.clock.sleep(self._pauses.choice((0, 5, 60, 400)))
            await self._ask_automation(command)

    async def _raise_budgets(self) -> None:
        """Allow runs more, or hardly more, at any moment."""
        if self._budgets.random() < 0.4:
            await self._allow_at_the_stop()
        for _ in range(self._budgets.choice((0, 1, 4, 8))):
            await self.clock.sleep(self._budgets.choice((0, 3, 40, 200, 900)))
            runs, living = self.invariants.runs(), self.living()
            if runs and living:
                row = self._budgets.choice(runs)
                command = self._more(
                    row, self._budgets.choice((0, 1, 5)), resume=self._budgets.random() < 0.7
                )
                await self.command(self._budgets.choice(living), RunId(row["run_id"]), command)

    async def _allow_at_the_stop(self) -> None:
        """Allow a run more while it comes to rest at its budget; then its engine dies."""
        for _ in range(200):
            await self.clock.sleep(2)
            living = self.living()
            stopping = [r for r in self.invariants.runs() if r["status"] == RunState.PAUSING.value]
            if not stopping or not living:
                continue
            (row, *_) = stopping
            command = self._more(row, 5, resume=True)
            await self.command(living[0], RunId(row["run_id"]), command)
            for process in living:
                if process.ready.result().engine_id == row["engine_id"]:
                    self.kill(process)
            return

    def _more(self, row: Mapping[str, Any], calls: int, *, resume: bool) -> Allow:
        """Return the command that lets a run make so many more calls."""
        elapsed_ms = self.clock.now_ms() - (row["started_at_ms"] or self.clock.now_ms())
        return Allow(
            reason="simulated",
            max_total_tokens=row["total_tokens"] + 100 * calls,
            max_total_tool_calls=row["tool_calls"] + calls,
            max_total_runtime_ms=max(elapsed_ms, row["active_ms"]) + 60_000 * calls,
            resume=resume,
        )

    async def _ask_automation(self, command: AutomationCommand) -> None:
        living = self.living()
        if living:
            with suppress(EngineDied, EngineError):
                await self.ask(
                    self._pauses.choice(living),
                    lambda engine: engine.execute_on_automation(SIMULATED, command),
                )

    async def _help(self) -> bool:
        """Do what the runs wait for; return whether all of them have come to their end."""
        ended = True
        if self._pauses_automation:
            await self._ask_automation(ResumeAutomation(by="user"))
        if self.invariants.follows_triggers:
            ended = await self.triggers.settle()
        for row in self.invariants.runs():
            status = RunState(row["status"])
            if status in TERMINAL and row["cleanup"] is None:
                continue
            ended = False
            living = self.living()
            if not living:
                continue
            process, run_id = self.random.choice(living), RunId(row["run_id"])
            if status is RunState.PAUSED and not row["parked"]:
                if self._has_budgets:
                    await self.command(process, run_id, self._more(row, 100, resume=True))
                await self.command(process, run_id, Resume())
            await self._decide_gates(process, run_id)
            await self._send_signals(process, run_id)
            if status is not RunState.AWAITING_APPROVAL:
                self._pass_time(row)
        return ended

    async def _decide_gates(self, process: EngineProcess, run_id: RunId) -> None:
        store = process.store
        if store is None or not process.is_alive:
            return
        gates = store.list_gates(
            tenant=LOCAL_TENANT, status=GateStatus.OPEN, run_id=run_id, limit=100
        )
        for found in gates:
            gate = found.gate
            command = DecideGate(decision="approve", gate_id=gate.gate_id)
            if gate.purpose is GatePurpose.OUTCOME_UNKNOWN:
                output = self.bodies.successes.get((run_id, gate.node_id))
                command = DecideGate(
                    decision="retry" if output is None else "done",
                    gate_id=gate.gate_id,
                    output=None if output is None else msgspec.json.encode(output),
                )
            await self.command(process, run_id, command)

    async def _send_signals(self, process: EngineProcess, run_id: RunId) -> None:
        if process.store is None or not process.is_alive or run_id not in self.stories:
            return
        signals = signals_of(self.stories[run_id])
        if not signals:
            return
        view = process.store.read(run_id, tenant=LOCAL_TENANT)
        for wait in view.waits.values():
            if wait.node_id in signals:
                await self._send(process, signals[wait.node_id])

    def _pass_time(self, row: Mapping[str, Any]) -> None:
        """Let hours pass for a run that rests until a far moment; a gate's expiry is no such."""
        due_at_ms = row["due_at_ms"]
        far_ms = 0 if due_at_ms is None else due_at_ms - self.clock.now_ms()
        if 5_000 < far_ms < GATE_EXPIRES_AFTER_MS / 2:
            self.clock.jump_ms(far_ms)

    # The story

    def _draw_story(self) -> Story:
        """Draw a run; in ill worlds some bodies are silent for longer than a run may be."""
        story = random_story(self.random)
        if self._has_budgets:
            story = with_budget(self._budgets, story)
        if not self.is_ill or (self.gentle and self.random.random() < 0.5):
            return story
        limited = {n.node_id for n in story.automation.flow.nodes if n.timeout_ms}
        scripts = {
            name: msgspec.structs.replace(script, duration_ms=SILENT_MS)
            if name not in limited and self.random.random() < 0.3
            else script
            for name, script in story.scripts.items()
        }
        return msgspec.structs.replace(story, scripts=scripts)

    async def run(self) -> None:
        """Live through the whole seed."""
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(self.keep(name)) for name in self._draw_names()]
            await self._go_wrong(group)
            await self.calm_down()
            if not self.gentle:
                await self._take_up_again()
            for keeper in keepers:
                keeper.cancel()
        await self.stop_all()
        self.invariants.check_all()
        self.triggers.check_end()
        self._compare_endings()

    def _draw_names(self) -> list[str]:
        return ["a", "b"] if self.is_ill or self.random.random() < 0.8 else ["a"]

    async def _go_wrong(self, group: asyncio.TaskGroup) -> None:
        starting = [
            group.create_task(self.start_run(self._draw_story()))
            for _ in range(self.random.choice((1, 1, 2, 3)))
        ]
        if self._pauses_automation:
            starting.append(group.create_task(self._pause_automation()))
        if self._has_budgets:
            starting.append(group.create_task(self._raise_budgets()))
        if self._has_triggers:
            starting.append(group.create_task(self.triggers.live()))
        for _ in range(self.random.choice((0, 2, 5, 10))):
            await self.clock.sleep(self.random.choice((0, 1, 7, 40, 150, 600)))
            await self._interfere()
            if any(process.is_frozen or process.is_cut_off for process in self.processes):
                await self.clock.sleep(self.random.choice((0, 3_500, 9_000, 9_000)))
        await asyncio.wait(starting)

    async def _take_up_again(self) -> None:
        """Ask something of runs that have ended; what is taken up comes to its end again."""
        for _ in range(self.random.choice((0, 1, 3))):
            runs, living = self.invariants.runs(), self.living()
            if runs and living:
                run_id = RunId(self.random.choice(runs)["run_id"])
                command = self.random.choice(commands_of(self, run_id, self._draw_node(run_id)))
                await self.command(self.random.choice(living), run_id, command)
                await self.clock.sleep(self.random.choice((0, 5, 300)))
        self._jumped_ms = 0
        await self.calm_down()

    async def calm_down(self) -> None:
        """Let nothing go wrong from here on; every run must come to its end.

        Raises:
            Violation: one does not.
        """
        self.is_calm = True
        self.faults.clear()
        for process in self.processes:
            self._release(process)
        self.clock.jump_ms(-self._jumped_ms)
        deadline_s = self.loop.now_s + CALM_S_MAX
        while not await self._help():
            if self.loop.now_s > deadline_s:
                waiting = [
                    (
                        run["run_id"],
                        run["status"],
                        run["detail"],
                        run["engine_id"],
                        run["due_at_ms"],
                    )
                    for run in self.invariants.runs()
                    if run["status"] not in TERMINAL or run["cleanup"]
                ]
                raise Violation(f"runs hang without a reason: {waiting} {self.triggers.left()}")
            await self.clock.sleep(100)

    async def stop_all(self) -> None:
        """Stop every engine.

        Raises:
            Violation: one does not stop.
        """
        for process in self.processes:
            if process.is_alive:
                process.stop.set()
        gone = [process.gone for process in self.processes]
        _, pending = await asyncio.wait(gone, timeout=60)
        if pending:
            raise Violation("an engine does not stop")

    def _compare_endings(self) -> None:
        if not self.gentle:
            return
        store = SqliteStore(self.path, synchronous="OFF")
        try:
            self._compare_endings_with(store)
        finally:
            store.close()

    def _compare_endings_with(self, store: SqliteStore) -> None:
        for row in self.invariants.runs():
            run_id = RunId(row["run_id"])
            ending = ending_of(self.stories[run_id])
            if row["status"] != ending.status.value:
                raise Violation(
                    f"run {run_id} ended {row['status']} ({row['detail']}), "
                    f"undisturbed it ends {ending.status.value}"
                )
            if ending.status is RunState.COMPLETED:
                outputs = self._outputs(store.read(run_id, tenant=LOCAL_TENANT))
                if outputs != ending.outputs:
                    raise Violation(f"run {run_id} has outputs {outputs}, not {ending.outputs}")

    def _outputs(self, view: RunView) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self.stories[view.run.run_id].scripts:
            node = view.node(view.plan.by_id[name])  # type: ignore[index] # a NodeId
            if node.output is not None:
                found[name] = decode(node.output)
            elif node.output_ref is not None:
                found[name] = decode(self.artifacts.get(LOCAL_TENANT, node.output_ref))
        return found


def commands_of(world: World, run_id: RunId, node_id: NodeId) -> list[Command]:
    """Return what people may ask of a run of this world, and of one of its nodes."""
    kinds: list[Command] = [
        Pause(),
        Pause(now=True),
        Resume(),
        DecideGate(decision="approve"),
        DecideGate(decision="approve", transition_id="of another asking"),
        Dispose(node_id=node_id, disposition=world.random.choice(("ok", "deny", "clear"))),
    ]
    if not world.gentle:
        kinds += [
            Cancel(),
            Recover(),
            RetryNode(node_id=node_id),
            RetryNode(node_id=node_id, requeue=True),
            ContinueNode(node_id=node_id),
            Repair(node_id=node_id),
            Repair(node_id=node_id, action={"kind": "command", "argv": ["false"]}),
            Skip(node_id=node_id, reason="simulated"),
            SetOutput(node_id=node_id, output=b'{"value":"set"}', reason="simulated"),
            Redeliver(),
            NoteFork(fork=RunId(f"{run_id}-fork"), node_id=node_id),
            DecideGate(decision="rework"),
            DecideGate(decision="cancel"),
            DecideGate(decision="retry"),
            DecideGate(decision="done", output=b'{"value":"by hand"}'),
        ]
    return kinds


@contextmanager
def open_world(seed: int) -> Iterator[World]:
    """Make the world of one seed; leaving it ends everything in it."""
    with _folder() as folder:
        world = World(seed, folder)
        try:
            yield world
        finally:
            for process in world.processes:
                process.is_alive = False
                if process.store is not None:
                    with suppress(apsw.Error, OSError):
                        process.store.close()
            world.loop.dispose()
            world.invariants.close()


def simulate(seed: int, judge: Callable[[World], None] = lambda _world: None) -> Report:
    """Run the world of one seed; `judge` looks at what is left of it.

    Raises:
        Broken: an invariant or `judge` does not hold; the message repeats the seed in one line.
    """
    with open_world(seed) as world:
        try:
            world.loop.run_until_complete(world.run())
            judge(world)
        except BaseException as error:
            cause = world.violation or _first(error)
            if not isinstance(cause, Exception):
                raise
            raise Broken(f"{_repeat(seed)}\n{type(cause).__name__}: {cause}") from cause
        return Report(
            seed=seed,
            events=world.invariants.events,
            crashes=world.crashes,
            bodies=len(world.bodies.all),
            callbacks=world.loop.callbacks,
            simulated_s=world.loop.now_s,
            endings=[RunState(run["status"]) for run in world.invariants.runs()],
            triggers=[run["trigger_type"] for run in world.invariants.runs()],
        )


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _repeat(seed: int) -> str:
    return f"TANDEM_SIM_SEED={seed} .venv/bin/python -m pytest tests/sim -k one_seed"


@contextmanager
def _folder() -> Iterator[Path]:
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tandem-sim-", dir=parent) as name:
        yield Path(name)


@cache
def _template() -> Path:
    """Return a store with its tables and nothing in it, made once in this process."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-sim-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "tandem.db"
    store = SqliteStore(path, synchronous="OFF")
    keep_gone_events(store.committer.connection)
    # The ends of all simulated runs are counted.
    for automation_id in (SIMULATED, KEYED, *STORED):
        counted = Review(
            tenant=LOCAL_TENANT,
            automation_id=automation_id,
            runs_max=0,
            created_at_ms=0,
            updated_at_ms=0,
        )
        put_review(store.committer.connection, load_statements(), counted)
    store.close()
    return path
