"""Runs as rows of the tables: reading and writing them on a given connection."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import apsw
import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sqlite import keys, reviewing
from tandem.adapters.sqlite.archive import Archive, Packed
from tandem.domain.artifact import NodeArtifact
from tandem.domain.automation import Automation, Flow, parse_document
from tandem.domain.change import Change
from tandem.domain.claim_basis import ClaimBasis, basis_of
from tandem.domain.errors import (
    DEFINITION_UNREADABLE,
    ChangeRefused,
    LeaseLost,
    NotFound,
    StoreError,
    StoreUnsure,
)
from tandem.domain.graph import Plan
from tandem.domain.ids import AutomationId, ChangeId, DefinitionDigest, Digest, RunId, TenantId
from tandem.domain.lifecycle import TERMINAL, RunState
from tandem.domain.run import OPEN_WAITS, Gate, LifecycleEvent, NodeRun, Run, Wait, WaitStatus
from tandem.domain.stored_automation import AutomationChange, AutomationRecord, StoredAutomation
from tandem.domain.usage import Spent, Usage
from tandem.domain.view import RunView

_PLANS_MAX = 256
_SETTLED_GATES_MAX = 200
"""A decision that is late by more askings than these hears only that its gate is not open."""

_DELETIONS = (
    "delete_events",
    "delete_gates",
    "delete_waits",
    "delete_artifacts",
    "delete_imports",
    "remove_archive_parts",
    "delete_backlog_tasks",
    "delete_backlog_sources",
    "delete_backlog_events",
)

Found = list[dict[str, Any]]

_COLUMNS: dict[str, tuple[str, ...]] = {}
"""The names of the columns of each statement: asking for them costs more than the rows."""


@cache
def _no_plan() -> Plan:
    """Return what stands in for a definition that is not looked at.

    The first definition of a process is dear, and most commands need none.
    """
    return Plan(Automation(automation_id="", flow=Flow(nodes=())), DefinitionDigest(""))


class ViewParts(NamedTuple):
    """What the rows say of a run, without its definition."""

    nodes: list[NodeRun]
    gates: list[Gate]
    waits: list[Wait]

    def view(self, run: Run, plan: Plan) -> RunView:
        """Put the parts together."""
        return RunView(run, plan, self.nodes, self.gates, self.waits)


class Tables:
    """The named statements and the plans that were read lately. It holds no connection."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self.sql = statements
        self.archive = Archive(statements)
        self._plans: OrderedDict[tuple[TenantId, DefinitionDigest], Plan] = OrderedDict()
        self.unreadable: set[int] = set()
        """The runs that claims leave out, since a row of theirs could not be read."""

    def insert_run(
        self,
        connection: apsw.Connection,
        run: Run,
        events: Sequence[LifecycleEvent],
        document: bytes,
    ) -> int:
        """Write a new run with its definition and its first events; return its number."""
        connection.execute(
            self.sql["put_definition"], (run.tenant, run.definition_digest, document)
        )
        inserted: list[Any] = connection.execute(
            self.sql["insert_run"], rows.run_row(run)
        ).fetchall()
        run_no = int(inserted[0][0])
        for event in events:
            connection.execute(self.sql["add_event"], rows.event_row(run, run_no, event))
        return run_no

    def write(self, connection: apsw.Connection, change: Change) -> None:
        """Write one change. A refusal comes from the first statement and writes nothing.

        A run that had ended may be packed; it is unpacked before anything of it is replaced.
        """
        self.write_history(connection, change)
        if change.moved:
            keys.follow(connection, self.sql, change)
            reviewing.follow(connection, self.sql, change)
            self._release_firing(connection, change)

    def _release_firing(self, connection: apsw.Connection, change: Change) -> None:
        """Let a firing that was put off be looked at again when a run of its automation ends."""
        run = change.run
        if run.automation_version is None or run.status not in TERMINAL:
            return
        if change.status_before not in TERMINAL:
            run_statement(connection, self.sql["release_firing"], (run.tenant, run.automation_id))

    def write_history(self, connection: apsw.Connection, change: Change) -> None:
        """Write one change of a run that happened elsewhere: nothing is taken or freed here."""
        execute, sql = connection.execute, self.sql
        run_no = change.run.run_no
        if change.moved:
            execute(sql["move_run"], rows.move_row(change))
        else:
            execute(sql["advance_run"], rows.advance_row(change))
        if not connection.changes():
            raise self._refusal(connection, change)
        if change.status_before in TERMINAL:
            self.archive.move_out(connection, run_no)
        if change.definition is not None:
            run = change.run
            execute(sql["put_definition"], (run.tenant, run.definition_digest, change.definition))
            execute(sql["repin_run"], rows.repin_row(run))
        for node in change.nodes:
            execute(sql["put_node_run"], rows.node_row(run_no, node))
        for attempt in change.attempts_ended:
            execute(sql["end_attempt"], rows.end_row(run_no, attempt))
        for attempt in change.attempts_started:
            execute(sql["start_attempt"], rows.start_row(run_no, attempt))
        for spent in change.spent:
            execute(sql["meter_attempt"], rows.meter_row(run_no, spent))
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
            execute(sql["add_event"], rows.event_row(change.run, run_no, event))
        for throttle in change.throttles:
            keys.record_throttle(connection, sql, change.run, throttle)

    def insert_fork(self, connection: apsw.Connection, fork: Run, change: Change) -> None:
        """Write where a new run comes from and what it takes over; its row exists."""
        connection.execute(
            self.sql["mark_fork"], (fork.forked_from, fork.forked_from_node, fork.run_no)
        )
        self.write(connection, change)

    def delete_run(self, connection: apsw.Connection, run: Run) -> list[Digest]:
        """Delete all rows of a run; return the artifacts to which none refers any more.

        Raises:
            ChangeRefused: the run has changed since it was judged; nothing was written.
        """
        execute, sql, run_no = connection.execute, self.sql, run.run_no
        nodes = (rows.node_run_id(run_no, 0), rows.node_run_id(run_no + 1, 0) - 1)
        attempts = (rows.attempt_no(run_no, 0, 0), rows.attempt_no(run_no + 1, 0, 0) - 1)
        found = fetch(connection, sql["list_digests_of_run"], (run_no,))
        if not execute(sql["delete_run"], (run_no, run.last_change_id)).fetchall():
            raise ChangeRefused(f"run {run.run_id} has changed; nothing was deleted")
        for name in _DELETIONS:
            execute(sql[name], (run_no,)).fetchall()
        execute(sql["delete_node_runs"], nodes).fetchall()
        execute(sql["delete_attempts"], attempts).fetchall()
        digests = [Digest(row["digest"]) for row in found]
        return [d for d in digests if not self.is_digest_used(connection, run.tenant, d)]

    def is_digest_used(
        self, connection: apsw.Connection, tenant: TenantId | None, digest: Digest
    ) -> bool:
        """Say whether any run of the tenant, or of any, refers to an artifact."""
        return bool(fetch(connection, self.sql["is_digest_used"], (digest, tenant)))

    def _refusal(self, connection: apsw.Connection, change: Change) -> ChangeRefused | LeaseLost:
        run_id = change.run.run_id
        found = fetch(connection, self.sql["find_run_by_no"], (change.run.run_no,))
        if not found or found[0]["epoch"] != change.epoch_before:
            return LeaseLost(f"run {run_id} is driven by another engine now; nothing was written")
        return ChangeRefused(f"run {run_id} has changed since it was read; nothing was written")

    def landed(self, connection: apsw.Connection, change: Change) -> bool:
        """Say whether a change of a run that was there is on disk.

        Raises:
            StoreUnsure: the run was deleted since, and all that happened to it with it.
        """
        run_id, seq = change.run.run_id, change.events[0].seq
        if self.has_event(connection, run_id, change.change_id, seq):
            return True
        if not fetch(connection, self.sql["find_run_by_id"], (run_id,)):
            raise StoreUnsure(
                f"run {run_id} was deleted before the store could say whether this was written"
            )
        return False

    def has_event(
        self, connection: apsw.Connection, run_id: RunId, change_id: ChangeId, seq: int
    ) -> bool:
        """Say whether the event `seq` of a run came from this change; it may be packed by now."""
        if fetch(connection, self.sql["has_event"], (run_id, change_id, seq)):
            return True
        return any(
            event["seq"] == seq and event["change_id"] == change_id
            for run in fetch(connection, self.sql["find_run_by_id"], (run_id,))
            for event in self.archive.read(connection, run["run_no"])["lifecycle_event"]
        )

    def load(
        self,
        connection: apsw.Connection,
        run_id: RunId,
        tenant: TenantId,
        *,
        settled_gates: bool = False,
    ) -> RunView:
        """Load a run, with the gates that are over only if asked; a transaction has begun.

        Raises:
            NotFound: no such run for this tenant.
        """
        view = self._view(connection, self.run(connection, run_id, tenant))
        if settled_gates:
            values = (view.run.run_no, _SETTLED_GATES_MAX)
            over = fetch(connection, self.sql["list_settled_gates_of_run"], values)
            view.settled_gates = tuple(map(rows.gate_of, over))
        return view

    def run(self, connection: apsw.Connection, run_id: RunId, tenant: TenantId) -> Run:
        """Return the row of a run.

        Raises:
            NotFound: no such run for this tenant.
        """
        found = fetch(connection, self.sql["find_run"], (run_id, tenant))
        if not found:
            raise NotFound(
                f"there is no run {run_id}; `tandem runs list` shows the ones there are",
                code="AUTOMATION_V2_RUN_NOT_FOUND",
            )
        return rows.run_of(found[0])

    def load_rows(
        self, connection: apsw.Connection, run_id: RunId, tenant: TenantId
    ) -> tuple[Run, list[NodeRun]]:
        """Load the rows of a run without its definition, which may be unreadable.

        Raises:
            NotFound: no such run for this tenant.
        """
        run = self.run(connection, run_id, tenant)
        return run, self._node_runs(connection, run, self.packed(connection, run))

    def packed(self, connection: apsw.Connection, run: Run) -> Packed:
        """Return what of a run is packed; only one that has ended is."""
        return self.archive.read(connection, run.run_no) if run.finished_at_ms is not None else {}

    def _node_runs(self, connection: apsw.Connection, run: Run, packed: Packed) -> list[NodeRun]:
        first = rows.node_run_id(run.run_no, 0)
        last = rows.node_run_id(run.run_no + 1, 0) - 1
        found = fetch(connection, self.sql["list_node_runs"], (first, last))
        return [rows.node_of(row) for row in (*packed.get("node_run", ()), *found)]

    def open_waits(self, connection: apsw.Connection, run: Run, packed: Packed) -> list[Wait]:
        """Return the waits of a run that are registered, oldest first."""
        found = [
            *(row for row in packed.get("wait", ()) if row["status"] in OPEN_WAITS),
            *fetch(connection, self.sql["list_waits_of_run"], (run.run_no,)),
        ]
        found.sort(key=lambda row: (row["registered_at_ms"], row["wait_id"]))
        return [rows.wait_of(row) for row in found]

    def woken_wait(self, connection: apsw.Connection, run: Run, key: str) -> Wait | None:
        """Return the newest wait of a run that this idempotency key has woken, if there is one."""
        found = [
            row
            for row in self.packed(connection, run).get("wait", ())
            if row["idempotency_key"] == key and row["status"] == WaitStatus.WOKEN
        ]
        found += fetch(connection, self.sql["find_wait"], (run.run_no, key, 1))
        newest = max(found, key=lambda row: row["ended_at_ms"] or 0, default=None)
        return rows.wait_of(newest) if newest is not None else None

    def newest_events(
        self, connection: apsw.Connection, run: Run, *, limit: int, packed: Packed | None = None
    ) -> list[LifecycleEvent]:
        """Return the newest events of a run, newest first; `packed` is what is packed, if read."""
        found = fetch(connection, self.sql["list_newest_events"], (run.run_no, limit))
        if len(found) < limit:
            packed = self.packed(connection, run) if packed is None else packed
            found += reversed(packed.get("lifecycle_event", ()))
        profile = run.effective_execution_profile
        return [rows.event_of(row, profile) for row in found[:limit]]

    def artifacts_of(self, connection: apsw.Connection, run_no: int) -> list[NodeArtifact]:
        """Return what the attempts of a run left, oldest first."""
        found = fetch(connection, self.sql["list_artifacts_of_run"], (run_no,))
        return [rows.artifact_of(row) for row in found]

    def document(
        self, connection: apsw.Connection, tenant: TenantId, digest: DefinitionDigest
    ) -> bytes:
        """Return the canonical JSON of a stored definition.

        Raises:
            NotFound: this tenant has no such definition.
        """
        found = fetch(connection, self.sql["get_definition"], (tenant, digest))
        if not found:
            raise NotFound(
                f"the definition {digest} is not in the store", code=DEFINITION_UNREADABLE
            )
        document = found[0]["document"]
        return document.encode() if isinstance(document, str) else bytes(document)

    def load_by_no(self, connection: apsw.Connection, run_no: int) -> RunView:
        """Load a run that must exist by its number."""
        (row,) = fetch(connection, self.sql["find_run_by_no"], (run_no,))
        return self._view(connection, rows.run_of(row))

    def _view(self, connection: apsw.Connection, run: Run) -> RunView:
        plan = self.plan(connection, run.tenant, run.definition_digest)
        return self.parts(connection, run).view(run, plan)

    def parts(
        self, connection: apsw.Connection, run: Run, packed: Packed | None = None
    ) -> ViewParts:
        """Load everything of a run but its definition; `packed` is what is packed, if read."""
        if is_untouched(run):
            return ViewParts([], [], [])
        packed = self.packed(connection, run) if packed is None else packed
        gates = fetch(connection, self.sql["list_gates_of_run"], (run.run_no,))
        return ViewParts(
            self._node_runs(connection, run, packed),
            list(map(rows.gate_of, gates)),
            self.open_waits(connection, run, packed),
        )

    def usage_of(
        self, connection: apsw.Connection, run: Run, spent: Iterable[Spent]
    ) -> dict[tuple[int, int], Usage]:
        """Return what these attempts of a run are known to have spent, by node and number.

        Those of a run that was packed meanwhile are known as well as before.
        """
        packed = {row["attempt_no"]: row for row in self.packed(connection, run).get("attempt", ())}
        found: dict[tuple[int, int], Usage] = {}
        for item in spent:
            number = rows.attempt_no(run.run_no, item.node_no, item.number)
            there = fetch(connection, self.sql["find_attempt_usage"], (number,))
            for row in there or filter(None, [packed.get(number)]):
                found[item.node_no, item.number] = rows.usage_of(row)
        return found

    def find_automation(
        self, connection: apsw.Connection, tenant: TenantId, automation_id: AutomationId
    ) -> StoredAutomation | None:
        """Return the row of an automation, also of a deleted one; None when there never was one."""
        found = fetch(connection, self.sql["find_automation"], (tenant, automation_id))
        return rows.automation_of(found[0]) if found else None

    def write_automation(
        self,
        connection: apsw.Connection,
        before: StoredAutomation | None,
        change: AutomationChange,
        document: bytes,
    ) -> StoredAutomation:
        """Write one step of an automation, with the definition that it names; return its row."""
        row, record = change.row, change.record
        assert record is not None
        if document:
            run_statement(
                connection,
                self.sql["put_definition"],
                (row.tenant, row.definition_digest, document),
            )
        values = rows.automation_row(row)
        if before is None:
            written = fetch(connection, self.sql["insert_automation"], values)
        else:
            values["builds_on"] = before.last_change_id
            written = fetch(connection, self.sql["update_automation"], values)
        if not written:
            raise ChangeRefused(f"automation {row.automation_id} has changed since it was read")
        number = int(written[0]["automation_no"])
        run_statement(connection, self.sql["add_automation_event"], rows.record_row(number, record))
        return msgspec.structs.replace(row, automation_no=number)

    def has_automation_record(
        self, connection: apsw.Connection, automation_no: int, record: AutomationRecord
    ) -> bool:
        """Say whether this is what happened to the automation."""
        found = fetch(
            connection, self.sql["list_automation_events"], (automation_no, record.seq - 1, 1)
        )
        return bool(found) and found[0]["change_id"] == record.change_id

    def basis(
        self, connection: apsw.Connection, tenant: TenantId, digest: DefinitionDigest
    ) -> ClaimBasis:
        """Read a definition for the claim of its runs; a fault of it is part of the answer."""
        try:
            return basis_of(self.plan(connection, tenant, digest).automation)
        except NotFound:
            return ClaimBasis(is_missing=True)
        except StoreError as error:
            return ClaimBasis(unreadable=str(error.__cause__ or error))

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
        document = self.document(connection, tenant, digest)
        try:
            plan = Plan(parse_document(document), digest)
        except ValueError as error:  # what pydantic and msgspec raise
            raise StoreError(
                f"the definition {digest} in the store cannot be read: {error}",
                code=DEFINITION_UNREADABLE,
            ) from error
        self.remember(tenant, plan)
        return plan

    def remember(self, tenant: TenantId, plan: Plan) -> None:
        """Keep a plan at hand."""
        self._plans[tenant, plan.digest] = plan
        if len(self._plans) > _PLANS_MAX:
            self._plans.popitem(last=False)


def is_untouched(run: Run) -> bool:
    """Say whether nothing happened to a run but its creation and its first claim.

    Everything else that writes rows beside the run records an event with them.
    """
    claimed = run.epoch == 1 and run.status is RunState.RUNNING
    return run.event_seq == 1 + claimed and run.epoch <= 1


def bare_view(run: Run) -> RunView:
    """Return a view of the row of a run alone."""
    return RunView(run, _no_plan())


def fetch(
    connection: apsw.Connection, sql: str, values: Sequence[Any] | Mapping[str, Any]
) -> Found:
    """Return all rows of a statement, by the names of their columns."""
    cursor = connection.execute(sql, values)
    names = _COLUMNS.get(sql)
    found: Found = []
    for row in cursor:
        if names is None or len(names) != len(row):
            # Columns are only known while the cursor is open; a statement without rows has none.
            names = _COLUMNS[sql] = tuple(column[0] for column in cursor.get_description())
        found.append(dict(zip(names, row, strict=True)))
    return found


def run_statement(connection: apsw.Connection, sql: str, values: Sequence[Any]) -> None:
    """Run a statement to its end."""
    connection.execute(sql, values).fetchall()
