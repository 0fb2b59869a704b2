"""Reading what records and lists of runs are made of; each function is one picture.

The caller has begun a transaction.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sqlite.archive import Packed
from tandem.adapters.sqlite.sessions import SESSIONS_MAX, session_of
from tandem.adapters.sqlite.tables import Tables, bare_view, fetch
from tandem.domain.errors import DEFINITION_UNREADABLE, EngineError
from tandem.domain.ids import AutomationId, RunId, TenantId
from tandem.domain.lifecycle import DRIVEN, NodeState, RunEvent
from tandem.domain.run import Attempt, Gate, LifecycleEvent, NodeRun, Run
from tandem.domain.run_picture import HISTORY_MAX, RunPicture
from tandem.domain.session import InstanceRow, RunSessions, sessions_of
from tandem.domain.view import RunView
from tandem.ports.store import Judged, RunPage, RunPlace, RunSearch

_NUMBER_MAX: Final = 2**62
_LOWER: Final = {ord(upper): upper.lower() for upper in string.ascii_uppercase}
"""What `lower` of the statements does; other letters count as they are."""


def read_picture(
    tables: Tables, connection: apsw.Connection, run_id: RunId, *, tenant: TenantId
) -> RunPicture:
    """Read a run with everything that its record shows.

    Raises:
        NotFound: no such run for this tenant.
    """
    run = tables.run(connection, run_id, tenant)
    packed = tables.packed(connection, run)
    newest = tables.newest_events(connection, run, limit=HISTORY_MAX, packed=packed)
    events = newest[::-1]
    view = _view(tables, connection, run, packed)
    claim, lease_until_ms = _claim(tables, connection, run, events)
    return RunPicture(
        view=view if view is not None else bare_view(run),
        is_readable=view is not None,
        attempts=[] if view is None else _attempts(tables, connection, view, packed),
        gates=_gates(tables, connection, run),
        events=events,
        sessions=read_sessions(tables, connection, run),
        claim=claim,
        lease_until_ms=lease_until_ms,
    )


def read_sessions(tables: Tables, connection: apsw.Connection, run: Run) -> RunSessions:
    """Read what counts of the sessions of a run."""
    values = (run.tenant, run.run_id, SESSIONS_MAX)
    sessions = fetch(connection, tables.sql["list_sessions_of_run"], values)
    instances = fetch(connection, tables.sql["list_instances_of_run"], values)
    return sessions_of(
        run,
        [session_of(row) for row in reversed(sessions)],
        [msgspec.convert(row, InstanceRow) for row in instances],
    )


def read_mark(
    tables: Tables, connection: apsw.Connection, run_id: RunId, *, tenant: TenantId
) -> tuple[object, ...] | None:
    """Read what tells whether the record of a run has changed."""
    values = {"run_id": run_id, "tenant": tenant, "limit": SESSIONS_MAX}
    found: list[Any] = connection.execute(tables.sql["find_mark"], values).fetchall()
    return tuple(found[0]) if found else None


def _view(tables: Tables, connection: apsw.Connection, run: Run, packed: Packed) -> RunView | None:
    """Return a run with its nodes, None when its definition cannot be read."""
    try:
        plan = tables.plan(connection, run.tenant, run.definition_digest)
    except EngineError as error:
        if error.code != DEFINITION_UNREADABLE:
            raise
        return None
    return tables.parts(connection, run, packed).view(run, plan)


def _attempts(
    tables: Tables, connection: apsw.Connection, view: RunView, packed: Packed
) -> list[Attempt]:
    run = view.run
    first, past = rows.attempt_no(run.run_no, 0, 0), rows.attempt_no(run.run_no + 1, 0, 0)
    found = fetch(connection, tables.sql["list_attempts"], (first, past - 1))
    node_ids = [node.node_id for node in view.plan.nodes]
    return [
        rows.attempt_of(row, run.run_id, node_ids) for row in (*packed.get("attempt", ()), *found)
    ]


def _gates(tables: Tables, connection: apsw.Connection, run: Run) -> list[Gate]:
    values = (run.run_no, HISTORY_MAX)
    found = fetch(connection, tables.sql["list_newest_gates_of_run"], values)
    return [rows.gate_of(row) for row in reversed(found)]


def _claim(
    tables: Tables, connection: apsw.Connection, run: Run, events: Sequence[LifecycleEvent]
) -> tuple[LifecycleEvent | None, int | None]:
    """Return the event of the claim that holds now, and until when its engine has its lease."""
    if run.status not in DRIVEN or run.engine_id is None:
        return None, None
    lease = fetch(connection, tables.sql["find_lease"], (run.engine_id,))
    lease_until_ms = lease[0]["lease_until_ms"] if lease else None
    for event in reversed(events):
        if event.event is RunEvent.RUN_CLAIMED:
            return event, lease_until_ms
    found = fetch(connection, tables.sql["find_claim_event"], (run.run_no,))
    claim = rows.event_of(found[0], run.effective_execution_profile) if found else None
    return claim, lease_until_ms


# Lists


def search_runs(tables: Tables, connection: apsw.Connection, search: RunSearch) -> RunPage:
    """Read a page of runs."""
    name, values = _way(search)
    found = fetch(connection, tables.sql[name], values)
    runs = [rows.run_of(row) for row in found]
    if found and len(found) == search.limit:
        return RunPage(runs=runs, next=_place(found[-1]))
    edge = fetch(connection, tables.sql[f"{name}_edge"], values)
    return RunPage(runs=runs, next=_place(edge[0]) if edge else None)


def _way(search: RunSearch) -> tuple[str, dict[str, Any]]:
    """Return the statement whose index leads to the runs, and its values."""
    after = search.after
    before_no = _NUMBER_MAX if after is None else after.run_no
    values: dict[str, Any] = {
        "tenant": search.tenant,
        "automation_id": search.automation_id or "",
        "statuses": msgspec.json.encode(search.statuses).decode(),
        "trigger_type": search.trigger_type,
        "words": search.text.strip().translate(_LOWER),
        "looks": search.looks_max,
        "limit": search.limit,
        "before_no": before_no,
    }
    if search.created_from_ms is not None or search.created_until_ms is not None:
        values["from_ms"] = search.created_from_ms or 0
        values["before_ms"] = after.created_at_ms if after is not None else search.created_until_ms
        if values["before_ms"] is None:
            values["before_ms"] = _NUMBER_MAX
        if after is None:
            values["before_no"] = 0  # numbers count from 1: nothing of that moment itself
        return "search_runs_of_span", values
    if search.automation_id is not None:
        return "search_runs_of_automation", values
    return "search_runs", values


def _place(row: Mapping[str, Any]) -> RunPlace:
    return RunPlace(run_no=row["run_no"], created_at_ms=row["created_at_ms"])


# What was let pass


def list_judged(
    tables: Tables,
    connection: apsw.Connection,
    *,
    tenant: TenantId,
    since_ms: int,
    automation_id: AutomationId | None,
    limit: int,
) -> list[Judged]:
    """Read the outputs of the newest runs that were created since a moment."""
    search = RunSearch(
        tenant=tenant, automation_id=automation_id, created_from_ms=since_ms, limit=limit
    )
    page = search_runs(tables, connection, search)
    return [_judged(tables, connection, run) for run in page.runs]


def _judged(tables: Tables, connection: apsw.Connection, run: Run) -> Judged:
    nodes = (rows.node_run_id(run.run_no, 0), rows.node_run_id(run.run_no + 1, 0) - 1)
    (counted,) = fetch(connection, tables.sql["count_outputs_of_run"], nodes)
    outputs: int = counted["outputs"]
    found = [_done(row) for row in fetch(connection, tables.sql["list_readings_of_run"], nodes)]
    if run.archived_at_ms is not None:
        packed = map(rows.node_of, tables.packed(connection, run).get("node_run", ()))
        done = [node for node in packed if node.state is NodeState.COMPLETED]
        outputs += sum(node.output is not None or node.output_ref is not None for node in done)
        found += done
    relaxed = [
        (node.reading, node.handling)
        for node in found
        if node.reading is not None and node.reading.relaxation is not None
    ]
    return Judged(
        run_id=run.run_id, automation_id=run.automation_id, outputs=outputs, relaxed=relaxed
    )


def _done(row: Mapping[str, Any]) -> NodeRun:
    return rows.node_of({**row, "node_run_id": 0, "state": NodeState.COMPLETED.value})
