"""The engine: admits runs, claims those that are due, drives them, and takes over from the dead."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

import msgspec

from tandem.domain.automation import Automation, canonical_document
from tandem.domain.change import Change
from tandem.domain.command import Adopt, Command, Own, Panic, ProcessesEnded, Wake
from tandem.domain.errors import (
    EngineError,
    InvalidAutomation,
    NotFound,
    Refused,
    StoreUnavailable,
)
from tandem.domain.graph import Plan
from tandem.domain.ids import (
    LOCAL_TENANT,
    ChangeId,
    DefinitionDigest,
    EngineId,
    RunId,
    TenantId,
    attempt_id,
)
from tandem.domain.inputs import fill_inputs
from tandem.domain.json import JsonObject, digest
from tandem.domain.lifecycle import DRIVEN, TERMINAL
from tandem.domain.run import Run
from tandem.domain.view import RunView
from tandem.engine.attempts import AttemptRunner
from tandem.engine.driver import Driver
from tandem.engine.runnable import unrunnable
from tandem.ports.artifacts import Artifacts
from tandem.ports.clock import Clock
from tandem.ports.executor import Executor
from tandem.ports.host import Host
from tandem.ports.ids import Ids
from tandem.ports.store import EngineRow, NewRun, Store
from tandem.ports.workspace import WorkspaceFiles

POLL_MS = 100
SWEEP_MS = 1_000
SWEEP_LIMIT = 100
ARCHIVE_REST_MS = 60_000
ARCHIVE_ROWS_MAX = 200
"""So many rows are packed in one transaction: about a millisecond."""
ARCHIVE_STEPS_MAX = 5
"""So many transactions of packing belong to one sweep."""

Listener = Callable[[RunView, Change], None]
CaughtUp = Callable[[RunId], Awaitable[None]]
Output = Callable[[RunId, str, str, str], None]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one engine; spans in milliseconds, sizes in bytes."""

    runs_max: int = 8
    lease_ms: int = 30_000
    inline_bytes_max: int = 16 * 1024
    output_bytes_max: int = 16 * 1024 * 1024
    retention_ms: int = 0
    """A run that rests this long after its end is packed; 0 keeps all as they are."""
    own_only: bool = False
    """Claim only runs that this engine created or was asked to resume."""


