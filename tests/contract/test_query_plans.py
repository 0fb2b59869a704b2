"""The plans of the statements: each finds its rows by an index that bounds how many it looks at."""

from collections.abc import Iterator

import apsw
import pytest

from tandem.adapters.sql.statements import load_migrations, load_statements

WHOLE = {"count_runs", "count_stray_sessions"}
"""What `db check` and `db export` count in the whole store; nothing else asks it."""
STATEMENTS = {name: sql for name, sql in load_statements().items() if name not in WHOLE}
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
    "w": "wait",
    "signal": "signal",
    "s": "signal",
    "signal_key": "signal_key",
    "k": "signal_key",
    "artifact": "artifact",
    "a": "artifact",
    "n": "node_run",
    "definition": "definition",
    "automation": "automation",
    "automation_event": "automation_event",
    "learning_candidate": "learning_candidate",
    "learning_due": "learning_due",
    "run_facts": "run_facts",
    "f": "run_facts",
    "session": "session",
    "instance": "instance",
    "review": "review",
    "archive_part": "archive_part",
    "imported_run": "imported_run",
    "token": "token",
    "assertion_use": "assertion_use",
    "request_key": "request_key",
    "audit": "audit",
    "firing": "firing",
    "consumed_handoff": "consumed_handoff",
    "backlog_task": "backlog_task",
    "backlog_source": "backlog_source",
    "backlog_event": "backlog_event",
    "webhook_trigger": "webhook_trigger",
    "webhook_secret": "webhook_secret",
    "webhook_delivery": "webhook_delivery",
    "d": "webhook_delivery",
    "o": "webhook_delivery",
    "webhook_payload": "webhook_payload",
    "p": "webhook_payload",
    "webhook_claim": "webhook_claim",
}
"""Tables that grow with history, by the names that the statements give them."""

