"""Reading what runs wait for; the caller has begun a transaction, so that it is one picture."""

from collections.abc import Mapping
from typing import Any, Final

import apsw

from tandem.adapters.sql import rows
from tandem.adapters.sqlite import keys, reviewing
from tandem.adapters.sqlite.admitting import (
    THROTTLES_MAX,
    lane_of,
    throttles_in_the_way,
)
from tandem.adapters.sqlite.tables import Tables, fetch
from tandem.domain.errors import EngineError, NotFound
from tandem.domain.ids import EngineId, RunId, TenantId
from tandem.domain.run import Run
from tandem.domain.standing import Holder
from tandem.ports.store import LaneCount, Queue, Standing

EVENTS_MAX: Final = 50
HOLDERS_MAX: Final = 20


def read_standing(
    tables: Tables, connection: apsw.Connection, run_id: RunId, *, tenant: TenantId, now_ms: int
) -> Standing:
    """Read one run and what may hold it.

    Raises:
        NotFound: no such run for this tenant.
    """
    sql = tables.sql
    found = fetch(connection, sql["find_run"], (run_id, tenant))
    if not found:
        raise NotFound(f"there is no run {run_id}; `tandem runs list` shows the ones there are")
    run = rows.run_of(found[0])
    claims, holders = _holders(tables, connection, run)
    lock = keys.find_lock(connection, sql, run.lock_path) if run.lock_path else None
    return Standing(
        run=run,
        gates=[rows.gate_of(r) for r in fetch(connection, sql["list_gates_of_run"], (run.run_no,))],
        waits=tables.open_waits(connection, run, tables.packed(connection, run)),
        events=tables.newest_events(connection, run, limit=EVENTS_MAX),
        throttles=_throttles(tables, connection, run, now_ms),
        lock=lock if lock is None or lock.run_no != run.run_no else None,
        automation=tables.find_automation(connection, tenant, run.automation_id),
        holders=holders,
        claims=claims,
        review=reviewing.find_review(connection, sql, run.tenant, run.automation_id),
    )


def _throttles(
    tables: Tables, connection: apsw.Connection, run: Run, now_ms: int
) -> Mapping[str, int]:
    values = (run.tenant, now_ms, THROTTLES_MAX)
    known = {
        row["provider"]: row["until_ms"]
        for row in fetch(connection, tables.sql["list_throttles"], values)
    }
    if not known:
        return {}
    try:
        return throttles_in_the_way(tables.load_by_no(connection, run.run_no), known)
    except EngineError:
        return {}  # its definition cannot be read, which is what will be told


def _holders(
    tables: Tables, connection: apsw.Connection, run: Run
) -> tuple[int, tuple[Holder, ...]]:
    if not run.concurrency_key:
        return 0, ()
    found = fetch(connection, tables.sql["list_under_key"], (run.concurrency_key, HOLDERS_MAX))
    holders = tuple(
        Holder(
            run_id=RunId(row["run_id"]),
            tenant=TenantId(row["tenant"]),
            engine_id=row["engine_id"] or row["cleanup"],
        )
        for row in found
        if row["run_id"] != run.run_id
    )
    claims = keys.count_claims(connection, tables.sql, run.concurrency_key)
    return claims - (len(found) - len(holders)), holders


def read_queue(tables: Tables, connection: apsw.Connection, *, now_ms: int) -> Queue:
    """Read the queue, counted by lane, and what was counted of admissions."""
    sql = tables.sql
    (state,) = fetch(connection, sql["get_admission"], ())
    waits: list[Any] = connection.execute(sql["list_waits_of_admission"]).fetchall()
    driven: list[Any] = connection.execute(sql["count_driven"]).fetchall()
    return Queue(
        active_runs=int(driven[0][0]),
        lanes=[_lane_count(row) for row in fetch(connection, sql["count_queued"], (now_ms,))],
        admitted_total=state["admitted_total"],
        completed_total=state["completed_total"],
        waits_ms=[int(wait_ms) for (wait_ms,) in waits],
    )


def _lane_count(row: Mapping[str, Any]) -> LaneCount:
    lane = lane_of(row["lane"]) if row["lane"] else None
    return LaneCount(
        labels=lane.labels if lane is not None else (),
        owner=EngineId(lane.owner) if lane is not None and lane.owner is not None else None,
        reason=row["reason"],
        is_due=bool(row["is_due"]),
        runs=row["runs"],
    )
