"""What starts runs by itself, told in a process that a test can kill; see `program.py`."""

from collections.abc import Awaitable, Callable

import tandem.wiring
from tandem.adapters.local.clock import SystemClock
from tandem.domain.handoff import Handoff
from tandem.domain.ids import LOCAL_TENANT, AutomationId
from tandem.ports.store import RunFilter
from tandem.settings import Settings

INTERVAL_S = 3_600
AHEAD_MS = 3_700_000
"""The clock of whoever fires: one instant of the schedule is over, by more than is on time."""
TASK = "backlog-plan-one"
HANDOFF = Handoff(
    handoff_id="h1",
    source_automation_id="scan",
    source_run_id="run",
    source_node_id="node",
    target_automation_id="job",
    artifact_type="batch",
    created_at_ms=5,
)


async def fire(settings: Settings) -> None:
    """Fire what is due."""
    now_ms = SystemClock.now_ms
    SystemClock.now_ms = lambda self: now_ms(self) + AHEAD_MS  # type: ignore[method-assign] # nobody waits for an hour
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        while await parts.engine.schedules.fire_due():
            pass


async def take_handoffs(settings: Settings) -> None:
    """Take what was handed over, and look once more."""
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        await parts.engine.handoffs.tend()
        await parts.engine.handoffs.tend()


async def approve_handoff(settings: Settings) -> None:
    """Approve a handoff that is in the inbox."""
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        parts.engine.handoffs.approve(AutomationId("job"), "h1")


async def deposit_handoff(settings: Settings) -> None:
    """Put a handoff before the automation that it is for."""
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        parts.engine.handoffs.deposit(HANDOFF)


async def claim_task(settings: Settings) -> None:
    """Claim the task of the newest run; the command is the same one each time."""
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        (run,) = parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        await parts.engine.backlogs.claim(run.run_id, TASK, agent_id="ann", command_id="claim-1")


STORIES: dict[str, Callable[[Settings], Awaitable[None]]] = {
    "fire": fire,
    "take-handoffs": take_handoffs,
    "deposit-handoff": deposit_handoff,
    "approve-handoff": approve_handoff,
    "claim-task": claim_task,
}
