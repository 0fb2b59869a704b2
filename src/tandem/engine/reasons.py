"""Asking why: the facts of the store and of this host, put together for `domain.standing`."""

from tandem.domain.admission import Metrics, mean_and_p95
from tandem.domain.ids import RunId, TenantId
from tandem.domain.run import QueueReason
from tandem.domain.standing import EngineFacts, Reason, ReasonKind, Situation, explain, find_place
from tandem.ports.host import Host
from tandem.ports.store import EngineRow, Store


def why(
    store: Store,
    host: Host,
    run_id: RunId,
    *,
    tenant: TenantId,
    now_ms: int,
    leaving: str = "",
) -> Reason:
    """Return why a run stands still, or by whom it is driven.

    Args:
        store: where the run is.
        host: knows which engines are alive.
        run_id: of the run.
        tenant: whose run it is.
        now_ms: the moment for which the question is asked.
        leaving: an engine that is about to leave and does not count as alive any more.

    Raises:
        NotFound: no such run for this tenant.
    """
    facts = store.read_standing(run_id, tenant=tenant, now_ms=now_ms)
    return explain(
        Situation(
            run=facts.run,
            now_ms=now_ms,
            gates=facts.gates,
            waits=facts.waits,
            events=facts.events,
            throttles=facts.throttles,
            lock=facts.lock,
            holders=facts.holders,
            claims=facts.claims,
            engines=_engines(store, host, now_ms=now_ms, leaving=leaving),
        )
    )


def scheduler_metrics(store: Store, host: Host, *, now_ms: int) -> Metrics:
    """Return what the scheduler has done and has to do, over all tenants (run-lifecycle 3.5).

    A due run that nothing is known to hold counts as `capacity` or `no_engine` when no engine has
    a place for it, and is left out when one is about to claim it.
    """
    queue = store.read_queue(now_ms=now_ms)
    engines = _engines(store, host, now_ms=now_ms)
    by_reason: dict[str, int] = {}
    for lane in queue.lanes:
        reason = lane.reason
        if not reason or lane.is_due:
            place = find_place(lane.labels, lane.owner, engines)
            reason = "" if place.kind is ReasonKind.NOTHING else QueueReason(place.kind.value)
        if reason:
            by_reason[reason] = by_reason.get(reason, 0) + lane.runs
    avg_ms, p95_ms = mean_and_p95(queue.waits_ms)
    return Metrics(
        active_runs=queue.active_runs,
        queued_runs_by_reason=by_reason,
        admitted_total=queue.admitted_total,
        completed_total=queue.completed_total,
        avg_wait_ms=avg_ms,
        p95_wait_ms=p95_ms,
    )


def _engines(store: Store, host: Host, *, now_ms: int, leaving: str = "") -> list[EngineFacts]:
    driven = store.count_driven()
    return [
        EngineFacts(
            engine_id=row.engine_id,
            is_alive=row.engine_id != leaving and not host.is_dead(row, now_ms=now_ms),
            labels=row.labels,
            runs_max=row.runs_max,
            runs_total_max=row.runs_total_max,
            own_only=row.own_only,
            driven=driven.get(row.engine_id, 0),
            where=_where(row),
        )
        for row in store.list_engines()
    ]


def _where(row: EngineRow) -> str:
    return f"process {row.pid} on {row.host.partition('/')[0]}"
