-- Statements of the store, each with a name and a sentence. Values are bound in the order in which
-- their names first appear. A statement compares and sets; it does not judge.

-- name: advance_run
-- The first statement of a change that moves no state; no row means that it is refused as a whole.
UPDATE run SET last_change_id = :change_id, updated_at_ms = :now_ms, event_seq = :event_seq,
       detail = :detail, nodes_completed = :nodes_completed, event_hash = :event_hash
 WHERE run_no = :run_no AND last_change_id = :builds_on AND epoch = :epoch RETURNING run_no;

-- name: move_run
-- The first statement of a change that moves the run; no row means that it is refused as a whole.
UPDATE run SET last_change_id = :change_id, updated_at_ms = :now_ms, event_seq = :event_seq,
       detail = :detail, nodes_completed = :nodes_completed, event_hash = :event_hash,
       status = :status, epoch = :epoch_after, engine_id = :engine_id, owner = :owner,
       cleanup = :cleanup, started_at_ms = :started_at_ms, finished_at_ms = :finished_at_ms,
       due_at_ms = :due_at_ms, queue_reason = :queue_reason, parked = :parked,
       stop_kind = :stop_kind, stop_reason = :stop_reason, pause_reason = :pause_reason,
       resume_reason = :resume_reason, last_failure = :last_failure
 WHERE run_no = :run_no AND last_change_id = :builds_on AND epoch = :epoch RETURNING run_no;

-- name: insert_run
-- A new run; its number comes back.
INSERT INTO run (run_id, tenant, automation_id, name, definition_digest, trigger_type, status,
       last_change_id, epoch, owner, event_seq, created_at_ms, updated_at_ms, due_at_ms, parked,
       detail, stop_reason, pause_reason, resume_reason, inputs, workspace, nodes_total,
       nodes_completed, event_hash)
VALUES (:run_id, :tenant, :automation_id, :name, :definition_digest, :trigger_type, :status,
       :last_change_id, 0, :owner, 1, :now_ms, :updated_at_ms, :due_at_ms, '', '', '', '', '',
       :inputs, :workspace, :nodes_total, 0, :event_hash)
RETURNING run_no;

-- name: put_definition
-- Keep a version once per tenant.
INSERT INTO definition (tenant, digest, document) VALUES (:tenant, :digest, :document)
ON CONFLICT (tenant, digest) DO NOTHING;

-- name: get_definition
-- One version.
SELECT document FROM definition WHERE tenant = :tenant AND digest = :digest;

-- name: put_node_run
-- The whole row of a node run.
INSERT OR REPLACE INTO node_run (node_run_id, state, attempts, attempts_used, repairs_used,
       interruptions, gates, due_at_ms, started_at_ms, finished_at_ms, output, output_ref, repair,
       failure)
VALUES (:node_run_id, :state, :attempts, :attempts_used, :repairs_used, :interruptions, :gates,
       :due_at_ms, :started_at_ms, :finished_at_ms, :output, :output_ref, :repair, :failure);

-- name: start_attempt
-- An attempt begins.
INSERT INTO attempt (attempt_no, epoch, engine_id, started_at_ms)
VALUES (:attempt_no, :epoch, :engine_id, :started_at_ms);

-- name: end_attempt
-- An attempt ends.
UPDATE attempt SET ended_at_ms = :ended_at_ms, outcome = :outcome, failure_class = :failure_class,
       message = :message, detail = :detail, exit_code = :exit_code
 WHERE attempt_no = :attempt_no;

-- name: put_gate
-- One asking of a gate.
INSERT OR REPLACE INTO gate (gate_id, run_no, node_no, node_id, instance, purpose, title,
       instructions, decisions, requested_at_ms, expires_at_ms, on_expiry, status, decision, reason,
       decided_by, decided_at_ms)
VALUES (:gate_id, :run_no, :node_no, :node_id, :instance, :purpose, :title, :instructions,
       :decisions, :requested_at_ms, :expires_at_ms, :on_expiry, :status, :decision, :reason,
       :decided_by, :decided_at_ms);

