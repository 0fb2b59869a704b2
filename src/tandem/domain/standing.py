"""Why a run stands still: what it waits for, since when, who holds it, and what would free it.

Nothing waits without a reason that can be read (design section 2). The store reads the facts as one
picture, this module says what they mean; the sentences are for people, the other fields for
programs.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.admission import Facts, Lock, refuse
from tandem.domain.automation_keeping import hold_of
from tandem.domain.automation_review import Review, hold_sentence
from tandem.domain.deadline import deadline_of
from tandem.domain.guardrail import is_stopped
from tandem.domain.hold import Hold
from tandem.domain.ids import EngineId, RunId, TenantId
from tandem.domain.lifecycle import TERMINAL, RunEvent, RunState
from tandem.domain.overrun import allow_command, is_raised
from tandem.domain.run import Gate, LifecycleEvent, QueueReason, Run, Wait
from tandem.domain.stored_automation import StoredAutomation

Q, S = QueueReason, RunState
HOLDERS_NAMED_MAX: Final = 5


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that the store knows. `driven` counts the runs it drives, `where` names it."""

    engine_id: EngineId
    is_alive: bool
    labels: tuple[str, ...] = ()
    runs_max: int = 1
    runs_total_max: int | None = None
    own_only: bool = False
    driven: int = 0
    where: str = ""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has what another one waits for."""

    run_id: RunId
    tenant: TenantId
    engine_id: EngineId | None = None


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """One run and everything that may hold it. `claims` counts the holders of its key, all told."""

    run: Run
    now_ms: int
    gates: Sequence[Gate] = ()
    waits: Sequence[Wait] = ()
    events: Sequence[LifecycleEvent] = ()
    """The newest ones, newest first."""
    throttles: Mapping[str, int] = {}
    lock: Lock | None = None
    automation: StoredAutomation | None = None
    """The stored automation of the run, if there is one."""
    holders: Sequence[Holder] = ()
    claims: int = 0
    review: Review | None = None
    """The review of its automation, while one is required."""
    engines: Sequence[EngineFacts] = ()


class ReasonKind(StrEnum):
    """What a run waits for; the first ones are those of the queue."""

    RETRY_BACKOFF = "retry_backoff"
    AUTOMATION_PAUSED = "automation_paused"
    REVIEW_REQUIRED = "review_required"
    RATE_LIMIT = "rate_limit"
    WORKSPACE_LOCK = "workspace_lock"
    CONCURRENCY = "concurrency"
    CAPACITY = "capacity"
    NO_ENGINE = "no_engine"
    NOTHING = "nothing"
    """It is due and an engine has a place: it is about to be claimed."""
    GATE = "gate"
    TIMER = "timer"
    PAUSED = "paused"
    BUDGET = "budget"
    """Its budget is used up."""
    PAUSING = "pausing"
    RUNNING = "running"
    ENGINE_DEAD = "engine_dead"
    CLEANUP = "cleanup"
    ENDED = "ended"


K = ReasonKind


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run stands still.

    `held_by` names runs, engines, gates or providers; `freed_by` is what would let it go on;
    `until_ms` is when that happens by itself, if it does.
    """

    kind: ReasonKind
    sentence: str
    since_ms: int
    held_by: tuple[str, ...] = ()
    freed_by: str = ""
    until_ms: int | None = None
    missing: tuple[str, ...] = ()


def explain(found: Situation) -> Reason:
    """Return why the run stands still, or by whom it is driven."""
    run = found.run
    if run.cleanup and run.status in (S.QUEUED, *TERMINAL):
        return _cleanup(found, run.cleanup)
    if run.status in TERMINAL:
        return _ended(run)
    match run.status:
        case S.QUEUED:
            return _queued(found)
        case S.AWAITING_APPROVAL:
            return _at_gate(found)
        case S.PAUSED if run.parked:
            return _on_timer(found)
        case S.PAUSED if is_stopped(run):
            return _out_of_budget(found)
        case S.PAUSED:
            return _paused(found)
        case _:
            return _driven(found)


# In the queue