class Engine:
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
        on_problem: Callable[[str], None] | None = None,
    ) -> None:
        self.engine_id = EngineId(f"engine-{ids.new()}")
        self.store = store
        self.limits = limits or Limits()
        self._executor = executor
        self._host = host
        self._clock = clock
        self._ids = ids
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
        )
        self._on_problem = on_problem
        self._listeners: list[Listener] = []
        self._caught_up: list[CaughtUp] = []
        self._outputs: list[Output] = []
        self._drivers: dict[RunId, Driver] = {}
        self._drives: set[asyncio.Task[None]] = set()
        self._work = asyncio.Event()
        self._changes = 0
        self._plans: dict[int, tuple[Automation, Plan, bytes]] = {}
        self._row: EngineRow | None = None
        self._archive_at_ms = 0
        self._is_stopping = False
        self._stack = AsyncExitStack()

    # Life

    async def __aenter__(self) -> Self:
        row = self._host.enter(self.engine_id, self._woken)
        self._row = msgspec.structs.replace(row, lease_until_ms=self._lease_until_ms())
        try:
            await self.store.put_engine(self._row)
        except BaseException:
            self._host.leave()
            raise
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._dispatching = self._group.create_task(self._dispatch(), name="dispatch")
        self._parts = [
            self._group.create_task(self._renew(), name="renew"),
            self._group.create_task(self._sweep(), name="sweep"),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_stopping = True
        self._work.set()
        # Not cancelled: a claim that is being written would be nobody's.
        await asyncio.wait([self._dispatching])
        for driver in self._drivers.values():
            driver.hand_back()
        if self._drives:
            await asyncio.wait(list(self._drives))
        for part in self._parts:
            part.cancel()
        await self._stack.aclose()
        try:
            await self.store.remove_engine(self.engine_id)
        finally:
            self._host.leave()

    # Use

    def listen(self, listener: Listener, *, caught_up: CaughtUp | None = None) -> None:
        """Call `listener` after every change that this engine made, on the loop, in order.

        Args:
            listener: must not block.
            caught_up: for a listener whose work goes on after it returned. It is awaited with the
                id of a run before anyone who waits for that run is told, and returns in bounded
                time, whatever happened.
        """
        self._listeners.append(listener)
        if caught_up is not None:
            self._caught_up.append(caught_up)

    def is_behind(self, run: Run) -> bool:
        """Say whether this engine drives the run and has not announced yet what the row says."""
        driver = self._drivers.get(run.run_id)
        return driver is not None and driver.view.run.last_change_id != run.last_change_id

    async def caught_up(self, run_id: RunId) -> None:
        """Return once the listeners are done with what they heard of this run."""
        for caught_up in self._caught_up:
            await caught_up(run_id)

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
        trigger_type: str = "manual",
        owned: bool = False,
    ) -> Run:
        """Create a run of this version; it is on disk when this returns, and due at once.

        Args:
            automation: the definition; the run executes this version to its end.
            inputs: values for what the automation declares; defaults fill the rest.
            workspace: an absolute directory, or empty for a run without one.
            tenant: whose run it is.
            trigger_type: what started it (run-lifecycle 1.1).
            owned: other engines leave the run alone as long as this one lives.

        Raises:
            InvalidAutomation: the inputs do not fit, or a node needs what is not installed.
            StoreUnavailable: nothing was written.
        """
        plan, document = self._plan(automation)
        given = fill_inputs(automation.inputs, inputs or {})
        change_id = self.new_change_id()
        run = await self.store.create_run(
            NewRun(
                run_id=RunId(f"automation-v2-run-{self._ids.new()}"),
                tenant=tenant,
                change_id=change_id,
                plan=plan,
                document=document,
                inputs=given,
                workspace=workspace,
                trigger_type=trigger_type,
                owner=self.engine_id if owned else None,
            ),
            now_ms=self._clock.now_ms(),
        )
        self._work.set()
        if not owned:
            self._host.wake_others()
        return run

    async def execute(
        self, run_id: RunId, command: Command, *, tenant: TenantId = LOCAL_TENANT
    ) -> Change:
        """Ask something of a run.

        Raises:
            NotFound: no such run, node or gate for this tenant.
            Refused: its state does not allow it; nothing was written.
            StoreUnavailable: nothing was written.
        """
        change = await self.store.execute(
            run_id,
            command,
            tenant=tenant,
            change_id=self.new_change_id(),
            now_ms=self._clock.now_ms(),
        )
        driver = self._drivers.get(run_id)
        if driver is not None:
            driver.poke()
        self._work.set()
        self._host.wake_others()
        view = await self.store.load(run_id, tenant=tenant)
        for listener in self._listeners:
            listener(view, change)
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
        holder = run.engine_id or run.cleanup
        freed = holder is not None and holder != self.engine_id
        if holder is not None and freed:
            self._refuse_living(run_id, holder)
            await self._free(run_id, tenant, holder, owner=self.engine_id if own else None)
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

    def _plan(self, automation: Automation) -> tuple[Plan, bytes]:
        known = self._plans.get(id(automation))
        if known is not None and known[0] is automation:
            return known[1], known[2]
        problems = unrunnable(automation)
        if problems:
            raise InvalidAutomation(problems)
        document = canonical_document(automation)
        plan = Plan(automation, DefinitionDigest(digest(document)))
        if len(self._plans) >= 64:
            self._plans.clear()
        self._plans[id(automation)] = (automation, plan, document)
        return plan, document

    # Driving

    async def _dispatch(self) -> None:
        while not self._is_stopping:
            try:
                busy = await self._claim_some() + await self._wake_some()
            except EngineError:
                # The store is away, or holds a definition that cannot be read: neither may end
                # the engine and the runs that it drives.
                await self._clock.sleep(SWEEP_MS)
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
            self._poke_changed()

    async def _claim_some(self) -> int:
        free = self.limits.runs_max - len(self._drivers)
        if free <= 0 or self._is_stopping:
            return 0
        views = await self.store.claim(
            self.engine_id,
            limit=free,
            own_only=self.limits.own_only,
            now_ms=self._clock.now_ms(),
            new_change_id=self.new_change_id,
        )
        for view in views:
            self._drive(view)
        return len(views)

    def _drive(self, view: RunView) -> None:
        driver = Driver(
            view,
            engine_id=self.engine_id,
            store=self.store,
            runner=self._runner,
            clock=self._clock,
            new_change_id=self.new_change_id,
            announce=self._announce,
            report=self._report,
            complain=self._complain,
        )
        run_id = view.run.run_id
        self._drivers[run_id] = driver
        drive = self._group.create_task(self._drive_to_end(driver, run_id))
        self._drives.add(drive)
        drive.add_done_callback(self._drives.discard)
        if self._is_stopping:
            driver.hand_back()

    async def _drive_to_end(self, driver: Driver, run_id: RunId) -> None:
        try:
            await driver.drive()
        except Exception as error:  # noqa: BLE001 # one run's panic must not take the others along
            await self._panic(driver, error)
        finally:
            # The run may be driven here again already, before its former driver has noticed.
            if self._drivers.get(run_id) is driver:
                del self._drivers[run_id]
            self._work.set()

    async def _panic(self, driver: Driver, error: Exception) -> None:
        run = driver.view.run
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        command = Panic(engine_id=self.engine_id, reason=f"{type(cause).__name__}: {cause}")
        # A store that is away leaves the run with this engine; its death or lease frees it.
        with suppress(EngineError):
            await self.execute(run.run_id, command, tenant=run.tenant)

    async def _wake_some(self) -> int:
        now_ms = self._clock.now_ms()
        woken = 0
        for tenant, run_id in self.store.list_due(now_ms=now_ms, limit=SWEEP_LIMIT):
            try:
                await self.execute(run_id, Wake(), tenant=tenant)
                woken += 1
            except Refused:
                continue  # another engine was first
        return woken

    def _announce(self, view: RunView, change: Change) -> None:
        for listener in self._listeners:
            listener(view, change)

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
        self._work.set()
        self._poke_changed()

    def _poke_changed(self) -> None:
        for driver in self._drivers.values():
            driver.poke()

    # Living and dying

    def _lease_until_ms(self) -> int:
        return self._clock.now_ms() + self.limits.lease_ms

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self.limits.lease_ms / 3)
            if self._row is None:
                raise AssertionError("the engine was not entered")
            self._row = msgspec.structs.replace(self._row, lease_until_ms=self._lease_until_ms())
            try:
                await self.store.put_engine(self._row)
            except StoreUnavailable:
                continue  # tried again in a third of the lease; nobody else can write either

    async def _sweep(self) -> None:
        while True:
            # What cannot be freed now (the store is away, a process does not die) stays held by
            # the dead engine and is tried again with the next turn.
            with suppress(EngineError):
                await self.recover()
            with suppress(EngineError):
                await self._archive()
            await self._clock.sleep(SWEEP_MS)

    async def _archive(self) -> None:
        """Pack some of what is old; while there is more, again with the next sweep."""
        now_ms = self._clock.now_ms()
        if not self.limits.retention_ms or now_ms < self._archive_at_ms:
            return
        before_ms = now_ms - self.limits.retention_ms
        for _ in range(ARCHIVE_STEPS_MAX):
            moved = await self.store.archive(
                before_ms=before_ms, rows_max=ARCHIVE_ROWS_MAX, now_ms=now_ms
            )
            if not moved:
                self._archive_at_ms = now_ms + ARCHIVE_REST_MS
                return

    async def recover(self) -> int:
        """Take the runs of engines that are provably dead out of their hands; return how many."""
        freed = 0
        now_ms = self._clock.now_ms()
        for row in self.store.list_engines():
            if row.engine_id == self.engine_id or not self._host.is_dead(row, now_ms=now_ms):
                continue
            for held in self.store.list_held(row.engine_id):
                if held.status in DRIVEN or held.cleanup is not None:
                    await self._free(held.run_id, held.tenant, row.engine_id, owner=None)
                    freed += 1
            await self.store.remove_engine(row.engine_id)
        return freed

    async def _free(
        self, run_id: RunId, tenant: TenantId, dead: EngineId, *, owner: EngineId | None
    ) -> None:
        """End what the dead engine left of this run, then queue the run again."""
        view = await self.store.load(run_id, tenant=tenant)
        if dead not in (view.run.engine_id, view.run.cleanup):
            return  # another engine was first; the attempts of now are alive
        attempts = [
            attempt_id(run_id, view.plan.nodes[n].node_id, view.node(n).attempts)
            for n in view.nodes
        ]
        await self._executor.end_leftovers(engine_ids=[dead], attempt_ids=attempts)
        command = (
            ProcessesEnded(engine_id=dead)
            if view.run.status in TERMINAL
            else Adopt(dead=dead, owner=owner)
        )
        try:
            await self.execute(run_id, command, tenant=tenant)
        except Refused:
            return  # another engine was first