-- name: put_wait
-- One wait for time.
INSERT OR REPLACE INTO wait (wait_id, run_no, node_no, node_id, kind, due_at_ms, registered_at_ms,
       status, ended_at_ms)
VALUES (:wait_id, :run_no, :node_no, :node_id, :kind, :due_at_ms, :registered_at_ms, :status,
       :ended_at_ms);

-- name: add_artifact
-- A file or large output that an attempt left.
INSERT INTO artifact (run_no, node_no, attempt, ref, digest, contract, inputs_digest, validity, provenance,
       registered_at_ms)
VALUES (:run_no, :node_no, :attempt, :ref, :digest, :contract, :inputs_digest, :validity, :provenance,
       :registered_at_ms);

-- name: add_event
-- The record of one transition.
INSERT INTO lifecycle_event (run_no, seq, event, recorded_at_ms, change_id, node_id, attempt,
       reason, stop_kind, metadata, record_hash)
VALUES (:run_no, :seq, :event, :recorded_at_ms, :change_id, :node_id, :attempt, :reason, :stop_kind,
       :metadata, :record_hash);

-- name: find_run
-- One run of a tenant by its id.
SELECT * FROM run WHERE run_id = :run_id AND tenant = :tenant;

-- name: list_run_ids
-- The runs of a tenant whose ids lie in a range; the plus makes the range the way in.
SELECT run_id FROM run
 WHERE +tenant = :tenant AND run_id >= :first AND run_id < :past ORDER BY run_id LIMIT :limit;

-- name: find_run_by_no
-- One run by its number.
SELECT * FROM run WHERE run_no = :run_no;

-- name: has_event
-- Whether this change is on disk.
SELECT 1 FROM lifecycle_event AS e JOIN run AS r ON r.run_no = e.run_no
 WHERE r.run_id = :run_id AND e.change_id = :change_id AND e.seq = :seq;

-- name: list_node_runs
-- The node runs of a run.
SELECT * FROM node_run WHERE node_run_id BETWEEN :first AND :last ORDER BY node_run_id;

-- name: list_attempts
-- The attempts of a run.
SELECT * FROM attempt WHERE attempt_no BETWEEN :first AND :last ORDER BY attempt_no;

-- name: list_gates_of_run
-- The gates of a run that are open. The plus keeps the planner from walking all open gates in order.
SELECT * FROM gate WHERE run_no = :run_no AND status = 'open' ORDER BY +requested_at_ms, gate_id;

-- name: list_waits_of_run
-- The waits of a run that are registered.
SELECT * FROM wait WHERE run_no = :run_no AND status = 'waiting' ORDER BY due_at_ms, wait_id;

-- name: list_artifacts_of_run
-- What the attempts of a run left; the plus keeps the planner from walking all artifacts in order.
SELECT * FROM artifact WHERE run_no = :run_no ORDER BY +artifact_no;

-- name: list_artifacts_of_node
-- What the attempts of a node left.
SELECT * FROM artifact WHERE run_no = :run_no AND node_no = :node_no ORDER BY artifact_no;

-- name: invalidate_artifacts
-- What a node left does not count any more.
UPDATE artifact SET validity = :validity, invalidated_at_ms = :now_ms
 WHERE run_no = :run_no AND node_no = :node_no AND validity = 'valid';

-- name: is_referenced
-- Whether any run has an artifact with this digest.
SELECT 1 FROM artifact WHERE digest = :digest LIMIT 1;

-- name: list_gates
-- Gates of one tenant with their runs, oldest first; an open gate of a run that has ended can be
-- decided only after a recovery, so it is not shown before that.
SELECT r.run_id AS of_run, r.automation_id, r.name, r.status AS run_status, g.*
  FROM gate AS g JOIN run AS r ON r.run_no = g.run_no
 WHERE g.status = :status AND r.tenant = :tenant
   AND (g.status <> 'open' OR r.finished_at_ms IS NULL)
 ORDER BY g.requested_at_ms LIMIT :limit;

