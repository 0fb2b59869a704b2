"""Schedules of stored automations: what is due becomes runs."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from tandem.domain.automation import Automation
from tandem.domain.creation import NewRun
from tandem.domain.errors import EngineError, StoreUnavailable
from tandem.domain.firing import Fired, FiringPlan, plan_firing
from tandem.domain.ids import ChangeId, TenantId
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.trigger import TriggerType
from tandem.engine.definitions import Definitions
from tandem.ports.clock import Clock
from tandem.ports.store import Store

LIMIT: Final = 100
"""So many automations are fired before the engine looks at something else."""


class Prepare(Protocol):
    """Puts a run together that is about to be created; see `Engine.prepare`."""

    def __call__(
        self,
        automation: Automation,
        *,
        tenant: TenantId,
        trigger_type: str,
        trigger_reason: str,
        consumed_handoff_id: str = "",
        stored_version: int,
    ) -> NewRun:
        """Return the run. Raises an `EngineError` when there can be none."""
        ...


class Schedules:
    """Fires what is due. Any number of engines may do it at once: of two, one fires."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        grace_ms: int,
        prepare: Prepare,
        new_change_id: Callable[[], ChangeId],
        created: Callable[[], None],
        complain: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._grace_ms = grace_ms
        self._prepare = prepare
        self._new_change_id = new_change_id
        self._created = created
        self._complain = complain
        self._definitions = Definitions(store)
        self._told: set[str] = set()

    async def fire_due(self) -> int:
        """Fire what is due; return how many automations moved on.

        Raises:
            StoreUnavailable: the store failed; what is due stays so.
        """
        now_ms = self._clock.now_ms()
        moved = 0
        for row in self._store.list_due_automations(now_ms=now_ms, limit=LIMIT):
            plan = self._plan(row, now_ms)
            if plan is None:
                continue
            try:
                fired = await self._fire(row, plan, now_ms)
            except StoreUnavailable:
                raise
            except EngineError:
                continue  # another engine was first
            moved += fired.row is not None
            if fired.run_ids:
                self._created()
        return moved

    def _plan(self, row: StoredAutomation, now_ms: int) -> FiringPlan | None:
        """Return what to do at a firing; None also for a panic, of which is told once.

        One schedule must not end the engine that fires all others, nor hold them up.
        """
        try:
            return plan_firing(row, grace_ms=self._grace_ms, now_ms=now_ms)
        except Exception as error:  # noqa: BLE001 # the boundary that has it told
            problem = (
                f"the schedule of automation `{row.automation_id}` does not fire: "
                f"working it out panicked: {type(error).__name__}: {error}"
            )
            if problem not in self._told:
                self._told.add(problem)
                self._complain(problem)
            return None

    async def _fire(self, row: StoredAutomation, plan: FiringPlan, now_ms: int) -> Fired:
        runs: list[NewRun] = []
        refusal = None
        try:
            runs = [self._new_run(row, due_at_ms) for due_at_ms in plan.due_at_ms]
        except StoreUnavailable:
            raise
        except EngineError as error:
            refusal = (error.code, str(error))
        return await self._store.fire(
            row,
            plan,
            runs,
            refusal=refusal,
            change_id=self._new_change_id(),
            now_ms=now_ms,
        )

    def _new_run(self, row: StoredAutomation, due_at_ms: int) -> NewRun:
        due = datetime.fromtimestamp(due_at_ms / 1_000, UTC).isoformat(timespec="seconds")
        return self._prepare(
            self._definitions.of(row),
            tenant=row.tenant,
            trigger_type=TriggerType.SCHEDULED,
            trigger_reason=f"scheduled for {due.replace('+00:00', 'Z')}",
            stored_version=row.version,
        )