def _queued(found: Situation) -> Reason:
    run = found.run
    if run.due_at_ms is not None and run.due_at_ms > found.now_ms:
        return _not_due(found, run.due_at_ms)
    hold = hold_of(found.automation)
    if hold is not None:
        return _held(found, hold)
    refusal = refuse(
        run,
        Facts(throttles=found.throttles, lock=found.lock, claims=found.claims, review=found.review),
    )
    match refusal.reason if refusal is not None else None:
        case Q.REVIEW_REQUIRED if found.review is not None:
            return _to_review(run, found.review)
        case Q.RATE_LIMIT:
            return _throttled(found, max(found.throttles, key=lambda n: (found.throttles[n], n)))
        case Q.WORKSPACE_LOCK if found.lock is not None:
            return _locked(found, found.lock)
        case Q.CONCURRENCY:
            return _over_limit(found)
    return _without_place(found)


def _held(found: Situation, hold: Hold) -> Reason:
    return Reason(
        kind=K.AUTOMATION_PAUSED,
        sentence=f"{hold.words}; {_span(found.now_ms - hold.since_ms)} ago",
        since_ms=hold.since_ms,
        held_by=(hold.resource_key,),
        freed_by=f"`tandem automations resume {hold.holder}`",
    )


def _not_due(found: Situation, due_at_ms: int) -> Reason:
    run = found.run
    if run.queue_reason is Q.RATE_LIMIT:
        return _throttled(found, run.rate_limited_provider, until_ms=due_at_ms)
    node = run.resource_key.rpartition("/nodes/")[2]
    of_node = f" of node `{node}`" if node else ""
    return Reason(
        kind=K.RETRY_BACKOFF,
        sentence=f"waits for the next attempt{of_node}, due in {_span(due_at_ms - found.now_ms)}",
        since_ms=_queued_since(run),
        held_by=(run.resource_key,) if run.resource_key else (),
        freed_by="time",
        until_ms=due_at_ms,
    )


def _to_review(run: Run, review: Review) -> Reason:
    return Reason(
        kind=K.REVIEW_REQUIRED,
        sentence=hold_sentence(review),
        since_ms=max(_queued_since(run), review.review_requested_at_ms or 0),
        held_by=(review.review_request_id,),
        freed_by=f"`tandem governance acknowledge {review.automation_id}`",
    )


def _throttled(found: Situation, provider: str, *, until_ms: int | None = None) -> Reason:
    until_ms = found.throttles.get(provider, until_ms or found.now_ms)
    return Reason(
        kind=K.RATE_LIMIT,
        sentence=f"provider {provider} asked to be left alone for another "
        f"{_span(until_ms - found.now_ms)}",
        since_ms=_queued_since(found.run),
        held_by=(provider,),
        freed_by="time",
        until_ms=until_ms,
    )


def _locked(found: Situation, lock: Lock) -> Reason:
    run = found.run
    who, names = "a run of another tenant", tuple[str, ...]()
    if lock.tenant == run.tenant:
        who, names = f"run {lock.run_id} on engine {lock.engine_id}", (str(lock.run_id),)
    where = f"its workspace {run.lock_path}"
    if lock.path != run.lock_path and lock.tenant == run.tenant:
        where = f"its workspace {run.lock_path}, which overlaps {lock.path},"
    held_ms = found.now_ms - lock.since_ms
    return Reason(
        kind=K.WORKSPACE_LOCK,
        sentence=f"{where} is held by {who} for {_span(held_ms)} now",
        since_ms=_queued_since(run),
        held_by=names,
        freed_by="the end of that run, or its pause or cancellation once its processes are dead",
    )


def _over_limit(found: Situation) -> Reason:
    run = found.run
    names = tuple(holder.run_id for holder in found.holders if holder.tenant == run.tenant)
    key = run.concurrency_key.partition("://")[2].partition("/")[2]
    shown = ", ".join(names[:HOLDERS_NAMED_MAX])
    more = found.claims - min(len(names), HOLDERS_NAMED_MAX)
    others = f" and {more} more" if more > 0 else ""
    return Reason(
        kind=K.CONCURRENCY,
        sentence=f"{found.claims} of {run.concurrency_limit} places of the concurrency key `{key}` "
        f"are taken by {shown}{others}",
        since_ms=_queued_since(run),
        held_by=names,
        freed_by="one of these runs coming to rest",
    )


def _without_place(found: Situation) -> Reason:
    run = found.run
    place = find_place(run.labels, run.owner, found.engines)
    return Reason(
        kind=place.kind,
        sentence=place.sentence,
        since_ms=_queued_since(run),
        held_by=place.engines,
        freed_by=place.freed_by,
        missing=place.missing,
    )


