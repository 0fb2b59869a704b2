"""The plans of the statements: each finds its rows by an index that bounds how many it looks at."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tandem.adapters.sql.statements import load_migrations, load_statements

STATEMENTS = load_statements()
GROWING = {
    "run": "run",
    "r": "run",
    "node_run": "node_run",
    "attempt": "attempt",
    "lifecycle_event": "lifecycle_event",
    "e": "lifecycle_event",
    "gate": "gate",
    "g": "gate",
    "wait": "wait",
    "artifact": "artifact",
    "definition": "definition",
    "archive_part": "archive_part",
    "imported_run": "imported_run",
}
"""Tables that grow with history, by the names that the statements give them."""

WAYS = {
    "advance_run": ["run USING INTEGER PRIMARY KEY"],
    "move_run": ["run USING INTEGER PRIMARY KEY"],
    "end_attempt": ["attempt USING INTEGER PRIMARY KEY"],
    "find_run_by_no": ["run USING INTEGER PRIMARY KEY"],
    "list_run_ids": ["run USING INDEX sqlite_autoindex_run_1 (run_id>? AND run_id<?)"],
    "has_event": ["lifecycle_event_1 (run_no=? AND seq=?)"],
    "list_node_runs": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "list_attempts": ["attempt USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "list_gates_of_run": ["gate_of_run (run_no=? AND status=?)"],
    "list_gates_in_run": ["gate_of_run (run_no=? AND status=?)"],
    "list_waits_of_run": ["wait_of_run (run_no=? AND status=?)"],
    "list_artifacts_of_run": ["artifact_of_node (run_no=?)"],
    "list_artifacts_of_node": ["artifact_of_node (run_no=? AND node_no=?)"],
    "invalidate_artifacts": ["artifact_of_node (run_no=? AND node_no=?)"],
    "is_referenced": ["artifact_of_digest (digest=?)"],
    "list_retired": ["run_retired (updated_at_ms<?)"],
    "list_archive_parts": ["archive_part_1 (run_no=?)"],
    "remove_archive_parts": ["archive_part_1 (run_no=?)"],
    "take_node_run": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "take_attempt": ["attempt USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "take_lifecycle_event": ["lifecycle_event_1 (run_no=?)"],
    "take_wait": ["wait_of_run (run_no=?)"],
    "drop_lifecycle_event": ["lifecycle_event_1 (run_no=? AND seq<?)"],
    "list_gates": ["gate_of_status (status=?)"],
    "list_claimable_own": ["run_queue (owner=? AND due_at_ms<?)"],
    "list_claimable": ["run_queue (owner=? AND due_at_ms<?)", "run_queue (owner>?)"],
    "list_due": ["run_parked (due_at_ms<?)"],
    "next_due": ["run_due (due_at_ms>?)"],
    "list_runs": ["run_of_tenant (tenant=? AND run_no<?)"],
    "list_runs_of_status": ["run_of_status (tenant=? AND status=? AND run_no<?)"],
    "list_runs_of_automation": ["run_of_automation (tenant=? AND automation_id=? AND run_no<?)"],
    "list_runs_of_automation_in_status": ["run_of_automation (tenant=? AND automation_id=?"],
    "list_events": ["lifecycle_event_1 (run_no=? AND seq>?)"],
    "list_held": ["run_held (engine_id=?)", "run_owned (owner=?)", "run_cleanup (cleanup=?)"],
}
"""The way into the table that each statement has to take."""

PAGED = (
    "list_runs",
    "list_runs_of_status",
    "list_runs_of_automation",
    "list_events",
    "list_due",
    "list_retired",
)
"""Their order comes from the index: with a limit they stop after a page."""

INDEXES = {
    "run_queue": "list_claimable",
    "run_parked": "list_due",
    "run_due": "next_due",
    "run_of_tenant": "list_runs",
    "run_of_status": "list_runs_of_status",
    "run_of_automation": "list_runs_of_automation",
    "run_held": "list_held",
    "run_owned": "list_held",
    "run_cleanup": "list_held",
    "gate_of_run": "list_gates_of_run",
    "gate_of_status": "list_gates",
    "wait_of_run": "list_waits_of_run",
    "artifact_of_node": "list_artifacts_of_node",
    "artifact_of_digest": "is_referenced",
    "run_retired": "list_retired",
}
"""Every index of the schema, and a statement that must notice when it is gone."""


class AnyValue(dict[str, None]):
    """Gives every parameter of a statement a value."""

    def __missing__(self, key: str) -> None:
        return None


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    made = apsw.Connection(str(tmp_path / "plans.db"))
    for _, script in load_migrations():
        made.execute(script)
    yield made
    made.close()


def plan_of(connection: apsw.Connection, name: str) -> list[str]:
    """Return the steps of the plan of a statement."""
    steps = connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[name]}", AnyValue()).fetchall()
    return [str(step[3]) for step in steps]


def faults_of(connection: apsw.Connection, name: str) -> list[str]:
    """Return what is wrong with the plan of a statement."""
    plan = plan_of(connection, name)
    faults = [
        f"walks a table: {step}"
        for step in plan
        if step.startswith("SCAN") and step.split()[1] in GROWING
    ]
    faults += [
        f"does not go by {way}: {plan}"
        for way in WAYS.get(name, [])
        if not any(way in step for step in plan)
    ]
    if name in PAGED and any("TEMP B-TREE" in step for step in plan):
        faults.append(f"sorts before it pages: {plan}")
    return faults


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_statement_finds_its_rows_by_an_index(connection: apsw.Connection, name: str) -> None:
    assert faults_of(connection, name) == []


@pytest.mark.parametrize("index", sorted(INDEXES))
def test_missing_index_is_noticed(connection: apsw.Connection, index: str) -> None:
    connection.execute(f"DROP INDEX {index}")
    assert faults_of(connection, INDEXES[index]) != []


def test_every_index_of_the_schema_is_guarded(connection: apsw.Connection) -> None:
    made = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql <> ''")
    assert {str(name) for (name,) in made.fetchall()} == set(INDEXES)


def test_every_way_belongs_to_a_statement() -> None:
    assert set(WAYS) <= set(STATEMENTS)