WAYS = {
    "advance_run": ["run USING INTEGER PRIMARY KEY"],
    "move_run": ["run USING INTEGER PRIMARY KEY"],
    "end_attempt": ["attempt USING INTEGER PRIMARY KEY"],
    "find_run_by_no": ["run USING INTEGER PRIMARY KEY"],
    "list_run_ids": ["run USING INDEX sqlite_autoindex_run_1 (run_id>? AND run_id<?)"],
    "find_run_by_id": ["run_1 (run_id=?)"],
    "has_event": ["lifecycle_event_1 (run_no=? AND seq=?)"],
    "list_node_runs": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "list_attempts": ["attempt USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "list_gates_of_run": ["gate_of_run (run_no=? AND status=?)"],
    "list_gates_in_run": ["gate_of_run (run_no=? AND status=?)"],
    "list_waits_of_run": ["wait_of_run (run_no=? AND status=?)"],
    "list_artifacts_of_run": ["artifact_of_node (run_no=?)"],
    "is_attempt_running": ["node_run USING INTEGER PRIMARY KEY"],
    "list_artifacts_of_node": ["artifact_of_node (run_no=? AND node_no=?)"],
    "invalidate_artifacts": ["artifact_of_node (run_no=? AND node_no=?)"],
    "list_retired": ["run_retired (updated_at_ms<?)"],
    "list_archive_parts": ["archive_part_1 (run_no=?)"],
    "remove_archive_parts": ["archive_part_1 (run_no=?)"],
    "take_node_run": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "take_attempt": ["attempt USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "take_lifecycle_event": ["lifecycle_event_1 (run_no=?)"],
    "take_wait": ["wait_of_run (run_no=?)"],
    "drop_lifecycle_event": ["lifecycle_event_1 (run_no=? AND seq<?)"],
    "list_settled_gates_of_run": ["gate_of_run (run_no=? AND status=?)"],
    "list_all_gates_of_run": ["gate_of_run (run_no=?)"],
    "list_waits": ["wait_of_status (status=? AND (registered_at_ms,wait_id)>(?,?))"],
    "find_wait": ["wait_of_run (run_no=? AND status=?)"],
    "list_waits_for_signal": ["wait_for_signal (signal_key=? AND wait_id>?)"],
    "list_signals_for_wait": ["k USING PRIMARY KEY (signal_key=?)", "s USING INTEGER PRIMARY KEY"],
    "list_open_signals": ["signal_open"],
    "list_old_signals": ["signal_received (received_at_ms<?)"],
    "list_signal_keys": ["signal_key_of (signal_no=?)"],
    "remove_signal_keys": ["signal_key_of (signal_no=?)"],
    "list_gates": ["gate_of_status (status=?)"],
    "has_due_run": ["run_due (due_at_ms<?)"],
    "list_due_lanes": ["run_queue (lane>?)", "run_queue (lane=? AND due_at_ms>? AND due_at_ms<?)"],
    "list_due_of_lane": ["run_queue (lane=? AND due_at_ms>? AND due_at_ms<?)"],
    "refuse_run": ["run USING INTEGER PRIMARY KEY"],
    "wake_blocked": ["run_blocked (resource_key=?)", "run USING INTEGER PRIMARY KEY"],
    "find_definition_of_run": ["run USING INTEGER PRIMARY KEY"],
    "has_waker_for": ["run_blocked (resource_key=?)"],
    "next_blocking_key": ["run_blocked (resource_key>?)"],
    "count_driven": ["run_held (engine_id>?)"],
    "count_driven_by_engine": ["run_held (engine_id>?)"],
    "count_under_key": ["run_concurrency (concurrency_key=?)"],
    "list_under_key": ["run_concurrency (concurrency_key=?)"],
    "count_queued": ["run_queue (lane>?)", "run_blocked (resource_key>?)"],
    "find_lock_of_path": ["sqlite_autoindex_workspace_lock_1 (path=?)"],
    "release_workspace": ["sqlite_autoindex_workspace_lock_2 (run_no=?)"],
    "list_throttles": ["sqlite_autoindex_provider_throttle_1 (tenant=?)"],
    "forget_throttles": ["sqlite_autoindex_provider_throttle_1 (tenant=?)"],
    "list_due": ["run_parked (due_at_ms<?)"],
    "next_due": ["run_due (due_at_ms>?)"],
    "list_runs": ["run_of_tenant (tenant=? AND run_no<?)"],
    "list_runs_of_status": ["run_of_status (tenant=? AND status=? AND run_no<?)"],
    "list_runs_of_automation": ["run_of_automation (tenant=? AND automation_id=? AND run_no<?)"],
    "list_runs_of_automation_in_status": ["run_of_automation (tenant=? AND automation_id=?"],
    "list_events_after": ["lifecycle_event USING INTEGER PRIMARY KEY (rowid>?)"],
    "list_events_of_run_after": ["lifecycle_event_1 (run_no=?)"],
    "find_run_told": ["run USING INTEGER PRIMARY KEY"],
    "search_runs": ["run_of_tenant (tenant=? AND run_no<?)", "run USING INTEGER PRIMARY KEY"],
    "list_shown_runs": ["run USING INTEGER PRIMARY KEY"],
    "search_runs_edge": ["run_of_tenant (tenant=? AND run_no<?)"],
    "search_runs_of_automation": [
        "run_of_automation (tenant=? AND automation_id=? AND run_no<?)",
        "run USING INTEGER PRIMARY KEY",
    ],
    "search_runs_of_automation_edge": [
        "run_of_automation (tenant=? AND automation_id=? AND run_no<?)"
    ],
    "search_runs_of_span": [
        "run_of_creation (tenant=? AND created_at_ms>? AND created_at_ms<?)",
        "run USING INTEGER PRIMARY KEY",
    ],
    "search_runs_of_span_edge": [
        "run_of_creation (tenant=? AND created_at_ms>? AND created_at_ms<?)"
    ],
    "find_mark": ["r USING INDEX sqlite_autoindex_run_1", "session_of_run (tenant=? AND run_id=?)"],
    "find_claim_event": ["lifecycle_event_1 (run_no=?)"],
    "list_newest_gates_of_run": ["gate_of_run (run_no=?)"],
    "list_newest_gates": ["gate_of_status (status=? AND (requested_at_ms,gate_id)<(?,?))"],
    "count_outputs_of_run": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "list_readings_of_run": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "list_events": ["lifecycle_event_1 (run_no=? AND seq>?)"],
    "release_runs": ["run_blocked (resource_key=?)"],
    "list_driven_of_automation": ["run_held (engine_id>?)"],
    "find_automation": ["automation_1 (tenant=? AND automation_id=?)"],
    "list_automations": ["automation_1 (tenant=? AND automation_id>?)"],
    "update_automation": ["automation USING INTEGER PRIMARY KEY"],
    "list_due_automations": ["automation_due (next_fire_at_ms>? AND next_fire_at_ms<?)"],
    "advance_schedule": ["automation USING INTEGER PRIMARY KEY"],
    "release_firing": ["automation_1 (tenant=? AND automation_id=?)"],
    "find_open_run": ["run_open (tenant=? AND automation_id=?)"],
    "find_firing": ["firing_1 (automation_no=? AND occurrence=?)"],
    "list_firings": ["firing_of_automation (automation_no=? AND firing_no<?)"],
    "prune_firings": ["firing_of_automation (automation_no=? AND firing_no<?)"],
    "list_watching": ["automation_watching (automation_no>?)"],
    "find_consumed": ["consumed_handoff_1 (tenant=? AND automation_id=? AND handoff_id=?"],
    "list_unarchived": ["handoff_to_archive (consumed_no>?)"],
    "mark_handoff_archived": ["consumed_handoff USING INTEGER PRIMARY KEY"],
    "list_backlog": ["backlog_task USING PRIMARY KEY (run_no=?)"],
    "list_backlog_sources": ["backlog_source USING PRIMARY KEY (run_no=?)"],
    "list_backlog_events": ["backlog_event USING PRIMARY KEY (run_no=? AND seq>?)"],
    "newest_backlog_event": ["backlog_event USING PRIMARY KEY (run_no=?)"],
    "add_backlog_event": ["backlog_event USING PRIMARY KEY (run_no=?)"],
    "remove_backlog_task": ["backlog_task USING PRIMARY KEY (run_no=? AND task_id=?)"],
    "delete_backlog_tasks": ["backlog_task USING PRIMARY KEY (run_no=?)"],
    "delete_backlog_sources": ["backlog_source USING PRIMARY KEY (run_no=?)"],
    "delete_backlog_events": ["backlog_event USING PRIMARY KEY (run_no=?)"],
    "list_automation_events": ["automation_event_1 (automation_no=? AND seq>?)"],
    "find_automation_version": ["automation_event_of_version (automation_no=? AND version=?)"],
    "list_newest_events": ["lifecycle_event_1 (run_no=?)"],
    "mark_active": ["run USING INTEGER PRIMARY KEY"],
    "list_quiet": ["run_held (engine_id>?)"],
    "list_reaped": ["run_reaped (reaped_at_ms>?)"],
    "repin_run": ["run USING INTEGER PRIMARY KEY"],
    "mark_fork": ["run USING INTEGER PRIMARY KEY"],
    "list_forks": ["run_forked (forked_from=?)"],
    "list_digests_of_run": ["artifact_of_node (run_no=?)"],
    "is_digest_used": ["artifact_of_digest (digest=?)"],
    "delete_events": ["lifecycle_event_1 (run_no=?)"],
    "delete_attempts": ["attempt USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "delete_node_runs": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "delete_gates": ["gate_of_run (run_no=?)"],
    "delete_waits": ["wait_of_run (run_no=?)"],
    "delete_artifacts": ["artifact_of_node (run_no=?)"],
    "delete_imports": ["imported_run_1 (run_no=?)"],
    "delete_run": ["run USING INTEGER PRIMARY KEY"],
    "list_held": ["run_held (engine_id=?)", "run_owned (owner=?)", "run_cleanup (cleanup=?)"],
    "delete_sessions": ["session_of_run (tenant=? AND run_id=?)"],
    "delete_instances": ["sqlite_autoindex_instance_1 (tenant=? AND run_id=?)"],
    "find_learning_due": ["sqlite_autoindex_learning_due_1 (run_no=?)"],
    "count_node_runs": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "list_telling_outputs": ["node_run USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "list_run_facts": ["run_of_automation (tenant=? AND automation_id=?)", "f USING INTEGER"],
    "find_candidates": ["sqlite_autoindex_learning_candidate_1 (candidate_id=?)"],
    "prune_candidates": ["candidate_of_automation (tenant=? AND automation_id=? AND status=?"],
    "list_told": ["candidate_told (tenant=? AND automation_id=?)"],
    "list_candidates": ["candidate_of_tenant (tenant=?)"],
    "list_open_reviews": ["review_open (tenant=? AND review_required=?)"],
    "find_session": ["sqlite_autoindex_session_1 (tenant=? AND session_id=?)"],
    "list_sessions_of_run": ["session_of_run (tenant=? AND run_id=?)"],
    "list_instances_of_run": ["sqlite_autoindex_instance_1 (tenant=? AND run_id=?)"],
    "find_token": ["sqlite_autoindex_token_1 (token_id=?)"],
    "list_tokens": ["sqlite_autoindex_token_1 (token_id>?)"],
    "list_tokens_of_tenant": ["token_of_tenant (tenant=? AND token_id>?)"],
    "revoke_token": ["sqlite_autoindex_token_1 (token_id=?)"],
    "note_token_use": ["sqlite_autoindex_token_1 (token_id=?)"],
    "find_assertion_use": ["assertion_use_1 (issuer=? AND assertion_id=?)"],
    "has_old_assertion_use": ["assertion_use_expiry (expires_at_ms<?)"],
    "forget_assertion_uses": ["assertion_use_expiry (expires_at_ms<?)"],
    "find_request_key": ["request_key_1 (tenant=? AND operation=? AND key=?)"],
    "has_old_request_key": ["request_key_age (created_at_ms<?)"],
    "forget_request_keys": ["request_key_age (created_at_ms<?)"],
    "list_audit": ["audit USING INTEGER PRIMARY KEY (rowid>?)"],
    "list_audit_of_tenant": ["audit_of_tenant (tenant=? AND audit_no>?)"],
    "list_webhook_triggers": ["webhook_trigger_of_automation (tenant=? AND automation_id=?)"],
    "find_webhook_claims": ["webhook_claim_1 (tenant=? AND trigger_id=? AND key=?)"],
    "remove_webhook_claims": ["webhook_claim_1 (tenant=?"],
    "list_webhook_deliveries_of_trigger": [
        "webhook_delivery_of_trigger (tenant=? AND trigger_id=? AND delivery_no<?)"
    ],
    "list_webhook_deliveries_of_automation": [
        "webhook_delivery_of_automation (tenant=? AND automation_id=? AND delivery_no<?)"
    ],
    "list_webhook_deliveries_of_tenant": [
        "webhook_delivery_of_tenant (tenant=? AND delivery_no<?)"
    ],
    "list_webhook_deliveries_of_run": [
        "webhook_delivery_of_run (tenant=? AND run_id=? AND delivery_no<?)"
    ],
    "list_open_webhook_deliveries": ["webhook_delivery_open"],
    "trim_webhook_rejections": ["webhook_delivery_not_believed (trigger_id=?)"],
    "list_old_webhook_deliveries": [
        "webhook_delivery_received (is_believed=? AND received_at_ms<?)"
    ],
    "nth_newest_webhook_delivery": ["COVERING INDEX webhook_delivery_received (is_believed=?)"],
}
"""The way into the table that each statement has to take."""

PAGED = (
    "search_runs",
    "search_runs_edge",
    "search_runs_of_automation",
    "search_runs_of_automation_edge",
    "search_runs_of_span_edge",
    "find_claim_event",
    "list_due_automations",
    "find_open_run",
    "list_firings",
    "list_watching",
    "list_unarchived",
    "list_backlog_events",
    "list_due_of_lane",
    "next_blocking_key",
    "list_runs",
    "list_runs_of_status",
    "list_runs_of_automation",
    "list_events",
    "list_events_after",
    "list_events_of_run_after",
    "list_due",
    "list_automations",
    "list_automation_events",
    "list_newest_events",
    "list_retired",
    "list_newest_events",
    "list_due",
    "list_reaped",
    "list_told",
    "list_candidates",
    "list_sessions_of_run",
    "list_tokens",
    "list_tokens_of_tenant",
    "list_audit",
    "list_audit_of_tenant",
    "list_webhook_triggers",
    "list_webhook_deliveries_of_trigger",
    "list_webhook_deliveries_of_automation",
    "list_webhook_deliveries_of_tenant",
    "list_webhook_deliveries_of_run",
    "list_open_webhook_deliveries",
    "list_old_webhook_deliveries",
    "nth_newest_webhook_delivery",
)
"""Their order comes from the index: with a limit they stop after a page."""

INDEXES = {
    "automation_due": "list_due_automations",
    "automation_watching": "list_watching",
    "run_open": "find_open_run",
    "firing_of_automation": "list_firings",
    "handoff_to_archive": "list_unarchived",
    "run_queue": "list_due_lanes",
    "run_blocked": "wake_blocked",
    "run_concurrency": "count_under_key",
    "run_parked": "list_due",
    "run_due": "next_due",
    "run_of_tenant": "list_runs",
    "run_of_status": "list_runs_of_status",
    "run_of_automation": "list_runs_of_automation",
    "run_of_creation": "search_runs_of_span",
    "run_held": "list_held",
    "automation_event_of_version": "find_automation_version",
    "run_owned": "list_held",
    "run_cleanup": "list_held",
    "run_reaped": "list_reaped",
    "gate_of_run": "list_gates_of_run",
    "gate_of_status": "list_gates",
    "wait_of_run": "list_waits_of_run",
    "artifact_of_node": "list_artifacts_of_node",
    "artifact_of_digest": "is_digest_used",
    "run_retired": "list_retired",
    "wait_of_status": "list_waits",
    "wait_for_signal": "list_waits_for_signal",
    "signal_open": "list_open_signals",
    "signal_received": "list_old_signals",
    "signal_key_of": "list_signal_keys",
    "run_forked": "list_forks",
    "candidate_of_automation": "prune_candidates",
    "candidate_of_tenant": "list_candidates",
    "candidate_told": "list_told",
    "review_open": "list_open_reviews",
    "session_of_run": "list_sessions_of_run",
    "token_of_tenant": "list_tokens_of_tenant",
    "assertion_use_expiry": "has_old_assertion_use",
    "request_key_age": "has_old_request_key",
    "audit_of_tenant": "list_audit_of_tenant",
    "webhook_trigger_of_automation": "list_webhook_triggers",
    "webhook_delivery_of_trigger": "list_webhook_deliveries_of_trigger",
    "webhook_delivery_not_believed": "trim_webhook_rejections",
    "webhook_delivery_of_automation": "list_webhook_deliveries_of_automation",
    "webhook_delivery_of_tenant": "list_webhook_deliveries_of_tenant",
    "webhook_delivery_of_run": "list_webhook_deliveries_of_run",
    "webhook_delivery_open": "list_open_webhook_deliveries",
    "webhook_delivery_received": "list_old_webhook_deliveries",
}
"""Every index of the schema, and a statement that must notice when it is gone."""


class AnyValue(dict[str, None]):
    """Gives every parameter of a statement a value."""

    def __missing__(self, key: str) -> None:
        return None


@pytest.fixture(scope="module")
def tables() -> Iterator[apsw.Connection]:
    made = apsw.Connection(":memory:")
    for _, script in load_migrations():
        made.execute(script)
    yield made
    made.close()


@pytest.fixture
def connection(tables: apsw.Connection) -> Iterator[apsw.Connection]:
    """Return the tables; what a test changes of them is taken back."""
    tables.execute("BEGIN")
    yield tables
    tables.execute("ROLLBACK")


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
