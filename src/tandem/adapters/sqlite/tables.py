"""Runs as rows of the tables: reading and writing them on a given connection."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sqlite.archive import Archive
from tandem.domain.automation import parse_document
from tandem.domain.change import Change
from tandem.domain.errors import ChangeRefused, LeaseLost, NotFound, StoreError
from tandem.domain.graph import Plan
from tandem.domain.ids import ChangeId, DefinitionDigest, RunId, TenantId
from tandem.domain.receipts import first_event
from tandem.domain.run import Run, WaitStatus
from tandem.domain.view import RunView

_PLANS_MAX = 256

Found = list[dict[str, Any]]


class Tables:
    """The named statements and the plans that were read lately. It holds no connection."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self.sql = statements
        self.archive = Archive(statements)
        self._plans: OrderedDict[tuple[TenantId, DefinitionDigest], Plan] = OrderedDict()

    def insert_run(self, connection: apsw.Connection, run: Run, document: bytes) -> int:
        """Write a new run with its definition and its first event; return its number."""
        first = first_event(run)
        connection.execute(
            self.sql["put_definition"], (run.tenant, run.definition_digest, document)
        )
        inserted: list[Any] = connection.execute(
            self.sql["insert_run"],
            (
                run.run_id,
                run.tenant,
                run.automation_id,
                run.name,
                run.definition_digest,
                run.trigger_type,
                run.status.value,
                run.last_change_id,
                run.owner,
                run.created_at_ms,
                run.updated_at_ms,
                run.due_at_ms,
                msgspec.json.encode(run.inputs).decode(),
                run.workspace,
                run.nodes_total,
                bytes.fromhex(first.record_hash),
            ),
        ).fetchall()
        run_no = int(inserted[0][0])
        connection.execute(self.sql["add_event"], rows.event_row(run_no, first))
        return run_no

    def write(self, connection: apsw.Connection, change: Change) -> None:
        """Write one change. A refusal comes from the first statement and writes nothing."""
        execute, sql = connection.execute, self.sql
        run_no = change.run.run_no
        if change.moved:
            advanced = execute(sql["move_run"], rows.move_row(change)).fetchall()
        else:
            advanced = execute(sql["advance_run"], rows.advance_row(change)).fetchall()
        if not advanced:
            raise self._refusal(connection, change)
        for node in change.nodes:
            execute(sql["put_node_run"], rows.node_row(run_no, node))
        for attempt in change.attempts_ended:
            execute(sql["end_attempt"], rows.end_row(run_no, attempt))
        for attempt in change.attempts_started:
            execute(sql["start_attempt"], rows.start_row(run_no, attempt))
        for gate in change.gates:
            execute(sql["put_gate"], rows.gate_row(run_no, gate))
        for wait in change.waits:
            execute(sql["put_wait"], rows.wait_row(run_no, wait))
        for gone in change.invalidated:
            now_ms = change.run.updated_at_ms
            values = (gone.validity.value, now_ms, run_no, gone.node_no)
            execute(sql["invalidate_artifacts"], values)
        for left in change.artifacts:
            execute(sql["add_artifact"], rows.artifact_row(run_no, left))
        for event in change.events:
            execute(sql["add_event"], rows.event_row(run_no, event))

    def _refusal(self, connection: apsw.Connection, change: Change) -> ChangeRefused | LeaseLost:
        run_id = change.run.run_id
        found = fetch(connection, self.sql["find_run_by_no"], (change.run.run_no,))
        if not found or found[0]["epoch"] != change.epoch_before:
            return LeaseLost(f"run {run_id} is driven by another engine now; nothing was written")
        return ChangeRefused(f"run {run_id} has changed since it was read; nothing was written")

    def landed(self, connection: apsw.Connection, change: Change) -> bool:
        """Say whether a change is on disk."""
        return self.has_event(connection, change.run.run_id, change.change_id, change.events[0].seq)

    def has_event(
        self, connection: apsw.Connection, run_id: RunId, change_id: ChangeId, seq: int
    ) -> bool:
        """Say whether the event `seq` of a run came from this change."""
        return bool(fetch(connection, self.sql["has_event"], (run_id, change_id, seq)))

    def load(self, connection: apsw.Connection, run_id: RunId, tenant: TenantId) -> RunView:
        """Load a run; the caller has begun a transaction.

        Raises:
            NotFound: no such run for this tenant.
        """
        found = fetch(connection, self.sql["find_run"], (run_id, tenant))
        if not found:
            raise NotFound(f"there is no run {run_id}; `tandem runs list` shows the ones there are")
        return self._view(connection, rows.run_of(found[0]))

    def load_by_no(self, connection: apsw.Connection, run_no: int) -> RunView:
        """Load a run that must exist by its number."""
        (row,) = fetch(connection, self.sql["find_run_by_no"], (run_no,))
        return self._view(connection, rows.run_of(row))

    def _view(self, connection: apsw.Connection, run: Run) -> RunView:
        plan = self.plan(connection, run.tenant, run.definition_digest)
        first = rows.node_run_id(run.run_no, 0)
        last = rows.node_run_id(run.run_no + 1, 0) - 1
        nodes = fetch(connection, self.sql["list_node_runs"], (first, last))
        waits = fetch(connection, self.sql["list_waits_of_run"], (run.run_no,))
        if run.finished_at_ms is not None:
            packed = self.archive.read(connection, run.run_no)
            nodes = [*packed["node_run"], *nodes]
            waits += [row for row in packed["wait"] if row["status"] == WaitStatus.WAITING.value]
        return RunView(
            run,
            plan,
            map(rows.node_of, nodes),
            map(rows.gate_of, fetch(connection, self.sql["list_gates_of_run"], (run.run_no,))),
            map(rows.wait_of, waits),
        )

    def bring_back(self, connection: apsw.Connection, run: Run) -> None:
        """Unpack a run that is about to change; an ended run may be packed, wholly or in part."""
        if run.finished_at_ms is not None:
            self.archive.move_out(connection, run.run_no)

    def plan(self, connection: apsw.Connection, tenant: TenantId, digest: DefinitionDigest) -> Plan:
        """Return the plan of a stored definition.

        Raises:
            NotFound: this tenant has no such definition.
            StoreError: what is stored cannot be read.
        """
        known = self._plans.get((tenant, digest))
        if known is not None:
            self._plans.move_to_end((tenant, digest))
            return known
        found = fetch(connection, self.sql["get_definition"], (tenant, digest))
        if not found:
            raise NotFound(f"the definition {digest} is not in the store")
        try:
            plan = Plan(parse_document(found[0]["document"]), digest)
        except ValueError as error:  # what pydantic and msgspec raise
            raise StoreError(
                f"the definition {digest} in the store cannot be read: {error}",
                code="definition_unreadable",
            ) from error
        self.remember(tenant, plan)
        return plan

    def remember(self, tenant: TenantId, plan: Plan) -> None:
        """Keep a plan at hand."""
        self._plans[tenant, plan.digest] = plan
        if len(self._plans) > _PLANS_MAX:
            self._plans.popitem(last=False)


def fetch(connection: apsw.Connection, sql: str, values: Sequence[Any]) -> Found:
    """Return all rows of a statement, by the names of their columns."""
    cursor = connection.execute(sql, values)
    # Columns are only known while the cursor is open; a statement without rows has none.
    found: Found = []
    names: list[str] | None = None
    for row in cursor:
        if names is None:
            names = [column[0] for column in cursor.get_description()]
        found.append(dict(zip(names, row, strict=True)))
    return found


def run_statement(connection: apsw.Connection, sql: str, values: Sequence[Any]) -> None:
    """Run a statement to its end."""
    connection.execute(sql, values).fetchall()