-- name: list_gates_in_run
-- Gates of one run of a tenant, oldest first; the plus as in `list_gates_of_run`.
SELECT r.run_id AS of_run, r.automation_id, r.name, r.status AS run_status, g.*
  FROM run AS r JOIN gate AS g ON g.run_no = r.run_no
 WHERE g.status = :status AND r.tenant = :tenant AND r.run_id = :run_id
 ORDER BY +g.requested_at_ms LIMIT :limit;

-- name: list_claimable_own
-- Due queued runs of this engine, oldest first.
SELECT run_no FROM run WHERE status = 'queued' AND owner = :engine_id AND due_at_ms <= :now_ms
 ORDER BY due_at_ms, run_no LIMIT :limit;

-- name: list_claimable
-- Due queued runs of this engine, of nobody, and of engines that are gone, oldest first. The plus
-- keeps the planner from walking all due runs in search of one with a lost owner.
SELECT run_no FROM (
    SELECT run_no, due_at_ms FROM (
        SELECT run_no, due_at_ms FROM run
         WHERE status = 'queued' AND owner = :engine_id AND due_at_ms <= :now_ms
         ORDER BY due_at_ms LIMIT :limit)
    UNION ALL
    SELECT run_no, due_at_ms FROM (
        SELECT run_no, due_at_ms FROM run
         WHERE status = 'queued' AND owner IS NULL AND due_at_ms <= :now_ms
         ORDER BY due_at_ms LIMIT :limit)
    UNION ALL
    SELECT run_no, due_at_ms FROM (
        SELECT run_no, due_at_ms FROM run
         WHERE status = 'queued' AND due_at_ms IS NOT NULL AND +due_at_ms <= :now_ms
           AND owner IS NOT NULL AND owner <> :engine_id
           AND owner NOT IN (SELECT engine_id FROM engine)
         ORDER BY +due_at_ms LIMIT :limit)
) ORDER BY due_at_ms, run_no LIMIT :limit;

-- name: list_due
-- Parked runs whose moment has come.
SELECT tenant, run_id FROM run
 WHERE due_at_ms <= :now_ms AND status IN ('paused', 'awaiting_approval')
 ORDER BY due_at_ms LIMIT :limit;

-- name: next_due
-- When the next run is due.
SELECT due_at_ms FROM run WHERE due_at_ms IS NOT NULL ORDER BY due_at_ms LIMIT 1;

-- name: list_runs
-- The newest runs of a tenant.
SELECT * FROM run WHERE tenant = :tenant AND run_no < :before_no ORDER BY run_no DESC LIMIT :limit;

-- name: list_runs_of_status
-- The newest runs of a tenant in one state.
SELECT * FROM run WHERE tenant = :tenant AND status = :status AND run_no < :before_no
 ORDER BY run_no DESC LIMIT :limit;

-- name: list_runs_of_automation
-- The newest runs of an automation.
SELECT * FROM run WHERE tenant = :tenant AND automation_id = :automation_id AND run_no < :before_no
 ORDER BY run_no DESC LIMIT :limit;

-- name: list_runs_of_automation_in_status
-- The newest runs of an automation in one state.
SELECT * FROM run WHERE tenant = :tenant AND automation_id = :automation_id AND status = :status
   AND run_no < :before_no ORDER BY run_no DESC LIMIT :limit;

-- name: list_events
-- The events of a run after a number.
SELECT e.* FROM lifecycle_event AS e
 WHERE e.run_no = :run_no AND e.seq > :after_seq ORDER BY e.seq LIMIT :limit;

-- name: put_engine
-- The row of a live engine.
INSERT OR REPLACE INTO engine (engine_id, host, pid, version, lock_path, started_at_ms,
       lease_until_ms)
VALUES (:engine_id, :host, :pid, :version, :lock_path, :started_at_ms, :lease_until_ms);

-- name: remove_engine
-- Forget an engine that holds nothing; one that does stays, so that others find what it holds.
DELETE FROM engine WHERE engine_id = :engine_id
   AND NOT EXISTS (SELECT 1 FROM run WHERE run.engine_id = :engine_id)
   AND NOT EXISTS (SELECT 1 FROM run WHERE run.cleanup = :engine_id);

