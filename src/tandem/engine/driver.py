"""The driver of one claimed run: start what is ready, settle what ended, park, finish.

It owns the run's attempts. Every step is decided by `domain.driving`, written, and only then acted
upon; a write that is refused makes it read the run again and decide again with the outcomes that
it already holds, so the result of a finished body is never dropped.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial

from tandem.domain.artifact import ArtifactRef
from tandem.domain.budget import active_ms_of, fits, reached, used_by
from tandem.domain.change import Change
from tandem.domain.command import Account, Command, HandBack, LossPolicy, ProcessesEnded
from tandem.domain.driving import advance
from tandem.domain.errors import ChangeRefused, LeaseLost, NotFound, Refused, StoreUnavailable
from tandem.domain.gate_policy import GatePolicy
from tandem.domain.graph import PlanNode
from tandem.domain.guardrail import is_stopped
from tandem.domain.ids import ChangeId, EngineId, RunId
from tandem.domain.json import JsonValue
from tandem.domain.lifecycle import DRIVEN, NodeState, RunState
from tandem.domain.operating import PAUSE_NOW
from tandem.domain.outcome import Failed, FailureClass, Stopped
from tandem.domain.overrun import budget_for
from tandem.domain.run import Attempt, Run, RuntimeClock
from tandem.domain.settling import Settled
from tandem.domain.start_check import Obstacle
from tandem.domain.starting import fail_start
from tandem.domain.usage import USED_MAX, Spent, Usage
from tandem.domain.view import RunView
from tandem.engine.attempts import AttemptRunner
from tandem.engine.leases import OwnLease
from tandem.engine.meter import AttemptMeter, Key, Ledger
from tandem.ports.clock import Clock
from tandem.ports.store import Store

STORE_RETRY_MS = 200
SETTLE_TRIES = 5
REST_MAX_MS = 5_000
"""The wall clock may be set while a driver rests, so it looks again this often."""

Announce = Callable[[RunView, Change], None]
Report = Callable[[RunId, str, str, str], None]


class Driver:
    """Drives one run until it parks, ends, is taken away, or the engine stops."""

    def __init__(
        self,
        view: RunView,
        *,
        engine_id: EngineId,
        store: Store,
        runner: AttemptRunner,
        clock: Clock,
        new_change_id: Callable[[], ChangeId],
        gate_policy: GatePolicy,
        announce: Announce,
        report: Report,
        complain: Callable[[str], None],
        lease: OwnLease,
        usd_per_1k_tokens: float = 0.0,
    ) -> None:
        self.view = view
        self._engine_id = engine_id
        self._store = store
        self._runner = runner
        self._clock = clock
        self._new_change_id = new_change_id
        self._gate_policy = gate_policy
        self._announce = announce
        self._report = report
        self._complain = complain
        self._lease = lease
        self._is_store_away = False
        self.epoch = view.run.epoch
        """The number of the claim under which it drives."""
        self._settled: list[Settled] = []
        self._ledger = Ledger(
            clock=clock,
            reached=self._reached,
            fits=lambda more: fits(self.view.run.usage.plus(more), budget_for(self.view)),
            usd_per_1k_tokens=usd_per_1k_tokens,
            told=lambda: self.poke(stale=False),
            overflowed=self._tell_overflow,
        )
        # By a clock that nobody can set: a budget of runtime is not spent by setting the other one.
        self._active_before_ms = active_ms_of(view.run, until_ms=clock.now_ms())
        self._driven_since_ms = clock.ticks_ms()
        self._looked_at_ms = 0
        self._attempts: dict[Key, asyncio.Task[None]] = {}
        self._called_off: set[Key] = set()
        """The attempts that this driver has cancelled, as far as they live."""
        self._meters: dict[Key, AttemptMeter] = {}
        self._wake = asyncio.Event()
        self._is_stale = False
        self._is_stopping = False
        self._is_checked = False
        self._is_draining = False
        self._policy = LossPolicy.RESUME

    def poke(self, *, stale: bool = True) -> None:
        """Say that the run has changed in the store, or that the time has come to look."""
        self._is_stale = self._is_stale or stale
        self._wake.set()

    @property
    def is_active(self) -> bool:
        """Whether a body of the run is alive, or its outcome waits to be written."""
        return bool(self._attempts or self._settled)

    def drain(self, policy: LossPolicy) -> None:
        """Start nothing new, and let go of the run when its last attempt has ended."""
        self._is_draining = True
        self._policy = policy
        self._wake.set()

    def hand_back(self, policy: LossPolicy = LossPolicy.RESUME) -> None:
        """End the attempts and let go of the run as `policy` says; for an engine that stops."""
        self._is_stopping = True
        self._policy = policy
        self._wake.set()

    async def drive(self) -> None:
        """Drive the run; returns when this engine has nothing more to do with it."""
        async with asyncio.TaskGroup() as group:
            try:
                await self._drive(group)
            finally:
                # Whatever the reason: no body outlives its driver.
                await self._stop_attempts()
        await self._account_rest()
        await self._confirm_cleanup()

    async def _drive(self, group: asyncio.TaskGroup) -> None:
        while self._is_mine(self.view.run):
            if self._is_stopping:
                await self._give_back()
                return
            try:
                if self._is_stale:
                    await self._reload()
                    continue
                change = await self._step()
            except ChangeRefused:
                self._is_stale = True
                continue
            except LeaseLost:
                return
            except StoreUnavailable as error:
                # Nothing was written. The outcomes are kept, and the engine's lease decides how
                # long this may go on.
                await self._wait_for_store(error)
                self._is_stale = True
                continue
            self._is_store_away = False
            if change is not None:
                self._begin(group, change)
            await self._bury_stopped()
            await self._keep_budget()
            if self._is_draining and not self.is_active:
                self._is_stopping = True
            if self.view.run.status in DRIVEN:
                await self._rest()

    async def _wait_for_store(self, error: StoreUnavailable) -> None:
        """Say once for each outage what the run waits for, then let some time pass."""
        if not self._is_store_away:
            self._complain(f"run {self.view.run.run_id} waits for the store: {error}")
        self._is_store_away = True
        await self._clock.sleep(STORE_RETRY_MS)

    async def _step(self) -> Change | None:
        obstacle = self._obstacle()
        if obstacle is not None:
            failed = fail_start(
                self.view,
                obstacle,
                change_id=self._new_change_id(),
                now_ms=self._clock.now_ms(),
            )
            await self._write(failed)
            return failed
        taken, spent = len(self._settled), self._ledger.unwritten()
        self._looked_at_ms = self._clock.now_ms()
        change = advance(
            self.view,
            settled=self._settled,
            facts=self._runner.facts(self.view),
            engine_id=self._engine_id,
            change_id=self._new_change_id(),
            now_ms=self._looked_at_ms,
            policy=self._gate_policy,
            read_large=self._read_large,
            starts=not self._is_draining,
            spent=spent,
            notes_usage=self._ledger.write_in_ms == 0,
            active_ms=self._active_ms,
        )
        if change is None:
            # What is left are outcomes of attempts that no longer count.
            del self._settled[:taken]
            return None
        await self._write(change, settles=taken, spent=spent)
        return change

    async def _write(
        self, change: Change, *, settles: int = 0, spent: Sequence[Spent] = ()
    ) -> None:
        await self._store.apply(change)
        del self._settled[:settles]
        self.view.apply(change)
        if spent:
            self._ledger.written(spent)
        self._announce(self.view, change)
        if any(wait.signal_key for wait in change.waits):
            # A signal that came before may have woken the wait in the same transaction.
            self._is_stale = True
        if any((a.node_no, a.number) in self._attempts for a in change.attempts_ended):
            # A rollback took back what was running: its bodies do not count any more.
            self._end_forgotten()

    def _obstacle(self) -> Obstacle | None:
        """Check once, before anything starts, whether the run can."""
        if self._is_checked or self.view.run.status is not RunState.RUNNING:
            return None
        obstacle = self._runner.obstacle_to(self.view)
        self._is_checked = obstacle is None
        return obstacle

    def _read_large(self, ref: ArtifactRef) -> JsonValue:
        return self._runner.read_large(self.view, ref)

    async def _reload(self) -> None:
        self._is_stale = False
        run = self.view.run
        fresh = self._store.find_run(run.run_id, tenant=run.tenant)
        if fresh is None:
            raise LeaseLost(f"run {run.run_id} is gone from the store")
        if fresh.last_change_id == run.last_change_id:
            return
        self.view = await self._store.load(run.run_id, tenant=run.tenant)
        self._end_forgotten()
        await self._bury_stopped()
        self._ledger.look_again()
        if self.view.run.pause_mode == PAUSE_NOW:
            await self._cut_short()

    async def _cut_short(self, only: Collection[Key] | None = None) -> None:
        """End attempts of a run that is to pause at once; those that have ended count.

        The run stays `pausing`, and nobody else can claim it, until the bodies are dead.
        """
        await self._stop_attempts(only)
        ended = {(item.node_no, item.number) for item in self._settled}
        for node_no in sorted(self.view.running):
            key = node_no, self.view.node(node_no).attempts
            if key not in ended and (only is None or key in only):
                outcome = Stopped(reason=self.view.run.pause_reason)
                self._settled.append(Settled(node_no=key[0], number=key[1], outcome=outcome))

    # The budget

    async def _keep_budget(self) -> None:
        """End what may not go on in a run that was stopped at its budget.

        What asks before it spends ends itself at its next call, or lands without one.
        """
        run = self.view.run
        if run.status is not RunState.PAUSING or not is_stopped(run):
            return
        if run.pause_mode == PAUSE_NOW:
            await self._cut_short()
            return
        rude = {key for key, meter in self._meters.items() if not meter.asks}
        if rude:
            await self._cut_short(rude)

    @property
    def _active_ms(self) -> int:
        return self._active_before_ms + self._clock.ticks_ms() - self._driven_since_ms

    def _tell_overflow(self) -> None:
        self._complain(
            f"run {self.view.run.run_id} reports more usage than can be counted; "
            f"a count stays at {USED_MAX}, look at what its bodies report"
        )

    def _reached(self, more: Usage) -> str:
        budget = budget_for(self.view)
        if budget.is_unlimited:
            return ""
        now_ms = self._clock.now_ms()
        used = used_by(self.view.run, now_ms=now_ms, active_ms=self._active_ms, more=more)
        return reached(used, budget)

    def _runtime_left_ms(self) -> int | None:
        """Return how long the run may still be driven; None for any time."""
        run, limit = self.view.run, budget_for(self.view).runtime_ms
        if limit is None or run.status is not RunState.RUNNING:
            return None
        used = used_by(run, now_ms=self._clock.now_ms(), active_ms=self._active_ms)
        return max(limit - used.runtime_ms, 1)

    async def _account_rest(self) -> None:
        """Count what was spent and not written, also when the run is not ours any more (W-21)."""
        spent = self._ledger.unwritten()
        if spent and await self._execute(Account(spent=spent)):
            self._ledger.written(spent)

    # Attempts

    async def _bury_stopped(self) -> None:
        """Wait for bodies that a reset stopped: the run may not end before they are dead."""
        if dying := self._dying:
            await asyncio.wait(dying)

    @property
    def _dying(self) -> list[asyncio.Task[None]]:
        """The attempts that were called off and live.

        A task that is being cancelled need not be one: whoever has a limit of its own cancels
        itself, and goes on.
        """
        return [self._attempts[key] for key in self._called_off]

    def _end_forgotten(self) -> None:
        """Cancel the attempts that the stored run does not know as running any more."""
        for key in self._attempts:
            node = self.view.node(key[0])
            if node.state is not NodeState.RUNNING or node.attempts != key[1]:
                self._call_off(key)

    async def _rest(self) -> None:
        """Wait until an attempt ends, somebody pokes, or a moment is due."""
        if self._settled or self._is_stale or self._is_stopping:
            return
        due_at_ms, spans_ms = self.view.next_due_at_ms(self._looked_at_ms), []
        if due_at_ms is not None:
            spans_ms.append(min(max(due_at_ms - self._clock.now_ms(), 1), REST_MAX_MS))
        left_ms, write_in_ms = self._runtime_left_ms(), self._ledger.write_in_ms
        if left_ms is not None:
            is_wall = self.view.run.runtime_clock is RuntimeClock.WALL
            spans_ms.append(min(left_ms, REST_MAX_MS) if is_wall else left_ms)
        if write_in_ms is not None:
            spans_ms.append(write_in_ms)
        if not spans_ms:
            await self._wake.wait()
        else:
            span_ms = min(spans_ms)
            with suppress(TimeoutError):
                async with self._clock.deadline(span_ms):
                    await self._wake.wait()
        self._wake.clear()

    def _begin(self, group: asyncio.TaskGroup, change: Change) -> None:
        if not change.attempts_started:
            return
        living: dict[int, list[asyncio.Task[None]]] = {}
        for (node_no, _), task in self._attempts.items():
            living.setdefault(node_no, []).append(task)
        for attempt in change.attempts_started:
            plan_node = self.view.plan.nodes[attempt.node_no]
            older = [*living.get(attempt.node_no, ()), *self._dying]
            key = attempt.node_no, attempt.number
            task = group.create_task(
                self._attempt(plan_node, attempt, older), name=attempt.attempt_id
            )
            self._attempts[key] = task
            # One that is called off before it begins never comes to forget itself.
            task.add_done_callback(partial(self._forget, key))

    async def _attempt(
        self, plan_node: PlanNode, attempt: Attempt, older: list[asyncio.Task[None]]
    ) -> None:
        run_id, key = self.view.run.run_id, (attempt.node_no, attempt.number)
        meter = self._meters[key] = self._ledger.meter(
            key, node_id=plan_node.node_id, tool_calls_max=plan_node.node.max_tool_calls
        )

        def report(kind: str, text: str = "") -> None:
            self._report(run_id, plan_node.node_id, kind, text)

        try:
            if older:
                # Bodies that a reset stopped still hold their places and files until they are dead,
                # and two bodies of one node never overlap.
                await asyncio.wait(older)
            if not await self._still_counts(attempt):
                self.poke()
                return
            settled = await self._runner.run(
                self.view, plan_node, number=attempt.number, report=report, meter=meter
            )
        except asyncio.CancelledError:
            if key in self._called_off:
                raise
            # The body cancelled the task that it runs in. Nobody else would ever hear of its end.
            settled = Settled(
                node_no=attempt.node_no,
                number=attempt.number,
                outcome=Failed(
                    failure_class=FailureClass.EXECUTION_ERROR,
                    message="the body cancelled its own task",
                ),
            )
        except Exception as error:  # noqa: BLE001 # the boundary that records the outcome
            settled = Settled(
                node_no=attempt.node_no,
                number=attempt.number,
                outcome=Failed(
                    failure_class=FailureClass.EXECUTION_ERROR,
                    message=f"node execution panicked: {type(error).__name__}: {error}",
                ),
            )
        finally:
            self._forget(key)
            self._meters.pop(key, None)
            self._ledger.close(meter)
        self._settled.append(settled)
        self._wake.set()

    def _forget(self, key: Key, _task: object = None) -> None:
        self._attempts.pop(key, None)
        self._called_off.discard(key)

    async def _still_counts(self, attempt: Attempt) -> bool:
        """Say whether the body of an attempt may begin, in the step in which it begins.

        A command may have taken the attempt back since it was written; and while this process stood
        still, its lease may have gone by, and others may have gone on. It is ours until somebody
        looks, but nothing starts before the lease is renewed and the store can be read.
        """
        while True:
            with suppress(StoreUnavailable):
                if not self._store.is_attempt_running(self.view.run.run_no, attempt):
                    return False
                if self._lease.left_ms:
                    return True
            await self._clock.sleep(STORE_RETRY_MS)

    async def _stop_attempts(self, only: Collection[Key] | None = None) -> None:
        keys = [key for key in self._attempts if only is None or key in only]
        tasks = [self._call_off(key) for key in keys]
        if tasks:
            await asyncio.wait(tasks)

    def _call_off(self, key: Key) -> asyncio.Task[None]:
        task = self._attempts[key]
        self._called_off.add(key)
        task.cancel()
        return task

    def _is_mine(self, run: Run) -> bool:
        return run.status in DRIVEN and run.engine_id == self._engine_id and run.epoch == self.epoch

    async def _give_back(self) -> None:
        await self._stop_attempts()
        await self._write_settled()
        await self._account_rest()
        await self._execute(HandBack(engine_id=self._engine_id, policy=self._policy))

    async def _write_settled(self) -> None:
        """Write the outcomes that came in last; a finished body is not run twice for a stop."""
        self._is_draining = True
        for _ in range(SETTLE_TRIES):
            if not self._settled or not self._is_mine(self.view.run):
                return
            try:
                await self._reload()
                await self._step()
            except StoreUnavailable:
                await self._clock.sleep(STORE_RETRY_MS)
            except Refused:
                continue

    async def _confirm_cleanup(self) -> None:
        """Say that the processes of a run that was stopped are dead; its attempts ended here."""
        run = self.view.run
        if run.status not in DRIVEN and run.cleanup is None:
            return  # this driver itself brought the run to rest
        fresh = await self._stored(run)
        if fresh is None or fresh.epoch != self.epoch:
            return  # a later driver answers for what lives now
        if fresh.status not in DRIVEN and fresh.cleanup == self._engine_id:
            await self._execute(ProcessesEnded(engine_id=self._engine_id))

    async def _stored(self, run: Run) -> Run | None:
        """Return the stored row of the run; a store that cannot be read is waited for."""
        while True:
            try:
                return self._store.find_run(run.run_id, tenant=run.tenant)
            except StoreUnavailable:
                await self._clock.sleep(STORE_RETRY_MS)

    async def _execute(self, command: Command) -> bool:
        """Run a command of the driver's own; a store that is away is waited for.

        Returns whether it was obeyed, which it is once, however often the store then fails to be
        read.
        """
        change = await self._try_until_written(command)
        if change is None:
            return False
        view = await self._load_again()
        if view is not None:
            self.view = view
            self._announce(view, change)
        return True

    async def _try_until_written(self, command: Command) -> Change | None:
        """Run a command; None when it was refused."""
        run = self.view.run
        while True:
            try:
                return await self._store.execute(
                    run.run_id,
                    command,
                    tenant=run.tenant,
                    change_id=self._new_change_id(),
                    now_ms=self._clock.now_ms(),
                )
            except (Refused, NotFound):
                # Another engine was first, or the run was deleted: nothing is left to do.
                return None
            except StoreUnavailable:
                # Nothing was written.
                await self._clock.sleep(STORE_RETRY_MS)

    async def _load_again(self) -> RunView | None:
        """Return the run as it is stored; None when it was deleted."""
        run = self.view.run
        while True:
            try:
                return await self._store.load(run.run_id, tenant=run.tenant)
            except NotFound:
                return None
            except StoreUnavailable:
                await self._clock.sleep(STORE_RETRY_MS)
