"""What an engine does for runs that their own engine lets down: it died, or they show no life.

Everything here is a bounded query and an ordinary command, decided in its own transaction; so
several engines may do it at once, and a run that has moved on since it was listed refuses.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from tandem.domain.change import Change
from tandem.domain.command import (
    Adopt,
    AutoResume,
    Command,
    LossPolicy,
    Probed,
    ProcessesEnded,
    Reap,
)
from tandem.domain.errors import DEFINITION_UNREADABLE, EngineError, Refused, StoreUnavailable
from tandem.domain.ids import ChangeId, EngineId, RunId, TenantId, attempt_id
from tandem.domain.lifecycle import DRIVEN, RunState
from tandem.domain.view import RunView
from tandem.engine.attempts import AttemptRunner
from tandem.engine.leases import LeaseWatch, QuietWatch
from tandem.ports.clock import Clock
from tandem.ports.executor import Executor
from tandem.ports.host import Host
from tandem.ports.store import Held, Store

LIMIT = 100
"""How many runs one sweep looks at."""

Execute = Callable[[RunId, Command, TenantId], Coroutine[Any, Any, Change]]


class RecoveryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine recovers runs; spans in milliseconds."""

    restart_policy: LossPolicy = LossPolicy.RESUME
    stale_after_ms: int = 600_000
    auto_resume: bool = True
    auto_resume_window_ms: int = 1_200_000
    auto_resumes_max: int = 2


class Recovery:
    """Takes runs over from the dead, stops those that show no life, lets them go on."""

    def __init__(
        self,
        *,
        engine_id: EngineId,
        store: Store,
        executor: Executor,
        runner: AttemptRunner,
        host: Host,
        clock: Clock,
        limits: RecoveryLimits,
        lease_ms: int,
        execute: Execute,
        new_change_id: Callable[[], ChangeId],
        complain: Callable[[str], None],
    ) -> None:
        self._engine_id = engine_id
        self._store = store
        self._executor = executor
        self._runner = runner
        self._clock = clock
        self._limits = limits
        self._lease_ms = lease_ms
        self._execute = execute
        self._new_change_id = new_change_id
        self._complain = complain
        self._leases = LeaseWatch(host, clock)
        self._quiet = QuietWatch(clock)
        self._told: set[RunId] = set()

    @property
    def has_strangers(self) -> bool:
        """Whether engines write to this store that can only tell by leases whether others live."""
        return self._leases.has_strangers

    # The dead

    async def recover(self) -> int:
        """Take the runs of engines that are provably dead out of their hands.

        Returns how many runs that were running or pausing were recovered.
        """
        recovered = 0
        engines = list(self._store.list_engines())
        for row in self._leases.list_dead(engines, own_id=self._engine_id):
            for held in self._store.list_held(row.engine_id):
                if held.status in DRIVEN or held.cleanup == row.engine_id:
                    recovered += await self._try_to_free(held, row.engine_id)
            await self._store.remove_engine(row.engine_id, lease_until_ms=row.lease_until_ms)
        return recovered

    async def _try_to_free(self, held: Held, dead: EngineId) -> bool:
        """Free one run; what stands in its way is told once and holds up no other run."""
        try:
            freed = await self.free(held.run_id, held.tenant, dead)
        except StoreUnavailable:
            raise
        except EngineError as error:
            if held.run_id not in self._told:
                self._told.add(held.run_id)
                self._complain(f"run {held.run_id} stays with engine {dead}: {error}")
            return False
        self._told.discard(held.run_id)
        return freed and held.status in DRIVEN

    async def free(
        self,
        run_id: RunId,
        tenant: TenantId,
        dead: EngineId,
        *,
        owner: EngineId | None = None,
        policy: LossPolicy | None = None,
    ) -> bool:
        """End what the dead engine left of this run, then do with the run as the policy says.

        Returns whether it was this engine that freed the run.
        """
        try:
            view = await self._store.load(run_id, tenant=tenant)
        except EngineError as error:
            if error.code != DEFINITION_UNREADABLE:
                raise
            return await self._fail_unreadable(run_id, tenant, dead, str(error))
        if dead not in (view.run.engine_id, view.run.cleanup):
            return False  # another engine was first; the attempts of now are alive
        attempts = [
            attempt_id(run_id, view.plan.nodes[n].node_id, view.node(n).attempts)
            for n in view.nodes
        ]
        await self._executor.end_leftovers(engine_ids=[dead], attempt_ids=attempts)
        command: Command = ProcessesEnded(engine_id=dead)
        if view.run.engine_id == dead:
            command = Adopt(
                dead=dead,
                epoch=view.run.epoch,
                owner=owner,
                policy=policy or self._limits.restart_policy,
                probed=await self._probe(view),
            )
        return await self._has_done(run_id, command, tenant)

    async def _probe(self, view: RunView) -> tuple[Probed, ...]:
        """Ask the effects probes of the interrupted nodes that have one."""
        answers = [
            await self._runner.probe(view, view.plan.nodes[number])
            for number in sorted(view.running)
        ]
        return tuple(answer for answer in answers if answer is not None)

    async def _fail_unreadable(
        self, run_id: RunId, tenant: TenantId, dead: EngineId, why: str
    ) -> bool:
        await self._executor.end_leftovers(engine_ids=[dead], attempt_ids=[])
        run = self._store.find_run(run_id, tenant=tenant)
        if run is None or run.status is not RunState.RUNNING:
            raise Refused(f"run {run_id} cannot be read, and is not running: {why}")
        try:
            await self._store.fail_unreadable(
                run_id,
                tenant=tenant,
                dead=dead,
                why=why,
                change_id=self._new_change_id(),
                now_ms=self._clock.now_ms(),
            )
        except Refused:
            return False  # another engine was first
        return True

    # The silent

    async def reap(self) -> int:
        """Stop runs that show no life; return how many (run-lifecycle 3.8)."""
        limits = self._limits
        quiet = self._store.list_quiet(
            quiet_since_ms=self._clock.now_ms() - limits.stale_after_ms, limit=LIMIT
        )
        reaped = 0
        for_ms = self._longest_lease_ms() if quiet else 0
        for run in self._quiet.list_stale(list(quiet), for_ms=for_ms):
            command = Reap(
                stale_after_ms=limits.stale_after_ms,
                seen_change_id=run.last_change_id,
                seen_activity_at_ms=run.activity_at_ms,
            )
            reaped += await self._has_done(run.run_id, command, run.tenant)
        return reaped

    def _longest_lease_ms(self) -> int:
        """Return the span in which every engine that lives says so at least once."""
        leases = (row.lease_ms for row in self._store.list_engines())
        return max(self._lease_ms, *leases, 0)

    async def auto_resume(self) -> int:
        """Let runs go on that were found stale lately; return how many (run-lifecycle 2.3)."""
        limits = self._limits
        if not limits.auto_resume:
            return 0
        found = self._store.list_reaped(
            reaped_since_ms=self._clock.now_ms() - limits.auto_resume_window_ms,
            attempts_max=limits.auto_resumes_max,
            limit=LIMIT,
        )
        command = AutoResume(
            window_ms=limits.auto_resume_window_ms, attempts_max=limits.auto_resumes_max
        )
        return sum([await self._has_done(run_id, command, tenant) for tenant, run_id in found])

    async def _has_done(self, run_id: RunId, command: Command, tenant: TenantId) -> bool:
        try:
            await self._execute(run_id, command, tenant)
        except Refused:
            return False  # it has moved on, or another engine was first
        return True
