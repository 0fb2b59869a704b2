"""The engine: admits runs, claims those that are due, drives them, and takes over from the dead."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self

import msgspec

from tandem.domain.admission import Metrics, holds_keys, needs_of
from tandem.domain.automation import Automation, canonical_document
from tandem.domain.automation_keeping import AutomationCommand
from tandem.domain.change import Change
from tandem.domain.command import (
    Allow,
    Command,
    DecideGate,
    LossPolicy,
    Own,
    Recover,
    Repair,
    ResolveWait,
    Resume,
    SetOutput,
    Wake,
)
from tandem.domain.creation import NewRun, effective_profile
from tandem.domain.errors import (
    EngineError,
    InvalidAutomation,
    InvalidRequest,
    NotFound,
    Refused,
    StoreUnavailable,
)
from tandem.domain.execution import ExecutionProfile
from tandem.domain.gates import newest_settled
from tandem.domain.graph import Plan
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    EngineId,
    NodeId,
    RunId,
    TenantId,
)
from tandem.domain.inputs import fill_inputs
from tandem.domain.json import JsonObject, JsonValue, digest, encode
from tandem.domain.lifecycle import TERMINAL
from tandem.domain.preview import ResetPreview, preview
from tandem.domain.request_key import RequestKey
from tandem.domain.run import Run, Wait
from tandem.domain.signal import Signal, check_signal
from tandem.domain.standing import Reason
from tandem.domain.stored_automation import AutomationChange
from tandem.domain.trigger import TriggerType
from tandem.domain.view import RunView
from tandem.domain.workspace_root import declared_workspace
from tandem.engine import reasons
from tandem.engine.attempts import AttemptRunner
from tandem.engine.backlog import Backlogs
from tandem.engine.driver import Driver
from tandem.engine.drives import Drives, LeftListener
from tandem.engine.dry_run import DryRun, tell
from tandem.engine.handoffs import Handoffs
from tandem.engine.inbox import Inbox
from tandem.engine.learning import LearningPasses
from tandem.engine.leases import RENEWALS, OwnLease
from tandem.engine.limits import Limits
from tandem.engine.recovery import Recovery
from tandem.engine.reviews import Reviews
from tandem.engine.runnable import unrunnable
from tandem.engine.schedules import Schedules
from tandem.engine.sweeps import SWEEP_LIMIT, Sweeps, named
from tandem.engine.upkeep import Upkeep
from tandem.ports.artifacts import Artifacts
from tandem.ports.clock import Clock
from tandem.ports.executor import Executor
from tandem.ports.host import Host
from tandem.ports.ids import Ids
from tandem.ports.store import Delivered, EngineRow, Store
from tandem.ports.workspace import WorkspaceFiles

POLL_MS = 100
RENEW_MIN_MS = 1_000
"""How long a renewal may take that comes too late anyway."""
STORE_REST_MS = 1_000
"""So long a store that is away is left alone."""
ARTIFACT_REST_MS = 3_600_000
"""So long after it was last put an artifact may still become part of a run."""

Listener = Callable[[RunView, Change], None]
CaughtUp = Callable[[RunId], Awaitable[None]]
Step = Callable[[], Awaitable[int]]
LearnedListener = Callable[[RunView], None]
Output = Callable[[RunId, str, str, str], None]


class Engine(Reviews):
    """One engine of a store. `async with` starts it; leaving hands its runs back.

    Not entered, it can still create runs and execute commands: that is what a command line that
    does not drive does.
    """

    def __init__(
        self,
        *,
        store: Store,
        executor: Executor,
        artifacts: Artifacts,
        files: WorkspaceFiles,
        host: Host,
        clock: Clock,
        ids: Ids,
        scratch_root: str,
        limits: Limits | None = None,
        default_profile: ExecutionProfile = ExecutionProfile.GUIDED,
        has_agents: bool = False,
        on_problem: Callable[[str], None] | None = None,
    ) -> None:
        self.engine_id = EngineId(f"engine-{ids.new()}")
        self.store = store
        self.limits = limits or Limits()
        self._executor = executor
        self._files = files
        self._artifacts = artifacts
        self._host = host
        self._clock = clock
        self._ids = ids
        self._default_profile = default_profile
        self._has_agents = has_agents
        """Whether the executor runs the sessions of agents."""
        self._runner = AttemptRunner(
            engine_id=self.engine_id,
            executor=executor,
            artifacts=artifacts,
            files=files,
            clock=clock,
            scratch_root=scratch_root,
            list_artifacts=store.list_artifacts_of_node,
            inline_bytes_max=self.limits.inline_bytes_max,
            output_bytes_max=self.limits.output_bytes_max,
            relaxation_denylist=self.limits.relaxation_denylist,
        )
        self._on_problem = on_problem
        self._listeners: list[Listener] = []
        self._caught_up: list[CaughtUp] = []
        self._outputs: list[Output] = []
        self._watchers: list[Callable[[], None]] = []
        self._drives = Drives(
            engine_id=self.engine_id,
            clock=clock,
            new_driver=self._new_driver,
            execute=self._execute_for,
            ended=self._work_is_due,
            complain=self._complain,
        )
        self._work = asyncio.Event()
        self._elsewhere = 0
        self._changes = 0
        self._claiming = ""
        """The id of the changes of a claim that is not announced yet."""
        self._plans: dict[int, tuple[Automation, Plan, bytes]] = {}
        self._row: EngineRow | None = None
        renewals = (self.limits.lease_ms // RENEWALS, self.limits.recovery.stale_after_ms // 4)
        self._lease = OwnLease(
            clock, lease_ms=self.limits.lease_ms, renew_every_ms=max(min(renewals), 1)
        )
        self._recovery = Recovery(
            engine_id=self.engine_id,
            store=store,
            executor=executor,
            runner=self._runner,
            host=host,
            clock=clock,
            limits=self.limits.recovery,
            lease_ms=self.limits.lease_ms,
            execute=self._execute_for,
            new_change_id=self.new_change_id,
            complain=self._complain,
        )
        self._learning = LearningPasses(
            store=store,
            clock=clock,
            policy=self.limits.learning,
            new_change_id=self.new_change_id,
            told=self._tell_learned,
        )
        self.schedules = Schedules(
            store=store,
            clock=clock,
            grace_ms=self.limits.schedule_grace_ms,
            prepare=self._prepare_unasked,
            new_change_id=self.new_change_id,
            created=self._created,
            complain=self._complain,
        )
        self.handoffs = Handoffs(
            store=store,
            files=files,
            clock=clock,
            prepare=self._prepare_unasked,
            new_change_id=self.new_change_id,
            created=self._created,
            complain=self._complain,
        )
        self.backlogs = Backlogs(store=store, artifacts=artifacts, clock=clock, new_token=ids.new)
        self.inbox = Inbox(
            store=store,
            clock=clock,
            new_change_id=self.new_change_id,
            prepare=self._prepare_unasked,
            written=self._written_for,
        )
        self._learned: list[LearnedListener] = []
        upkeep = Upkeep(
            store=store,
            clock=clock,
            retention_ms=self.limits.retention_ms,
            signal_retention_ms=self.limits.signal_retention_ms,
        )
        self.sweeps = Sweeps(
            (
                self._recovery.recover,
                self._recovery.reap,
                self._recovery.auto_resume,
                self._tend_signals,
                upkeep.forget_signals,
                upkeep.forget_access,
                self._tend_inbox,
                self._wake_freed,
                self._learning.learn,
                upkeep.archive,
                self._tend_handoffs,
            ),
            clock=clock,
            complain=self._complain,
        )
        self.steps: Mapping[str, Step] = named(
            (self._claim_some, self._wake_some, self._fire_due, self._take_deliveries)
        )
        """What the dispatcher does in turn, by its name; each says how much it found to do."""
        self._is_entered = False
        self._is_stopping = False
        self._stopped_at_ms = 0
        self._stack = AsyncExitStack()

    # Life

    async def __aenter__(self) -> Self:
        row = self._host.enter(self.engine_id, self._woken)
        self._row = msgspec.structs.replace(
            row,
            labels=self.limits.labels,
            runs_max=self.limits.runs_max,
            runs_total_max=self.limits.runs_total_max,
            own_only=self.limits.own_only,
            lease_ms=self.limits.lease_ms,
        )
        try:
            await self._put_row()
        except BaseException:
            self._host.leave()
            raise
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._dispatching = self._group.create_task(self._dispatch(), name="dispatch")
        self._parts = [
            self._group.create_task(self._renew(), name="renew"),
            self._group.create_task(self.sweeps.run(lambda: self._is_stopping), name="sweep"),
        ]
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._end_all()
        finally:
            # Whatever ended it: who holds the lock of an engine that is over keeps its runs from
            # everybody else, as long as this process lives.
            self._host.leave()

    async def _end_all(self) -> None:
        self.stop()
        try:
            # Not cancelled: a claim that is being written would be nobody's.
            await self._drives.wait_at_most([self._dispatching], self.limits.shutdown_timeout_ms)
            await self._drain()
            if self.limits.shutdown_policy is LossPolicy.FAIL:
                await self.fail_running_runs_for_shutdown()
            else:
                await self._hand_back(LossPolicy.RESUME)
            await self._learning.finish()
        except GeneratorExit:
            raise  # the loop is over: nothing can be waited for any more
        except BaseException:
            # Cut off in its goodbye: what still runs may not outlive it.
            with suppress(asyncio.CancelledError):
                await self._stack.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)
            raise
        for part in self._parts:
            part.cancel()
        await self._stack.aclose()
        await self.store.remove_engine(self.engine_id)

    @property
    def is_driving(self) -> bool:
        """Whether this engine was entered and claims runs, as far as it has places."""
        return self._is_entered and not self._is_stopping

    @property
    def driven(self) -> int:
        """How many runs this engine drives now."""
        return len(self._drives)

    @property
    def lease_age_ms(self) -> int:
        """How long ago the lease was renewed last."""
        return self._lease.age_ms

    @property
    def lease_left_ms(self) -> int:
        """How long attempts may still run without a renewal; 0 when the lease is over."""
        return self._lease.left_ms

    @property
    def sweep_failures(self) -> Mapping[str, int]:
        """How often each part of the sweeps could not be done, by its name."""
        return self.sweeps.failures

    @property
    def changes_elsewhere(self) -> int | None:
        """How often this engine noticed that others wrote; None while it does not look.

        It looks every 100 ms while it is entered, and is told at once by others of this host.
        """
        return None if self._row is None or self._is_stopping else self._elsewhere

    @property
    def is_stopping(self) -> bool:
        """Whether this engine claims nothing any more because it is about to leave."""
        return self._is_stopping

    def stop(self) -> None:
        """Claim and sweep no more. With a grace time it begins now, and nothing new is started.

        Without one, what runs goes on until the engine is left.
        """
        if not self._is_stopping:
            self._stopped_at_ms = self._clock.ticks_ms()
        self._is_stopping = True
        if self.limits.shutdown_grace_ms > 0:
            self._drives.drain(self.limits.shutdown_policy)
        self._work.set()

    async def _drain(self) -> None:
        """Let the attempts that run come to their end, for what is left of the grace time."""
        if self.limits.shutdown_grace_ms <= 0:
            return
        self._drives.drain(self.limits.shutdown_policy)
        passed_ms = self._clock.ticks_ms() - self._stopped_at_ms
        # What does not end in time is handed back by force.
        await self._drives.wait(self.limits.shutdown_grace_ms - passed_ms)

    async def fail_running_runs_for_shutdown(self) -> int:
        """Fail the runs that this engine drives, as the older policy has it (T76).

        Runs that are pausing come to rest as paused. Returns how many failed.
        """
        return await self._hand_back(LossPolicy.FAIL)

    async def _hand_back(self, policy: LossPolicy) -> int:
        return await self._drives.hand_back(policy, timeout_ms=self.limits.shutdown_timeout_ms)

    # Use

    def listen(
        self,
        listener: Listener,
        *,
        caught_up: CaughtUp | None = None,
        learned: LearnedListener | None = None,
        left: LeftListener | None = None,
    ) -> None:
        """Call `listener` after every change that this engine made, on the loop, in order.

        Args:
            listener: must not block.
            caught_up: for a listener whose work goes on after it returned. It is awaited with the
                id of a run before anyone who waits for that run is told, and returns in bounded
                time, whatever happened.
            learned: called with a run when something was learned from its end, which is later.
            left: called with the run and the epoch when this engine drives a run no more,
                whatever the reason, also when another engine has taken it.
        """
        self._listeners.append(listener)
        if left is not None:
            self._drives.left.append(left)
        if learned is not None:
            self._learned.append(learned)
        if caught_up is not None:
            self._caught_up.append(caught_up)

    def is_behind(self, run: Run) -> bool:
        """Say whether this engine made the newest change of the run and has not announced it yet.

        That is so for a run that it drives, and for one that its claim has just put aside or ended.
        """
        driver = self._drives.find(run.run_id)
        if driver is not None:
            return driver.view.run.last_change_id != run.last_change_id
        return self._claiming != "" and f"{run.last_change_id}-".startswith(f"{self._claiming}-")

    async def caught_up(self, run_id: RunId) -> None:
        """Return once the listeners are done with what they heard of this run."""
        for caught_up in self._caught_up:
            await caught_up(run_id)

    def watch(self, look: Callable[[], None]) -> None:
        """Call `look` whenever this engine has written or hears that another process has.

        Such a message may get lost; whoever must miss nothing looks by itself now and then, too.
        """
        self._watchers.append(look)

    def _tell_watchers(self) -> None:
        for look in self._watchers:
            look()

    def listen_to_output(self, output: Output) -> None:
        """Call `output(run_id, node_id, kind, text)` for what the bodies of this engine say."""
        self._outputs.append(output)

    async def start(
        self,
        automation: Automation,
        inputs: JsonObject | None = None,
        *,
        workspace: str = "",
        tenant: TenantId = LOCAL_TENANT,
        trigger_type: str = TriggerType.MANUAL,
        trigger_reason: str = "",
        profile: ExecutionProfile | None = None,
        runtime_context: JsonObject | None = None,
        stored_version: int | None = None,
        owned: bool = False,
        is_dry: bool = False,
        runs_draft: bool = False,
        started_by: str = "",
        key: RequestKey | None = None,
    ) -> Run:
        """Create a run of this version; it is on disk when this returns, and due at once.

        Args:
            automation: the definition; the run executes this version to its end.
            inputs: values for what the automation declares; defaults fill the rest.
            workspace: an absolute directory; empty means that of the definition, if it has one.
            tenant: whose run it is.
            trigger_type: what started it (run-lifecycle 1.1).
            trigger_reason: why, in words.
            profile: how strict the run is; else the definition or the engine's default says it.
            runtime_context: the context of the run, for a definition that needs but gives none.
            stored_version: the version of the stored automation that this definition is.
            owned: other engines leave the run alone as long as this one lives.
            is_dry: record the run as completed without executing anything.
            runs_draft: run a stored automation although it is a draft.
            started_by: the person who asks for the run, where one is known.
            key: of the request; the same request again returns the run that it created.

        Raises:
            InvalidAutomation: the inputs do not fit, or a node needs what is not installed.
            MissingReference: the concurrency key names an input that is not given.
            NotFound: a `stored_version` was given, and the automation is not there any more.
            Refused: it is to be owned, and needs a label that this engine has not; or a
                `stored_version` was given, and the automation is a draft; or the key belongs to
                another request.
            StoreUnavailable: nothing was written.
        """
        new = self.prepare(
            automation,
            inputs,
            workspace=workspace,
            tenant=tenant,
            trigger_type=trigger_type,
            trigger_reason=trigger_reason,
            profile=profile,
            runtime_context=runtime_context,
            stored_version=stored_version,
            owned=owned,
            is_dry=is_dry,
            runs_draft=runs_draft,
            started_by=started_by,
            key=key,
        )
        if owned and not is_dry:
            self._refuse_unlabelled(new.needs.labels)
        run = await self.store.create_run(new, now_ms=self._clock.now_ms())
        self._created(wakes_others=not owned)
        return run

    def prepare(
        self,
        automation: Automation,
        inputs: JsonObject | None = None,
        *,
        run_id: RunId | None = None,
        workspace: str = "",
        tenant: TenantId = LOCAL_TENANT,
        trigger_type: str = TriggerType.MANUAL,
        trigger_reason: str = "",
        consumed_handoff_id: str = "",
        trigger_context: JsonObject | None = None,
        profile: ExecutionProfile | None = None,
        runtime_context: JsonObject | None = None,
        stored_version: int | None = None,
        owned: bool = False,
        is_dry: bool = False,
        runs_draft: bool = False,
        started_by: str = "",
        key: RequestKey | None = None,
    ) -> NewRun:
        """Put a run together that is about to be created, for whoever writes more with it.

        Nothing is written.

        Args:
            run_id: its id, where that is known before.
            trigger_context: what the run keeps of what started it.
            others: as `start` has them.

        Raises:
            InvalidAutomation: the inputs do not fit, or a node needs what is not installed.
            MissingReference: the concurrency key names an input that is not given.
        """
        plan, document = self._plan(automation, must_run=not is_dry)
        given = fill_inputs(automation.inputs, inputs or {})
        workspace = workspace or declared_workspace(automation)
        return NewRun(
            run_id=run_id or RunId(f"automation-v2-run-{self._ids.new()}"),
            tenant=tenant,
            change_id=self.new_change_id(),
            plan=plan,
            document=document,
            inputs=given,
            workspace=workspace,
            trigger_type=trigger_type,
            trigger_reason=trigger_reason,
            consumed_handoff_id=consumed_handoff_id,
            trigger_context=trigger_context,
            requested_profile=profile,
            effective_profile=effective_profile(automation, profile, self._default_profile),
            runtime_context=runtime_context,
            automation_version=stored_version,
            owner=self.engine_id if owned else None,
            is_dry=is_dry,
            runs_draft=runs_draft,
            started_by=started_by,
            key=key,
            needs=needs_of(
                automation,
                plan.demand,
                tenant=tenant,
                inputs=given,
                real_path=self._files.real_path(workspace) if workspace else "",
            ),
            runtime_clock=self.limits.runtime_clock,
        )

    def _prepare_unasked(
        self, automation: Automation, inputs: JsonObject | None = None, **how: Any
    ) -> NewRun:
        """Put a run together that starts by itself.

        Raises:
            EngineError: there can be none; also for a panic, because one automation must not end
                the engine that starts those of all others.
        """
        try:
            return self.prepare(automation, inputs, **how)
        except EngineError:
            raise
        except Exception as error:  # the boundary that has it recorded
            raise EngineError(
                f"putting the run together panicked: {type(error).__name__}: {error}",
                code="run_creation_panicked",
            ) from error

    def _created(self, *, wakes_others: bool = True) -> None:
        """Runs were created, which any engine may have but for owned ones."""
        self._work.set()
        self._tell_watchers()
        if wakes_others:
            self._host.wake_others()

    async def tell_dry_run(self, run: Run) -> DryRun:
        """Say what the real run would do that this dry one stands for.

        Raises:
            NotFound: it is not in the store.
        """
        view = await self.store.load(run.run_id, tenant=run.tenant)
        return tell(run, view.plan, self._files, has_agents=self._has_agents)

    async def execute(
        self,
        run_id: RunId,
        command: Command,
        *,
        tenant: TenantId = LOCAL_TENANT,
        key: RequestKey | None = None,
    ) -> Change:
        """Ask something of a run.

        Raises:
            NotFound: no such run, node or gate for this tenant.
            NothingToDo: the key says that the same request was done before.
            Refused: its state does not allow it; nothing was written, unless the refusal itself
                is recorded, as that of a decision meant for another asking is.
            StoreUnavailable: nothing was written.
        """
        if isinstance(command, Resume | Recover | Allow) and command.owner == self.engine_id:
            self._refuse_unlabelled(self._run(run_id, tenant).labels)
        change = await self.store.execute(
            run_id,
            command,
            tenant=tenant,
            change_id=self.new_change_id(),
            now_ms=self._clock.now_ms(),
            key=key,
        )
        await self._written_for([change])
        denial = change.denial
        if denial is not None:
            raise Refused(denial.message, code=denial.code, details=denial.details)
        return change

    def _wake(self, run_ids: Sequence[RunId]) -> None:
        """Have those look who may have work now: the drivers of these runs and all engines."""
        self._drives.poke(run_ids)
        self._work.set()
        self._tell_watchers()
        self._host.wake_others()

    async def _written_for(self, changes: Sequence[Change]) -> None:
        """Tell whom it concerns what was written for runs that this engine may not drive."""
        self._wake([change.run.run_id for change in changes])
        for change in changes if self._listeners else ():
            # It is written: that it cannot be read back now may not be told as a failure, and a
            # run that was deleted since has nothing to tell any more.
            with suppress(StoreUnavailable, NotFound):
                view = await self.store.load(change.run.run_id, tenant=change.run.tenant)
                self._announce(view, change)

    async def signal(self, signal: Signal, *, tenant: TenantId = LOCAL_TENANT) -> Delivered:
        """Accept a signal: wake every wait that it is for, and keep it for those to come.

        The same subject and idempotency key again change nothing. When this is cut off, a sweep
        of any engine wakes the rest.

        Raises:
            InvalidSignal: its key or payload is out of bounds; nothing was written.
            StoreUnavailable: nothing was written.
        """
        check_signal(signal)
        found = await self.store.deliver(
            signal, tenant=tenant, change_id=self.new_change_id(), now_ms=self._clock.now_ms()
        )
        await self._written_for([change for _, change in found.woken])
        if not found.is_open:
            return found
        rest = await self._continue_signal(found.signal_no)
        return msgspec.structs.replace(
            found,
            is_open=False,
            woken=(*found.woken, *(pair for part in rest for pair in part.woken)),
            refused=(*found.refused, *(pair for part in rest for pair in part.refused)),
        )

    async def _continue_signal(self, signal_no: int) -> list[Delivered]:
        parts: list[Delivered] = []
        while not parts or parts[-1].is_open:
            part = await self.store.continue_delivery(
                signal_no, change_id=self.new_change_id(), now_ms=self._clock.now_ms()
            )
            await self._written_for([change for _, change in part.woken])
            parts.append(part)
        return parts

    async def resolve_wait(
        self, run_id: RunId, command: ResolveWait, *, tenant: TenantId = LOCAL_TENANT
    ) -> Wait | None:
        """Resolve one wait of a run and return its record (run-lifecycle 6.5).

        The same idempotency key again returns the record; another key for a wait that is over
        returns None. Nothing is written in either case.

        Raises:
            NotFound: no such run or node for this tenant.
            Refused: the payload misses the schema of the wait, or the run has not reached it.
            InvalidSignal: the key or the payload is out of bounds.
            StoreUnavailable: nothing was written.
        """
        try:
            await self.execute(run_id, command, tenant=tenant)
        except Refused as refused:
            key = command.idempotency_key
            known = self.store.find_woken_wait(run_id, key, tenant=tenant)
            if known is not None and command.node_id in (None, known.node_id):
                return known
            if refused.code == "wait_over":
                return None
            raise
        return self.store.find_woken_wait(run_id, command.idempotency_key, tenant=tenant)

    async def _execute_for(self, run_id: RunId, command: Command, tenant: TenantId) -> Change:
        return await self.execute(run_id, command, tenant=tenant)

    async def fork(
        self,
        run_id: RunId,
        node_id: NodeId,
        *,
        inputs: JsonObject | None = None,
        asks_again: bool = False,
        reason: str = "",
        tenant: TenantId = LOCAL_TENANT,
        owned: bool = False,
        started_by: str = "",
        key: RequestKey | None = None,
    ) -> Run:
        """Start a run that takes over what a run has done and goes its own way from a node on.

        Args:
            run_id: the source; it may be in any state and goes on undisturbed.
            node_id: it and everything after it run anew.
            inputs: values that replace some of the source's.
            asks_again: approvals that the source has are asked for again.
            reason: kept with the source.
            tenant: whose runs they are.
            owned: other engines leave the new run alone as long as this one lives.
            started_by: the person who asks for it; else whoever started the source.
            key: of the request; the same request again returns the run that it made.

        Raises:
            NotFound: no such run or node for this tenant.
            InvalidAutomation: the inputs do not fit.
            Refused: the key belongs to another request.
            StoreUnavailable: nothing was written.
        """
        run = await self.store.fork(
            run_id,
            NodeId(node_id.strip()),
            tenant=tenant,
            fork=RunId(f"automation-v2-run-{self._ids.new()}"),
            inputs=inputs or {},
            asks_again=asks_again,
            owner=self.engine_id if owned else None,
            started_by=started_by,
            reason=reason,
            change_id=self.new_change_id(),
            now_ms=self._clock.now_ms(),
            key=key,
        )
        self._wake([run_id])
        return run

    def output_by_hand(
        self,
        node_id: NodeId,
        value: JsonValue,
        *,
        reason: str,
        decided_by: str = "",
        tenant: TenantId = LOCAL_TENANT,
    ) -> SetOutput:
        """Return the command that gives a node its output; a large one is put aside first.

        Raises:
            InvalidRequest: the output is over its bound.
            StoreUnavailable: it could not be put aside.
        """
        content = encode(value)
        if len(content) > self.limits.output_bytes_max:
            raise InvalidRequest(
                f"the output has {len(content)} bytes, the bound is "
                f"{self.limits.output_bytes_max}; write a file and name it in the output",
                code="output_too_large",
            )
        ref = None
        if len(content) > self.limits.inline_bytes_max:
            ref = self._artifacts.put(tenant, node_id, content, media_type="application/json")
        return SetOutput(
            node_id=node_id, output=content, ref=ref, reason=reason, decided_by=decided_by
        )

    async def delete(self, run_id: RunId, *, tenant: TenantId = LOCAL_TENANT) -> int:
        """Delete an ended run, and the artifacts that only it had; return how many of these.

        An artifact that was put lately stays, as another run may be about to refer to it.

        Raises:
            NotFound: no such run for this tenant.
            Refused: it has not ended, or processes of it may still live.
            StoreUnavailable: nothing was deleted.
        """
        left = await self.store.delete_run(run_id, tenant=tenant)
        put_before_ms = self._clock.now_ms() - ARTIFACT_REST_MS
        removed = 0
        for content in left:
            # Asked again: a run may have come to refer to it since.
            if not self.store.is_artifact_used(content, tenant=tenant):
                removed += self._artifacts.remove(tenant, content, put_before_ms=put_before_ms)
        return removed

    async def preview(
        self, run_id: RunId, command: Command, *, tenant: TenantId = LOCAL_TENANT
    ) -> ResetPreview:
        """Return what a command would undo; nothing is written.

        Raises:
            NotFound: no such run, node or gate for this tenant.
            InvalidRequest: the command is wrong whatever the state of the run is.
        """
        view = await self.store.load(run_id, tenant=tenant)
        if isinstance(command, DecideGate):
            # A decision is told who was first, and so is whoever only looks.
            view.settled_gates = newest_settled(self.store.list_gates_of_run(run_id, tenant=tenant))
        stored = None
        if isinstance(command, Repair) and command.save:
            stored = self.store.find_automation(view.run.automation_id, tenant=tenant)
        return preview(
            view,
            command,
            now_ms=self._clock.now_ms(),
            artifacts=self.store.list_artifacts(run_id, tenant=tenant),
            stored=stored,
        )

    async def execute_on_automation(
        self,
        automation_id: AutomationId,
        command: AutomationCommand,
        *,
        tenant: TenantId = LOCAL_TENANT,
        document: bytes = b"",
    ) -> AutomationChange:
        """Ask something of a stored automation; see `Store.execute_on_automation`.

        The runs that a pause pauses are told to their drivers and to the listeners.
        """
        change, runs = await self.store.execute_on_automation(
            automation_id,
            command,
            tenant=tenant,
            change_id=self.new_change_id(),
            now_ms=self._clock.now_ms(),
            document=document,
        )
        await self._written_for(runs)
        for paused in runs:
            await self.caught_up(paused.run.run_id)
        return change

    async def take_over(
        self, run_id: RunId, *, tenant: TenantId = LOCAL_TENANT, own: bool = False
    ) -> bool:
        """Free a run from an engine that is dead; False when nobody dead holds it.

        With `own` a run that waits (for a claim, a person or a moment) becomes this engine's too,
        unless an engine that lives has it.

        Raises:
            NotFound: no such run for this tenant.
            Refused: an engine that lives drives the run, or has it for itself.
        """
        run = self._run(run_id, tenant)
        if own:
            self._refuse_unlabelled(run.labels)
        holder = run.engine_id or run.cleanup
        freed = holder is not None and holder != self.engine_id
        if holder is not None and freed:
            self._refuse_living(run_id, holder)
            await self._recovery.free(
                run_id,
                tenant,
                holder,
                owner=self.engine_id if own else None,
                policy=LossPolicy.RESUME,
            )
        return await self._own(run_id, tenant) or freed if own else freed

    async def _own(self, run_id: RunId, tenant: TenantId) -> bool:
        run = self._run(run_id, tenant)
        if run.status in TERMINAL or self.engine_id in (run.owner, run.engine_id):
            return False
        for other in (run.engine_id, run.owner):
            if other is not None:
                self._refuse_living(run_id, other)
        await self.execute(run_id, Own(engine_id=self.engine_id, former=run.owner), tenant=tenant)
        return True

    def why(self, run_id: RunId, *, tenant: TenantId = LOCAL_TENANT) -> Reason:
        """Return why a run stands still, or by whom it is driven.

        Raises:
            NotFound: no such run for this tenant.
        """
        now_ms = self._clock.now_ms()
        return reasons.why(self.store, self._host, run_id, tenant=tenant, now_ms=now_ms)

    def scheduler_metrics(self) -> Metrics:
        """Return what the schedulers of all engines have done and have to do."""
        return reasons.scheduler_metrics(self.store, self._host, now_ms=self._clock.now_ms())

    def _refuse_unlabelled(self, labels: Sequence[str]) -> None:
        """Refuse to have a run for this engine alone which it could never claim."""
        missing = sorted(set(labels) - set(self.limits.labels))
        if missing:
            raise Refused(
                f"the run needs an engine with the label {', '.join(missing)}, which this one has "
                "not; set TANDEM_ENGINE_LABELS if it has, or leave the run to another engine "
                "(`--detach`)",
                code="labels_missing",
            )

    def _run(self, run_id: RunId, tenant: TenantId) -> Run:
        run = self.store.find_run(run_id, tenant=tenant)
        if run is None:
            raise NotFound(f"there is no run {run_id}; `tandem runs list` shows the ones there are")
        return run

    def _refuse_living(self, run_id: RunId, engine_id: EngineId) -> None:
        row = next((e for e in self.store.list_engines() if e.engine_id == engine_id), None)
        if row is not None and not self._host.is_dead(row, now_ms=self._clock.now_ms()):
            raise Refused(
                f"run {run_id} is driven by {engine_id} (process {row.pid} on {row.host}), "
                "which is alive; watch it with `tandem runs show`, or stop that process",
                code="driven_elsewhere",
            )

    def new_change_id(self) -> ChangeId:
        """Return an id for the next change of this engine."""
        self._changes += 1
        return ChangeId(f"{self.engine_id}-{self._changes}")

    def _plan(self, automation: Automation, *, must_run: bool) -> tuple[Plan, bytes]:
        known = self._plans.get(id(automation))
        if known is not None and known[0] is automation:
            return known[1], known[2]
        problems = unrunnable(automation, has_agents=self._has_agents) if must_run else []
        if problems:
            raise InvalidAutomation(problems)
        document = canonical_document(automation)
        plan = Plan(automation, DefinitionDigest(digest(document)))
        if len(self._plans) >= 64:
            self._plans.clear()
        if must_run:
            self._plans[id(automation)] = (automation, plan, document)
        return plan, document

    # Driving

    async def _dispatch(self) -> None:
        while not self._is_stopping:
            try:
                busy = sum([await step() for step in self.steps.values()])
            except EngineError:
                # The store is away, or holds a definition that cannot be read: neither may end
                # the engine and the runs that it drives.
                await self._clock.sleep(STORE_REST_MS)
                continue
            if busy:
                continue
            await self._wait_for_work()

    async def _wait_for_work(self) -> None:
        with suppress(TimeoutError):
            async with self._clock.deadline(POLL_MS):
                await self._work.wait()
        self._work.clear()
        # The net under the sockets: also when this engine is so busy that it never rests.
        if await self.store.changed_elsewhere():
            self._elsewhere += 1
            self.inbox.is_due = True
            self._poke_changed()

    async def _claim_some(self) -> int:
        if self._is_fenced_by_lease and not self._lease.left_ms:
            return 0  # others may take at any moment what is claimed without a lease
        free = self.limits.runs_max - len(self._drives)
        if free <= 0 or self._is_stopping:
            return 0
        self._claiming = self.new_change_id()
        try:
            claimed = await self.store.claim(
                self.engine_id,
                limit=free,
                now_ms=self._clock.now_ms(),
                new_change_id=lambda: ChangeId(self._claiming),
                own_only=self.limits.own_only,
                labels=self.limits.labels,
                runs_total_max=self.limits.runs_total_max,
            )
            for each in claimed:
                self._announce(each.view, each.change)
                if each.is_taken:
                    self._drive(each.view)
        finally:
            self._claiming = ""
        return len(claimed)

    def _drive(self, view: RunView) -> None:
        driver = self._drives.start(view, self._group)
        if self._is_stopping:
            driver.hand_back(self.limits.shutdown_policy)

    def _new_driver(self, view: RunView) -> Driver:
        return Driver(
            view,
            engine_id=self.engine_id,
            store=self.store,
            runner=self._runner,
            clock=self._clock,
            new_change_id=self.new_change_id,
            gate_policy=self.limits.gate_policy,
            announce=self._announce,
            report=self._report,
            complain=self._complain,
            lease=self._lease,
            usd_per_1k_tokens=self.limits.usd_per_1k_tokens,
        )

    def _work_is_due(self) -> None:
        self._work.set()

    async def _wake_some(self) -> int:
        now_ms = self._clock.now_ms()
        woken = 0
        for tenant, run_id in self.store.list_due(now_ms=now_ms, limit=SWEEP_LIMIT):
            try:
                await self.execute(run_id, Wake(), tenant=tenant)
                woken += 1
            except StoreUnavailable:
                raise
            except EngineError:
                # Another engine was first, or the run cannot be read and holds up no other.
                continue
        return woken

    async def _fire_due(self) -> int:
        return 0 if self.limits.own_only else await self.schedules.fire_due()

    async def _take_deliveries(self) -> int:
        """Let deliveries at webhooks become what they lead to.

        An engine that is there for runs of its own leaves them to others.
        """
        return 0 if self.limits.own_only else await self.inbox.take()

    def look_into_inbox(self) -> None:
        """Have this engine and all others look: a delivery has just been stored."""
        self.inbox.is_due = True
        self._wake(())

    async def _tend_inbox(self) -> None:
        """Look into the inbox whoever said something, and forget what is old."""
        self.inbox.is_due = True
        self._work.set()
        await self.inbox.forget()

    def _announce(self, view: RunView, change: Change) -> None:
        run = view.run
        if change.moved and (run.lock_path or run.concurrency_key) and not holds_keys(run):
            # What it held is free: another engine may have the run that waits for it.
            self._host.wake_others()
        for listener in self._listeners:
            listener(view, change)
        self._tell_watchers()

    def _tell_learned(self, view: RunView, change: Change | None) -> None:
        """Tell what the end of a run led to, which may have been driven by another engine."""
        if change is not None:
            self._announce(view, change)
        for listener in self._learned:
            listener(view)

    def _report(self, run_id: RunId, node_id: str, kind: str, text: str) -> None:
        for output in self._outputs:
            # What listens is a skin; its mistakes must not reach the body that speaks.
            with suppress(Exception):
                output(run_id, node_id, kind, text)

    def _complain(self, words: str) -> None:
        if self._on_problem is not None:
            with suppress(Exception):
                self._on_problem(words)

    def _woken(self) -> None:
        """Another process has written something that may concern this engine."""
        self.inbox.is_due = True
        self._elsewhere += 1
        self._work.set()
        self._poke_changed()

    def _poke_changed(self) -> None:
        self._tell_watchers()
        self._drives.poke_all()

    # Living and dying

    def _lease_until_ms(self) -> int:
        return self._clock.now_ms() + self.limits.lease_ms

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._lease.pause_ms)
            try:
                async with self._clock.deadline(self._lease.left_ms or RENEW_MIN_MS):
                    await self._put_row()
            except (StoreUnavailable, TimeoutError):
                self._lease.failed()
                if not self._lease.left_ms and self._is_fenced_by_lease:
                    self._drives.abandon()
                continue
            await self._drives.pay()

    async def _put_row(self) -> None:
        """Renew the lease, and say which runs of this engine show life."""
        if self._row is None:
            raise AssertionError("the engine was not entered")
        self._lease.ask()
        self._row = msgspec.structs.replace(self._row, lease_until_ms=self._lease_until_ms())
        active, now_ms = self._drives.active, self._clock.now_ms()
        await self.store.put_engine(self._row, active=active, now_ms=now_ms)
        self._lease.renewed()

    @property
    def _is_fenced_by_lease(self) -> bool:
        return self.limits.store_is_shared or self._recovery.has_strangers

    async def recover(self) -> int:
        """Take the runs of engines that are provably dead out of their hands.

        Returns how many runs that were running or pausing were recovered.
        """
        return await self._recovery.recover()

    async def _tend_handoffs(self) -> None:
        if not self.limits.own_only:
            await self.handoffs.tend()

    async def _wake_freed(self) -> None:
        """Wake runs whose key is free; a net under the wake-ups that freed it."""
        if await self.store.wake_freed(now_ms=self._clock.now_ms(), limit=SWEEP_LIMIT):
            self._work.set()

    async def _tend_signals(self) -> None:
        """Go on with signals whose acceptance was cut off."""
        for signal_no in self.store.list_open_signals(limit=SWEEP_LIMIT):
            await self._continue_signal(signal_no)