def _queued_since(run: Run) -> int:
    return run.queued_at_ms if run.queued_at_ms is not None else run.created_at_ms


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an engine has a place for runs of a kind, or what is missing."""

    kind: ReasonKind
    sentence: str
    engines: tuple[str, ...] = ()
    freed_by: str = ""
    missing: tuple[str, ...] = ()


def find_place(
    labels: Iterable[str], owner: EngineId | None, engines: Sequence[EngineFacts]
) -> Place:
    """Say who could claim a due run with these labels and this owner, or what is missing."""
    alive = [engine for engine in engines if engine.is_alive]
    if not alive:
        return Place(
            kind=K.NO_ENGINE,
            sentence="no engine is alive",
            freed_by="starting one: `tandem resume` drives a run from here",
            missing=("engine",),
        )
    owners = [engine for engine in alive if engine.engine_id == owner]
    takers = owners or [engine for engine in alive if not engine.own_only]
    if not takers:
        return Place(
            kind=K.NO_ENGINE,
            sentence="the engines that are alive take only runs of their own",
            engines=_names(alive),
            freed_by="starting an engine for all runs, or `tandem resume`",
            missing=("engine",),
        )
    able = [engine for engine in takers if set(labels) <= set(engine.labels)]
    if not able:
        return _unlabelled(labels, takers, is_owned=bool(owners))
    full = [engine for engine in able if _is_full(engine, engines)]
    if len(full) == len(able):
        return _full(able, engines)
    whose = f"its owner, engine {owner}," if owners else "an engine"
    return Place(
        kind=K.NOTHING,
        sentence=f"nothing holds it: {whose} is about to claim it",
        engines=_names(able),
        freed_by="its turn",
    )


def _unlabelled(labels: Iterable[str], takers: Sequence[EngineFacts], *, is_owned: bool) -> Place:
    nearest = min(takers, key=lambda engine: len(set(labels) - set(engine.labels)))
    missing = tuple(sorted(set(labels) - set(nearest.labels)))
    names = ", ".join(missing)
    whose = f"its owner, engine {nearest.engine_id}, has not" if is_owned else "no engine has"
    return Place(
        kind=K.NO_ENGINE,
        sentence=f"{whose} all labels that it needs; missing: {names}",
        engines=_names(takers),
        freed_by=f"an engine with TANDEM_ENGINE_LABELS that hold {names}",
        missing=missing,
    )


def _is_full(engine: EngineFacts, engines: Iterable[EngineFacts]) -> bool:
    total = sum(other.driven for other in engines)
    over_total = engine.runs_total_max is not None and total >= engine.runs_total_max
    return over_total or engine.driven >= engine.runs_max


def _full(able: Sequence[EngineFacts], engines: Sequence[EngineFacts]) -> Place:
    places = ", ".join(
        f"{engine.driven} of {engine.runs_max} on engine {engine.engine_id}"
        for engine in able[:HOLDERS_NAMED_MAX]
    )
    totals = [engine.runs_total_max for engine in able if engine.runs_total_max is not None]
    total = sum(engine.driven for engine in engines)
    of_all = f"; {total} of {min(totals)} in all" if totals else ""
    return Place(
        kind=K.CAPACITY,
        sentence=f"all places are taken: {places}{of_all}",
        engines=_names(able),
        freed_by="any run coming to rest",
    )


def _names(engines: Iterable[EngineFacts]) -> tuple[str, ...]:
    return tuple(str(engine.engine_id) for engine in engines)


# Parked, paused, driven, ended


def _at_gate(found: Situation) -> Reason:
    gates = sorted(found.gates, key=lambda gate: (gate.requested_at_ms, gate.gate_id))
    names = ", ".join(f"`{gate.node_id}`" for gate in gates)
    offered = ", ".join(dict.fromkeys(word for gate in gates for word in gate.decisions))
    expiries = [at_ms for gate in gates if (at_ms := deadline_of(gate).expiry_at_ms()) is not None]
    return Reason(
        kind=K.GATE,
        sentence=f"waits for a person to decide gate {names}",
        since_ms=gates[0].requested_at_ms if gates else found.run.updated_at_ms,
        held_by=tuple(str(gate.gate_id) for gate in gates),
        freed_by=f"a decision: {offered}",
        until_ms=min(expiries, default=None),
    )


def _on_timer(found: Situation) -> Reason:
    waits = sorted(found.waits, key=lambda wait: (wait.due_at_ms or 0, wait.wait_id))
    due_at_ms = found.run.due_at_ms
    due = "" if due_at_ms is None else f", due in {_span(due_at_ms - found.now_ms)}"
    ways = ["its signal (`tandem waits resolve`)"] if any(w.signal_key for w in waits) else []
    if due:
        ways.append("time")
    return Reason(
        kind=K.TIMER,
        sentence=f"waits for the {found.run.parked}{due}",
        since_ms=min((w.registered_at_ms for w in waits), default=found.run.updated_at_ms),
        held_by=tuple(str(wait.wait_id) for wait in waits),
        freed_by=", or ".join(ways),
        until_ms=due_at_ms,
    )


_PAUSES: Final = frozenset({RunEvent.RUN_PAUSED, RunEvent.RUN_PAUSING_SETTLED})


def _paused(found: Situation) -> Reason:
    event = next((event for event in found.events if event.event in _PAUSES), None)
    who = str(event.metadata.get("actor", "")) if event is not None else ""
    by = f" by {who}" if who else ""
    return Reason(
        kind=K.PAUSED,
        sentence=f"paused{by}: {found.run.pause_reason or 'no reason was given'}",
        since_ms=event.recorded_at_ms if event is not None else found.run.updated_at_ms,
        held_by=(who,) if who else (),
        freed_by="`tandem resume`, or its cancellation",
    )


def _out_of_budget(found: Situation) -> Reason:
    run = found.run
    event = next((event for event in found.events if event.event in _PAUSES), None)
    raised = is_raised(run, now_ms=found.now_ms)
    words = (
        "its budget was used up and has been raised since" if raised else "its budget is used up"
    )
    return Reason(
        kind=K.BUDGET,
        sentence=f"{words}: {run.stop_reason}",
        since_ms=event.recorded_at_ms if event is not None else run.updated_at_ms,
        freed_by="`tandem resume`" if raised else allow_command(run),
    )


def _driven(found: Situation) -> Reason:
    run = found.run
    since_ms = run.started_at_ms or run.created_at_ms
    engine, state = _engine(found, run.engine_id)
    names = (str(run.engine_id),)
    if not (engine and engine.is_alive):
        return Reason(
            kind=K.ENGINE_DEAD,
            sentence=f"engine {run.engine_id}, which drove it, {state}",
            since_ms=since_ms,
            held_by=names,
            freed_by="the next look of any engine, or `tandem resume`",
        )
    if run.status is S.PAUSING:
        return Reason(
            kind=K.PAUSING,
            sentence=f"the attempts that run on engine {run.engine_id} are let to their end",
            since_ms=since_ms,
            held_by=names,
            freed_by="their end",
        )
    return Reason(
        kind=K.RUNNING,
        sentence=f"engine {run.engine_id} ({engine.where}) drives it: {run.detail}",
        since_ms=since_ms,
        held_by=names,
    )


def _cleanup(found: Situation, engine_id: EngineId) -> Reason:
    run = found.run
    _, state = _engine(found, engine_id)
    return Reason(
        kind=K.CLEANUP,
        sentence=f"{run.status.value}, but processes of it may still live on engine {engine_id}, "
        f"which {state}; it keeps its workspace until they are proven dead",
        since_ms=run.finished_at_ms or run.updated_at_ms,
        held_by=(str(engine_id),),
        freed_by="the end of these processes",
    )


def _ended(run: Run) -> Reason:
    why = f": {run.detail}" if run.detail else ""
    return Reason(
        kind=K.ENDED,
        sentence=f"it has ended, {run.status.value}{why}",
        since_ms=run.finished_at_ms or run.updated_at_ms,
        freed_by="`tandem resume`" if run.status in (S.FAILED, S.BLOCKED) else "",
    )


def _engine(found: Situation, engine_id: EngineId | None) -> tuple[EngineFacts | None, str]:
    for engine in found.engines:
        if engine.engine_id == engine_id:
            return engine, "is alive" if engine.is_alive else "is dead"
    return None, "is gone"


def _span(span_ms: int) -> str:
    """Write a span for a person, coarsely."""
    seconds = max(span_ms, 0) // 1000
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7_200:
        return f"{seconds // 60} min"
    return f"{seconds // 3_600} h"