-- name: list_engines
-- All engines.
SELECT * FROM engine ORDER BY engine_id;

-- name: list_held
-- What an engine holds, owns or has to clean up.
SELECT run_id, run_no, tenant, status, engine_id, owner, cleanup, last_change_id FROM run
 WHERE engine_id = :engine_id
UNION
SELECT run_id, run_no, tenant, status, engine_id, owner, cleanup, last_change_id FROM run
 WHERE owner = :engine_id
UNION
SELECT run_id, run_no, tenant, status, engine_id, owner, cleanup, last_change_id FROM run
 WHERE cleanup = :engine_id;

-- name: list_retired
-- Runs that ended and rest, oldest first, whose rows are not all packed yet.
SELECT run_no FROM run
 WHERE finished_at_ms IS NOT NULL AND archived_at_ms IS NULL AND updated_at_ms <= :before_ms
   AND cleanup IS NULL
 ORDER BY updated_at_ms LIMIT :limit;

-- name: mark_archived
-- Everything of the run is packed; null when it is not any more.
UPDATE run SET archived_at_ms = :now_ms WHERE run_no = :run_no;

-- name: list_archive_parts
-- What of a run is packed.
SELECT part, rows FROM archive_part WHERE run_no = :run_no ORDER BY part;

-- name: add_archive_part
-- The next part of a run; its number comes back.
INSERT INTO archive_part (run_no, part, rows)
SELECT :run_no, coalesce(max(part), 0) + 1, :rows FROM archive_part WHERE run_no = :of_run
RETURNING part;

-- name: remove_archive_parts
-- Nothing of the run is packed any more.
DELETE FROM archive_part WHERE run_no = :run_no;

-- name: take_node_run
-- The next node runs of a run to be packed.
SELECT * FROM node_run WHERE node_run_id BETWEEN :first AND :last
 ORDER BY node_run_id LIMIT :limit;

-- name: take_attempt
-- The next attempts of a run to be packed.
SELECT * FROM attempt WHERE attempt_no BETWEEN :first AND :last ORDER BY attempt_no LIMIT :limit;

-- name: take_lifecycle_event
-- The next events of a run to be packed; first and last are its number.
SELECT * FROM lifecycle_event WHERE run_no = :first AND run_no = :last ORDER BY seq LIMIT :limit;

-- name: take_wait
-- The next waits of a run to be packed; first and last are its number.
SELECT * FROM wait WHERE run_no = :first AND run_no = :last ORDER BY wait_id LIMIT :limit;

-- name: drop_node_run
-- The node runs that were packed.
DELETE FROM node_run WHERE node_run_id BETWEEN :first AND :last AND node_run_id <= :newest;

-- name: drop_attempt
-- The attempts that were packed.
DELETE FROM attempt WHERE attempt_no BETWEEN :first AND :last AND attempt_no <= :newest;

-- name: drop_lifecycle_event
-- The events that were packed.
DELETE FROM lifecycle_event WHERE run_no = :first AND run_no = :last AND seq <= :newest;

-- name: drop_wait
-- The waits that were packed.
DELETE FROM wait WHERE run_no = :first AND run_no = :last AND wait_id <= :newest;

-- name: list_runs_after
-- Runs of all tenants in the order of their numbers.
SELECT * FROM run WHERE run_no > :after_no ORDER BY run_no LIMIT :limit;

-- name: find_run_by_id
-- A run by its id, whoever's it is.
SELECT * FROM run WHERE run_id = :run_id;

-- name: add_imported_run
-- Where a run came from.
INSERT OR REPLACE INTO imported_run (run_no, digest, source, imported_at_ms, document)
VALUES (:run_no, :digest, :source, :imported_at_ms, :document);

-- name: was_imported
-- Whether a run came from exactly this.
SELECT 1 FROM imported_run WHERE run_no = :run_no AND digest = :digest;

-- name: list_imports_of_run
-- Where a run came from.
SELECT source, digest, imported_at_ms, document FROM imported_run WHERE run_no = :run_no
 ORDER BY imported_at_ms, digest;
