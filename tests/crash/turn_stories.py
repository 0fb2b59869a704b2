"""Everything that an engine looks after by itself, told in a process that a test can kill.

`fill` makes a store in which every part of a turn finds something to do, `turn` takes that turn,
`finish` drives what can be driven to where it rests. See `program.py`.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import apsw

import tandem.wiring
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.sqlite import keys, signals
from tandem.domain.automation import Automation
from tandem.domain.command import Cancel
from tandem.domain.handoff import Handoff
from tandem.domain.ids import LOCAL_TENANT, AutomationId, ChangeId, RunId
from tandem.domain.lifecycle import DRIVEN, RunState
from tandem.domain.request_key import request_key
from tandem.domain.run import QueueReason, Run
from tandem.domain.signal import Signal, SignalKind
from tandem.domain.webhook import TriggerSpec
from tandem.domain.webhook_signature import Incoming, signature_of
from tandem.engine.leases import QuietWatch
from tandem.engine.sweeps import Sweeps
from tandem.engine.webhooks import Made
from tandem.ports.store import RunFilter
from tandem.settings import Settings
from tandem.wiring import Parts

HOUR_MS: Final = 3_600_000
AHEAD_MS: Final = 40 * 24 * HOUR_MS
"""The clock of whoever takes a turn: by then everything is due, and what is old is very old."""
NEVER_MS: Final = 400 * 24 * HOUR_MS
UNREADABLE: Final = "lost-1"
SIGNALLED: Final = ("signalled-1", "signalled-2", "signalled-3")
HELD: Final = ("held-1", "held-2", "held-3")
DELIVERED: Final = ("e1", "e2")
"""One delivery wakes a wait, the other one becomes a run."""
BODY: Final = b'{"issue": 1}'

Function = Callable[..., object]
at_work = ""
"""Which part of a turn is being taken."""


def wait(**fields: Any) -> dict[str, Any]:
    return {"wait": {"timeout": {"expires_after_ms": HOUR_MS}, **fields}}


def condition(key: str, **timeout: Any) -> dict[str, Any]:
    named = {"kind": "external_condition", "condition_key": {"source": "literal", "value": key}}
    return wait(**named, timeout={"expires_after_ms": HOUR_MS, **timeout})


def gate(**policy: Any) -> dict[str, Any]:
    return {"gate": {"required": True, "expiry_policy": {"expires_after_ms": HOUR_MS, **policy}}}


def hook(trigger_id: str, **timeout: Any) -> dict[str, Any]:
    value = {"source": "literal", "value": "e1"}
    correlation = {"field": "provider_event_id", "value": value}
    named = {"kind": "webhook", "trigger_id": trigger_id, "correlation": correlation}
    return wait(**named, timeout={"expires_after_ms": HOUR_MS, **timeout})


PARKED: Final[dict[str, dict[str, Any]]] = {
    "gate-cancels": gate(on_expiry="cancel"),
    "gate-resumes": gate(on_expiry="resume"),
    "gate-escalates": gate(on_expiry="escalate", escalate_to="lead"),
    "gate-reminds": gate(on_expiry="remind", remind_every_ms=HOUR_MS),
    "gate-grows-stale": gate(expires_after_ms=NEVER_MS),
    "timer": {"wait": {"kind": "timer", "delay_ms": HOUR_MS}},
    "condition-cancels": condition("c1"),
    "condition-resumes": condition("c2", on_timeout="resume"),
    "condition-escalates": condition("c3", on_timeout="escalate"),
    "condition-reminds": condition("c4", on_timeout="remind", remind_every_ms=HOUR_MS),
    "webhook-resumes": hook("whtr_none", on_timeout="resume"),
    **{name: condition("ready", expires_after_ms=NEVER_MS) for name in SIGNALLED},
}
"""What runs wait for, by the automation that does."""


def automation(name: str, first: dict[str, Any] | None = None, **fields: Any) -> Automation:
    """Return an automation that does one thing, after what it waits for first."""
    action = {"kind": "python", "function": "host:work", "arguments": {"name": name}}
    nodes: list[dict[str, Any]] = [{"node_id": "work", "action": action}]
    if first is not None:
        nodes = [{"node_id": "first", **first}, {**nodes[0], "depends_on": ["first"]}]
    document = {"automation_id": name, **fields, "flow": {"nodes": nodes}}
    return Automation.model_validate(document)


def runs_of(parts: Parts) -> list[Run]:
    return list(parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT, limit=1_000)))


def find(parts: Parts, name: str) -> RunId:
    (run,) = [run for run in runs_of(parts) if run.automation_id == name]
    return run.run_id


async def until(parts: Parts, holds: Callable[[Run], bool]) -> None:
    while not all(map(holds, runs_of(parts))):
        await asyncio.sleep(0.01)


async def no_sweeps(self: Sweeps, is_stopping: Callable[[], bool]) -> None:
    """Look after nothing."""


async def die(settings: Settings, work: Function) -> None:
    """Be killed in the middle of a body; what other engines left is left alone."""
    Sweeps.run = no_sweeps  # type: ignore[method-assign] # what it would do is to be found later

    def killed(name: str) -> None:
        work(name)
        os.kill(os.getpid(), signal.SIGKILL)

    functions = {"host:work": killed}
    async with tandem.wiring.open_engine(
        settings, own_only=True, registered=functions, in_process=True
    ) as parts:
        name = f"lost-{len(runs_of(parts)) + 1}"
        await parts.engine.start(automation(name), owned=True)
        await asyncio.Event().wait()


async def fill(settings: Settings, work: Function) -> None:
    """Leave something to do for every part of a turn."""
    Sweeps.run = no_sweeps  # type: ignore[method-assign] # as above
    signals.WAITS_AT_ONCE = 1  # type: ignore[misc] # so that three waits are more than that
    keys.wake.__kwdefaults__["limit"] = 1
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        await parts.engine.enrol(AutomationId("held"), runs_max=1)
        for name in ("ended", *HELD):
            held = automation(name).model_copy(update={"automation_id": "held"})
            run = await parts.engine.start(held, trigger_reason=name)
            if name == "ended":
                first = run.run_id
        await parts.engine.execute(first, Cancel())
        made = await keep_automations(parts, settings)
        woken = hook(made.trigger.trigger_id, expires_after_ms=NEVER_MS)
        for name, node in {**PARKED, "webhook-wakes": woken}.items():
            await parts.engine.start(automation(name, node))
    functions = {"host:work": work}
    async with tandem.wiring.open_engine(settings, registered=functions, in_process=True) as parts:
        await until(parts, is_left_alone)
        # An engine that leaves learns; here that is left to others.
        parts.engine._learning.finish = nothing  # type: ignore[method-assign]
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        await leave_work(parts, made)
        spoil(settings, find(parts, UNREADABLE))


def spoil(settings: Settings, run_id: RunId) -> None:
    """Leave a run of a dead engine whose definition cannot be read."""
    connection = apsw.Connection(str(settings.store_path))
    connection.execute(
        "UPDATE definition SET document = ? WHERE digest ="
        " (SELECT definition_digest FROM run WHERE run_id = ?)",
        (b"{}", run_id),
    )
    connection.close()


async def nothing() -> None:
    """Do nothing."""


def is_left_alone(run: Run) -> bool:
    """Say whether an engine that looks after nothing has nothing to do with a run."""
    is_lost = run.automation_id.startswith("lost")
    held = run.queue_reason is QueueReason.REVIEW_REQUIRED
    return is_lost or held or (run.status is not RunState.QUEUED and run.status not in DRIVEN)


async def keep_automations(parts: Parts, settings: Settings) -> Made:
    """Save what starts runs by itself; return the trigger at which a delivery will come."""
    interval = {"type": "interval", "interval_seconds": 3_600}
    schedule = {**interval, "misfire_policy": {"type": "run_once"}}
    await parts.automations.save(automation("scheduled", schedule=schedule), by="ann")
    watching = automation(
        "watching",
        workspace_root=str(settings.state_dir / "work"),
        watch_conditions=[{"kind": "handoff_available"}],
        execution={"workspace": "none"},
    )
    await parts.automations.save(watching, by="ann")
    await parts.automations.save(automation("hooked"), by="ann")
    spec = TriggerSpec(provider="generic")
    return await parts.webhooks.create(AutomationId("hooked"), spec, tenant=LOCAL_TENANT)


async def deliver(parts: Parts, made: Made) -> None:
    """Take deliveries that nobody has looked at yet."""
    sign = signature_of(made.secret, SystemClock().now_ms(), BODY)
    found = parts.webhooks.find_by_token(made.trigger.public_path_token)
    for event_id in DELIVERED:
        headers = {"x-tandem-webhook-signature": sign, "x-event-id": event_id}
        await parts.webhooks.receive(found, Incoming(headers=headers, body=BODY))


async def leave_work(parts: Parts, made: Made) -> None:
    """Cut off what is done in several steps after the first of them."""
    await deliver(parts, made)
    await parts.engine.acknowledge_review(AutomationId("held"), by="ann", runs_max=0)
    await parts.store.deliver(
        Signal(kind=SignalKind.EXTERNAL_CONDITION, subject="ready", idempotency_key="k1"),
        tenant=LOCAL_TENANT,
        change_id=ChangeId("cut-off"),
        now_ms=SystemClock().now_ms(),
    )
    key = request_key("run_now:job", "k1", {})
    await parts.engine.start(automation("asked-for"), key=key)
    await parts.engine.execute(find(parts, "asked-for"), Cancel())
    parts.engine.handoffs.deposit(
        Handoff(
            handoff_id="h1",
            source_automation_id="scan",
            source_run_id="run",
            source_node_id="node",
            target_automation_id="watching",
            artifact_type="batch",
            created_at_ms=5,
        )
    )


def look_ahead() -> None:
    """Take the turn long after the store was filled; no silence needs a long look."""
    now_ms, look = SystemClock.now_ms, QuietWatch.list_stale
    SystemClock.now_ms = lambda self: now_ms(self) + AHEAD_MS  # type: ignore[method-assign] # nobody waits for weeks
    QuietWatch.list_stale = lambda self, quiet, for_ms: look(self, quiet, for_ms=0)  # type: ignore[method-assign] # as above
    signals.WAITS_AT_ONCE = 1  # type: ignore[misc] # as when the store was filled


def parts_of_a_turn(engine: Any) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return what an engine does by itself, but for driving runs."""
    steps = {name: step for name, step in engine.steps.items() if name != "claim_some"}
    return {**steps, **engine.sweeps.parts}


async def turn(settings: Settings, work: Function) -> None:
    """Do once what is due everywhere."""
    global at_work
    look_ahead()
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        for name, part in parts_of_a_turn(parts.engine).items():
            at_work = name
            await part()


async def finish(settings: Settings, work: Function) -> None:
    """Drive everything to where it rests."""
    look_ahead()
    functions = {"host:work": work}
    async with tandem.wiring.open_engine(settings, registered=functions, in_process=True) as parts:
        await until(parts, lambda r: r.status is not RunState.QUEUED and r.status not in DRIVEN)
        while parts.store.list_learning_due(limit=1):
            await asyncio.sleep(0.01)


async def enrol(settings: Settings, work: Function) -> None:
    """Have the first end of an automation be reviewed."""
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        await parts.engine.enrol(AutomationId("reviewed"), runs_max=1)


TURNS: dict[str, Callable[[Settings, Function], Awaitable[None]]] = {
    "die": die,
    "fill": fill,
    "turn": turn,
    "enrol": enrol,
    "finish": finish,
}
