"""What people and programs ask of a store beside the runs, in a process that a test can kill.

`furnish` adds to what `fill` of `turn_stories.py` made; every other story asks for one thing.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from turn_stories import Function, automation, find, no_sweeps, runs_of, until

import tandem.wiring
from tandem.domain.assertion import AssertionUse, ReplayMode
from tandem.domain.audit import AuditEntry, AuditEvent
from tandem.domain.automation import Automation
from tandem.domain.caller import Scope
from tandem.domain.candidate import ReviewAction
from tandem.domain.ids import LOCAL_TENANT, AutomationId, TenantId
from tandem.domain.lifecycle import RunState
from tandem.domain.request_key import request_key
from tandem.domain.run import QueueReason, Run
from tandem.domain.session import AddSession
from tandem.domain.webhook import TriggerPatch, TriggerSpec, WebhookTrigger
from tandem.ports.learning import CandidateFilter
from tandem.ports.webhooks import DeliveryFilter
from tandem.settings import Settings
from tandem.wiring import Parts

TASKS: Final = {"builder": {"project_backlog_tasks": True}}
LATER_MS: Final = 4_000_000_000_000
JOB, LOST, HOOKED = AutomationId("job"), AutomationId("lost-1"), AutomationId("hooked")


def planner() -> Automation:
    action = {"kind": "python", "function": "host:plan", "arguments": {"name": "plan"}}
    node = {"node_id": "plan", "action": action, "metadata": TASKS}
    return Automation.model_validate({"automation_id": "planner", "flow": {"nodes": [node]}})


async def furnish(settings: Settings, work: Function) -> None:
    """Leave tasks, a candidate, a token and triggers, and automations that are and are not held."""

    def plan(name: str) -> object:
        return {"backlog_tasks": [{"title": "One"}, {"title": "Two"}]}

    tandem.engine.sweeps.Sweeps.run = no_sweeps  # type: ignore[method-assign] # nothing else goes on
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        for name in (JOB, LOST, "resting"):
            await parts.automations.save(automation(name), by="ann")
        await parts.automations.pause("resting", by="ann")
        await parts.automations.run("resting")
        await parts.tokens.create(tenant=LOCAL_TENANT, name="t", scopes=[Scope.VIEWER])
        await parts.engine.enrol(JOB, runs_max=3)
        notion = TriggerSpec(provider="notion")
        await parts.webhooks.create(HOOKED, notion, tenant=LOCAL_TENANT)
        await parts.engine.start(planner())
    functions = {"host:work": work, "host:plan": plan}
    async with tandem.wiring.open_engine(settings, registered=functions, in_process=True) as parts:
        await until(parts, is_planned_or_held)
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        run = find(parts, "planner")
        await parts.engine.backlogs.claim(run, task(1), agent_id="ann", command_id="claim-1")


def task(number: int) -> str:
    return f"backlog-plan-{('one', 'two')[number - 1]}"


def is_planned_or_held(run: Run) -> bool:
    if run.automation_id == "planner":
        return run.status is RunState.COMPLETED
    return run.automation_id != "resting" or run.queue_reason is QueueReason.AUTOMATION_PAUSED


def hook_of(parts: Parts, provider: str) -> WebhookTrigger:
    found = parts.webhooks.list(HOOKED, tenant=LOCAL_TENANT)
    return next(trigger for trigger in found if trigger.provider == provider)


def candidate(parts: Parts) -> str:
    return parts.store.list_candidates(CandidateFilter(tenant=LOCAL_TENANT))[0].candidate_id


async def save(parts: Parts) -> object:
    edited = automation(JOB).model_copy(update={"name": "another"})
    return await parts.automations.save(edited, by="ann")


async def run_keyed(parts: Parts) -> object:
    return await parts.automations.run(JOB, key=request_key("run_now:job", "k-2", {}))


async def complete_task(parts: Parts) -> object:
    run = find(parts, "planner")
    (row,) = [run for run in runs_of(parts) if run.automation_id == "planner"]
    tasks = parts.store.read_backlog(row)[0].tasks
    token = next(one.lease_token for one in tasks if one.task_id == task(1))
    return await parts.engine.backlogs.complete(run, task(1), lease_token=token or "")


async def redeliver(parts: Parts) -> object:
    trigger = hook_of(parts, "generic")
    chosen = DeliveryFilter(tenant=LOCAL_TENANT)
    delivery = parts.store.list_deliveries(chosen)[0]
    return await parts.webhooks.redeliver(
        HOOKED, trigger.trigger_id, delivery.delivery_id, tenant=LOCAL_TENANT
    )


def webhooks(name: str, provider: str, *more: Any, **how: Any) -> "Ask":
    """Ask something of a trigger."""

    def ask(parts: Parts) -> Awaitable[object]:
        method = getattr(parts.webhooks, name)
        asked: Awaitable[object] = method(
            HOOKED, hook_of(parts, provider).trigger_id, *more, tenant=LOCAL_TENANT, **how
        )
        return asked

    return ask


def backlogs(name: str, number: int) -> "Ask":
    """Ask something of a task."""
    return lambda parts: getattr(parts.engine.backlogs, name)(find(parts, "planner"), task(number))


Ask = Callable[[Parts], Awaitable[object]]
DESK: Final[dict[str, Ask]] = {
    "automations apply": save,
    "automations pause": lambda parts: parts.automations.pause(LOST, by="ann"),
    "automations resume": lambda parts: parts.automations.resume("resting", by="ann"),
    "automations delete": lambda parts: parts.automations.delete(JOB, by="ann"),
    "automations run": run_keyed,
    "backlog claim": backlogs("claim", 2),
    "backlog requeue": backlogs("requeue", 1),
    "backlog complete": complete_task,
    "learning review": lambda parts: parts.engine.review_candidate(
        candidate(parts), ReviewAction.APPROVE, by="ann"
    ),
    "governance enrol": lambda parts: parts.engine.enrol(LOST, runs_max=3),
    "governance acknowledge": lambda parts: parts.engine.acknowledge_review(
        AutomationId("held"), by="ann"
    ),
    "tokens create": lambda parts: parts.tokens.create(
        tenant=LOCAL_TENANT, name="u", scopes=[Scope.VIEWER]
    ),
    "tokens revoke": lambda parts: parts.tokens.revoke(parts.tokens.list()[0].token_id),
    "token used": lambda parts: parts.store.note_token_use(
        parts.tokens.list()[0].token_id, now_ms=LATER_MS
    ),
    "assertion used": lambda parts: parts.store.use_assertion(
        AssertionUse(issuer="i", assertion_id="a", digest=b"d", expires_at_ms=LATER_MS),
        mode=ReplayMode.ONE_SHOT,
        now_ms=1,
    ),
    "denied": lambda parts: parts.store.add_audit(
        AuditEntry(event=AuditEvent.AUTH_DENIED, tenant=TenantId("local"), recorded_at_ms=1)
    ),
    "session opened": lambda parts: parts.store.tend_session(
        AddSession(session_id="s", run_id=find(parts, "planner")), tenant=LOCAL_TENANT
    ),
    "webhooks create": lambda parts: parts.webhooks.create(
        HOOKED, TriggerSpec(provider="generic"), tenant=LOCAL_TENANT
    ),
    "webhooks enable": webhooks("patch", "generic", TriggerPatch(name="other")),
    "webhooks disable": webhooks("disable", "generic"),
    "webhooks rotate": webhooks("rotate", "generic", by="ann", overlap_ms=1_000),
    "webhooks set up again": webhooks("reset_verification", "notion"),
    "webhooks redeliver": redeliver,
    "webhooks delete": webhooks("delete", "generic"),
}
"""What is asked for: by its command where there is one."""


async def ask(settings: Settings, name: str) -> None:
    """Ask for one thing, as a command line does."""
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        await DESK[name](parts)
