-- Statements of the store, each with a name and a sentence. Values are bound in the order in which
-- their names first appear. A statement compares and sets; it does not judge.

-- name: advance_run
-- The first statement of a change that moves no state; no change means that it is refused as a whole.
UPDATE run SET last_change_id = :change_id, updated_at_ms = :now_ms, event_seq = :event_seq,
       detail = :detail, nodes_completed = :nodes_completed, event_hash = :event_hash
 WHERE run_no = :run_no AND last_change_id = :builds_on AND epoch = :epoch;

-- name: move_run
-- The first statement of a change that moves the run; no change means that it is refused as a whole.
UPDATE run SET last_change_id = :change_id, updated_at_ms = :now_ms, event_seq = :event_seq,
       detail = :detail, nodes_completed = :nodes_completed, event_hash = :event_hash,
       status = :status, epoch = :epoch_after, engine_id = :engine_id, owner = :owner,
       cleanup = :cleanup, started_at_ms = :started_at_ms, finished_at_ms = :finished_at_ms,
       due_at_ms = :due_at_ms, queued_at_ms = :queued_at_ms, queue_reason = :queue_reason,
       resource_key = :resource_key, rate_limited_provider = :rate_limited_provider,
       parked = :parked,
       stop_kind = :stop_kind, stop_reason = :stop_reason, pause_reason = :pause_reason,
       resume_reason = :resume_reason, last_failure = :last_failure,
       interruptions = :interruptions, auto_resumes = :auto_resumes, reaped_at_ms = :reaped_at_ms,
       pause_mode = :pause_mode, prompt_tokens = :prompt_tokens,
       completion_tokens = :completion_tokens, total_tokens = :total_tokens,
       cost_nano_usd = :cost_nano_usd, tool_calls = :tool_calls, active_ms = :active_ms,
       active_since_ms = :active_since_ms, allowance = :allowance
 WHERE run_no = :run_no AND last_change_id = :builds_on AND epoch = :epoch;

-- name: insert_run
-- A new run; its number comes back.
INSERT INTO run (run_id, tenant, automation_id, name, definition_digest, definition_version,
       automation_version, trigger_type, trigger_reason, requested_execution_profile,
       effective_execution_profile, runtime_context, status, last_change_id, epoch, owner,
       event_seq, created_at_ms, updated_at_ms, started_at_ms, finished_at_ms, due_at_ms, parked,
       detail, stop_reason, pause_reason, resume_reason, inputs, workspace, nodes_total,
       nodes_completed, started_by, queued_at_ms, lock_path, concurrency_key, concurrency_limit,
       labels, event_hash, consumed_handoff_id, runtime_clock, trigger_context)
VALUES (:run_id, :tenant, :automation_id, :name, :definition_digest, :definition_version,
       :automation_version, :trigger_type, :trigger_reason, :requested_execution_profile,
       :effective_execution_profile, :runtime_context, :status, :last_change_id, 0, :owner,
       :event_seq, :created_at_ms, :updated_at_ms, :started_at_ms, :finished_at_ms, :due_at_ms, '',
       :detail, '', '', '', :inputs, :workspace, :nodes_total, 0, :started_by, :queued_at_ms,
       :lock_path, :concurrency_key, :concurrency_limit, :labels, :event_hash,
       :consumed_handoff_id, :runtime_clock, :trigger_context)
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
       failure, handling, reading)
VALUES (:node_run_id, :state, :attempts, :attempts_used, :repairs_used, :interruptions, :gates,
       :due_at_ms, :started_at_ms, :finished_at_ms, :output, :output_ref, :repair, :failure,
       :handling, :reading);

-- name: start_attempt
-- An attempt begins.
INSERT INTO attempt (attempt_no, epoch, engine_id, started_at_ms)
VALUES (:attempt_no, :epoch, :engine_id, :started_at_ms);

-- name: end_attempt
-- An attempt ends.
UPDATE attempt SET ended_at_ms = :ended_at_ms, outcome = :outcome, failure_class = :failure_class,
       message = :message, detail = :detail, exit_code = :exit_code, unmet = :unmet,
       is_repair_charged = :is_repair_charged
 WHERE attempt_no = :attempt_no;

-- name: find_attempt_usage
-- What an attempt is known to have spent.
SELECT usage FROM attempt WHERE attempt_no = :attempt_no;

-- name: meter_attempt
-- What an attempt has spent by now.
UPDATE attempt SET usage = :usage WHERE attempt_no = :attempt_no;

-- name: put_gate
-- One asking of a gate.
INSERT OR REPLACE INTO gate (gate_id, run_no, node_no, node_id, instance, purpose, title,
       instructions, decisions, rework_targets, requested_at_ms, requested_by, expires_at_ms,
       on_expiry, escalate_to, remind_every_ms, stale_after_ms, policy_state, reviewed_artifact,
       guard_denials, status, decision, reason, decided_by, decided_at_ms, four_eyes)
VALUES (:gate_id, :run_no, :node_no, :node_id, :instance, :purpose, :title, :instructions,
       :decisions, :rework_targets, :requested_at_ms, :requested_by, :expires_at_ms, :on_expiry,
       :escalate_to, :remind_every_ms, :stale_after_ms, :policy_state, :reviewed_artifact,
       :guard_denials, :status, :decision, :reason, :decided_by, :decided_at_ms, :four_eyes);

-- name: put_wait
-- One wait for a moment or a signal.
INSERT OR REPLACE INTO wait (wait_id, run_no, node_no, node_id, kind, due_at_ms, registered_at_ms,
       signal_key, accepts_since_ms, timeout_at_ms, on_timeout, escalate_to, remind_every_ms,
       policy_state, status, idempotency_key, ended_at_ms)
VALUES (:wait_id, :run_no, :node_no, :node_id, :kind, :due_at_ms, :registered_at_ms, :signal_key,
       :accepts_since_ms, :timeout_at_ms, :on_timeout, :escalate_to, :remind_every_ms,
       :policy_state, :status, :idempotency_key, :ended_at_ms);

-- name: add_artifact
-- A file or large output that an attempt left.
INSERT INTO artifact (run_no, node_no, attempt, ref, digest, contract, inputs_digest, validity, provenance,
       registered_at_ms)
VALUES (:run_no, :node_no, :attempt, :ref, :digest, :contract, :inputs_digest, :validity, :provenance,
       :registered_at_ms);

-- name: add_event
-- The record of one transition.
INSERT INTO lifecycle_event (run_no, seq, event, recorded_at_ms, change_id, node_id, attempt,
       reason, stop_kind, metadata, record_hash, run_status)
VALUES (:run_no, :seq, :event, :recorded_at_ms, :change_id, :node_id, :attempt, :reason, :stop_kind,
       :metadata, :record_hash, :run_status);

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
SELECT * FROM wait WHERE run_no = :run_no AND status IN ('waiting', 'escalated')
 ORDER BY registered_at_ms, wait_id;

-- name: list_settled_gates_of_run
-- The newest gates of a run that are over, for whoever decides too late.
SELECT * FROM gate WHERE run_no = :run_no AND status IN ('decided', 'expired', 'withdrawn')
 ORDER BY decided_at_ms DESC, +requested_at_ms DESC, gate_id DESC LIMIT :limit;

-- name: list_all_gates_of_run
-- Every asking of a run; the plus as in `list_gates_of_run`.
SELECT * FROM gate WHERE run_no = :run_no ORDER BY +requested_at_ms, gate_id;

-- name: list_waits
-- Open waits of one tenant with their runs behind a place, oldest first; those of ended runs are
-- not shown.
SELECT r.run_id AS of_run, r.automation_id, r.name, r.status AS run_status, w.*
  FROM wait AS w JOIN run AS r ON r.run_no = w.run_no
 WHERE w.status = :status AND r.tenant = :tenant AND r.finished_at_ms IS NULL
   AND (w.registered_at_ms, w.wait_id) > (:after_ms, :after_id)
 ORDER BY w.registered_at_ms, w.wait_id LIMIT :limit;

-- name: find_wait
-- The wait of a run that a key has woken already.
SELECT * FROM wait WHERE run_no = :run_no AND idempotency_key = :idempotency_key
   AND status = 'woken' ORDER BY ended_at_ms DESC LIMIT :limit;

-- name: add_signal
-- Keep a signal; no row means that it was accepted before.
INSERT INTO signal (tenant, kind, subject, idempotency_key, received_at_ms, signal, open_after)
VALUES (:tenant, :kind, :subject, :idempotency_key, :received_at_ms, :signal, '')
ON CONFLICT (tenant, kind, subject, idempotency_key) DO NOTHING RETURNING signal_no;

-- name: find_signal
-- A signal that was accepted.
SELECT * FROM signal WHERE tenant = :tenant AND kind = :kind AND subject = :subject
   AND idempotency_key = :idempotency_key;

-- name: get_signal
-- A signal by its number.
SELECT * FROM signal WHERE signal_no = :signal_no;

-- name: add_signal_key
-- A key by which waits find a signal.
INSERT INTO signal_key (signal_key, signal_no) VALUES (:signal_key, :signal_no);

-- name: list_signal_keys
-- The keys of a signal.
SELECT signal_key FROM signal_key WHERE signal_no = :signal_no;

-- name: list_waits_for_signal
-- Open waits that a signal may be for, after a place; those of ended runs find it when they go on.
SELECT w.wait_id, w.run_no FROM wait AS w
 WHERE w.signal_key = :signal_key AND w.signal_key <> '' AND w.wait_id > :after
   AND w.status IN ('waiting', 'escalated')
 ORDER BY w.wait_id LIMIT :limit;

-- name: list_signals_for_wait
-- Kept signals that a wait may have come for, oldest first.
SELECT s.* FROM signal_key AS k JOIN signal AS s ON s.signal_no = k.signal_no
 WHERE k.signal_key = :signal_key AND s.received_at_ms >= :accepts_since_ms
 ORDER BY k.signal_no LIMIT :limit;

-- name: mark_signal
-- How far the waits of a signal were looked at; null when all were.
UPDATE signal SET open_after = :open_after WHERE signal_no = :signal_no;

-- name: list_open_signals
-- Signals whose waits were not all looked at.
SELECT signal_no FROM signal WHERE open_after IS NOT NULL AND signal_no > :after_no
 ORDER BY signal_no LIMIT :limit;

-- name: list_old_signals
-- Signals that have been kept long enough.
SELECT signal_no FROM signal WHERE received_at_ms < :before_ms
 ORDER BY received_at_ms LIMIT :limit;

-- name: remove_signal_keys
-- Forget the keys of a signal.
DELETE FROM signal_key WHERE signal_no = :signal_no;

-- name: remove_signal
-- Forget a signal.
DELETE FROM signal WHERE signal_no = :signal_no;

-- name: list_artifacts_of_run
-- What the attempts of a run left; the plus keeps the planner from walking all artifacts in order.
SELECT * FROM artifact WHERE run_no = :run_no ORDER BY +artifact_no;

-- name: is_attempt_running
-- Whether an attempt counts; no other claim starts one of its number.
SELECT 1 FROM node_run
 WHERE node_run_id = :node_run_id AND state = 'running' AND attempts = :number;

-- name: list_artifacts_of_node
-- What the attempts of a node left.
SELECT * FROM artifact WHERE run_no = :run_no AND node_no = :node_no ORDER BY artifact_no;

-- name: invalidate_artifacts
-- What a node left does not count any more; what is out of date may still be rejected.
UPDATE artifact SET validity = :validity, invalidated_at_ms = :now_ms
 WHERE run_no = :run_no AND node_no = :node_no AND validity <> 'rejected';

-- name: list_gates
-- Gates of one tenant with their runs, oldest first; an open gate of a run that has ended can be
-- decided only after a recovery, so it is not shown before that.
SELECT r.run_id AS of_run, r.automation_id, r.name, r.status AS run_status,
       r.started_by, g.*
  FROM gate AS g JOIN run AS r ON r.run_no = g.run_no
 WHERE g.status = :status AND r.tenant = :tenant
   AND (g.status <> 'open' OR r.finished_at_ms IS NULL)
 ORDER BY g.requested_at_ms LIMIT :limit;

-- name: list_newest_gates
-- The same, newest first, before a place.
SELECT r.run_id AS of_run, r.automation_id, r.name, r.status AS run_status,
       r.started_by, g.*
  FROM gate AS g JOIN run AS r ON r.run_no = g.run_no
 WHERE g.status = :status AND r.tenant = :tenant
   AND (g.status <> 'open' OR r.finished_at_ms IS NULL)
   AND (g.requested_at_ms, g.gate_id) < (:before_ms, :before_id)
 ORDER BY g.requested_at_ms DESC, g.gate_id DESC LIMIT :limit;

-- name: list_gates_in_run
-- Gates of one run of a tenant, oldest first; the plus as in `list_gates_of_run`.
SELECT r.run_id AS of_run, r.automation_id, r.name, r.status AS run_status,
       r.started_by, g.*
  FROM run AS r JOIN gate AS g ON g.run_no = r.run_no
 WHERE g.status = :status AND r.tenant = :tenant AND r.run_id = :run_id
 ORDER BY +g.requested_at_ms LIMIT :limit;

-- name: find_definition_of_run
-- Which definition a run executes, and of which automation.
SELECT automation_id, definition_digest FROM run WHERE run_no = :run_no;

-- name: has_due_run
-- Whether any queued run is due; an engine that rests asks nothing else.
SELECT 1 FROM run WHERE due_at_ms <= :now_ms AND +status = 'queued' LIMIT 1;

-- name: list_due_lanes
-- The lanes that have a due run; one step in the index leads from each lane to the next.
WITH RECURSIVE step (lane) AS (
    SELECT min(lane) FROM run WHERE status = 'queued' AND due_at_ms IS NOT NULL AND lane > ''
    UNION ALL
    SELECT (SELECT min(run.lane) FROM run
             WHERE status = 'queued' AND due_at_ms IS NOT NULL AND run.lane > step.lane)
      FROM step WHERE step.lane IS NOT NULL)
SELECT step.lane FROM step
 WHERE step.lane IS NOT NULL
   AND EXISTS (SELECT 1 FROM run WHERE status = 'queued' AND due_at_ms IS NOT NULL
                  AND run.lane = step.lane AND due_at_ms <= :now_ms);

-- name: list_due_of_lane
-- Due queued runs of a lane, oldest first; not those of which processes may still live.
SELECT run_no, due_at_ms FROM run
 WHERE status = 'queued' AND due_at_ms IS NOT NULL AND lane = :lane AND due_at_ms <= :now_ms
   AND cleanup IS NULL
 ORDER BY due_at_ms, run_no LIMIT :limit;

-- name: refuse_run
-- A due run is not claimed; it leaves the queue of its lane until its moment, or until the key that
-- it waits for is free.
UPDATE run SET queue_reason = :queue_reason, resource_key = :resource_key,
       rate_limited_provider = :rate_limited_provider, due_at_ms = :due_at_ms
 WHERE run_no = :run_no AND status = 'queued' AND last_change_id = :last_change_id;

-- name: wake_blocked
-- A key has become free: the oldest runs that wait for it go back to where they were in the queue.
UPDATE run SET due_at_ms = min(coalesce(queued_at_ms, :now_ms), :now_ms), queue_reason = NULL,
       resource_key = ''
 WHERE run_no IN (
    SELECT run_no FROM run
     WHERE status = 'queued' AND due_at_ms IS NULL AND resource_key <> ''
       AND resource_key = :resource_key AND concurrency_limit > :claims
     ORDER BY run_no LIMIT :limit)
RETURNING run_no;

-- name: has_waker_for
-- Whether a run waits for a key under which fewer runs are driven than it allows.
SELECT 1 FROM run
 WHERE status = 'queued' AND due_at_ms IS NULL AND resource_key <> ''
   AND resource_key = :resource_key AND concurrency_limit > :claims LIMIT 1;

-- name: next_blocking_key
-- The next key that queued runs wait for, in order.
SELECT resource_key FROM run
 WHERE status = 'queued' AND due_at_ms IS NULL AND resource_key <> '' AND resource_key > :after
 ORDER BY resource_key LIMIT 1;

-- name: count_driven
-- How many runs all engines drive.
SELECT count(*) FROM run WHERE engine_id IS NOT NULL;

-- name: count_driven_by_engine
-- How many runs each engine drives.
SELECT engine_id, count(*) AS runs FROM run WHERE engine_id IS NOT NULL GROUP BY engine_id;

-- name: count_under_key
-- How many runs with this concurrency key are driven, or have processes that may still live.
SELECT count(*) FROM run
 WHERE concurrency_key <> '' AND (engine_id IS NOT NULL OR cleanup IS NOT NULL)
   AND concurrency_key = :concurrency_key;

-- name: list_under_key
-- Some of those runs, the oldest first.
SELECT run_id, tenant, engine_id, cleanup, started_at_ms FROM run
 WHERE concurrency_key <> '' AND (engine_id IS NOT NULL OR cleanup IS NOT NULL)
   AND concurrency_key = :concurrency_key
 ORDER BY run_no LIMIT :limit;

-- name: count_queued
-- How many runs wait in the queue, by lane and by the reason that is stored; lanes are empty for
-- those that wait for a key.
SELECT lane, coalesce(queue_reason, '') AS reason, due_at_ms <= :now_ms AS is_due, count(*) AS runs
  FROM run WHERE status = 'queued' AND due_at_ms IS NOT NULL AND lane > '' GROUP BY 1, 2, 3
UNION ALL
SELECT '', coalesce(queue_reason, ''), 0, count(*)
  FROM run WHERE status = 'queued' AND due_at_ms IS NULL AND resource_key <> ''
   AND resource_key > '' GROUP BY 2;

-- name: take_workspace
-- A run has its workspace to itself from now on; nobody else's lock is ever replaced.
INSERT INTO workspace_lock (path, run_no, epoch, engine_id, since_ms)
VALUES (:path, :run_no, :epoch, :engine_id, :since_ms);

-- name: release_workspace
-- The run needs its workspace no more.
DELETE FROM workspace_lock WHERE run_no = :run_no RETURNING path;

-- name: find_lock
-- The lock of a workspace, of the nearest around it, or of one inside it.
SELECT l.path, l.run_no, r.run_id, r.tenant, l.epoch, l.engine_id, l.since_ms
  FROM workspace_lock AS l JOIN run AS r ON r.run_no = l.run_no
 WHERE l.path IN (SELECT value FROM json_each(:around))
    OR l.path > :first AND l.path < :past
 ORDER BY l.path DESC LIMIT 1;

-- name: find_lock_of_path
-- The run that holds exactly this path.
SELECT r.* FROM workspace_lock AS l JOIN run AS r ON r.run_no = l.run_no WHERE l.path = :path;

-- name: list_throttles
-- Until when which providers of a tenant want to be left alone.
SELECT provider, until_ms FROM provider_throttle
 WHERE tenant = :tenant AND until_ms > :now_ms LIMIT :limit;

-- name: put_throttle
-- A provider wants to be left alone; a longer wish stands.
INSERT INTO provider_throttle (tenant, provider, until_ms, recorded_at_ms, run_no)
VALUES (:tenant, :provider, :until_ms, :recorded_at_ms, :run_no)
ON CONFLICT (tenant, provider) DO UPDATE SET
       until_ms = max(until_ms, excluded.until_ms), recorded_at_ms = excluded.recorded_at_ms,
       run_no = excluded.run_no;

-- name: forget_throttles
-- What is over is forgotten when the next wish of the tenant comes.
DELETE FROM provider_throttle WHERE tenant = :tenant AND until_ms <= :now_ms;

-- name: get_admission
-- Whose turn was last, and what was counted.
SELECT last_tenant, admitted_total, completed_total FROM admission WHERE admission_no = 1;

-- name: count_admitted
-- Runs were claimed.
UPDATE admission SET last_tenant = :last_tenant, admitted_total = :admitted_total
 WHERE admission_no = 1;

-- name: count_completed
-- A run came to its end.
UPDATE admission SET completed_total = completed_total + 1 WHERE admission_no = 1;

-- name: put_wait_of_admission
-- How long a run waited, in the place of the oldest one.
INSERT OR REPLACE INTO admission_wait (slot, wait_ms) VALUES (:slot, :wait_ms);

-- name: list_waits_of_admission
-- The newest waits.
SELECT wait_ms FROM admission_wait;

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

-- name: search_runs
-- The runs that a page shows, of the newest ones of a tenant; only so many are looked at. Of each what
-- tells whether its row shows something else: its change, and what is written beside the changes.
SELECT run_no, created_at_ms, last_change_id, activity_at_ms, due_at_ms, queue_reason, resource_key,
       rate_limited_provider
  FROM run WHERE run_no IN (
    SELECT run_no FROM (
        SELECT run_no, run_id, automation_id, name, detail, status, trigger_type FROM run
         WHERE tenant = :tenant AND run_no < :before_no ORDER BY run_no DESC LIMIT :looks) AS seen
     WHERE (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
       AND (:trigger_type = '' OR trigger_type = :trigger_type)
       AND (:words = ''
            OR instr(lower(run_id || ' ' || automation_id || ' ' || name || ' ' || detail), :words))
     ORDER BY run_no DESC LIMIT :limit)
 ORDER BY run_no DESC;

-- name: list_shown_runs
-- The rows of some runs as lists show them. What may be large stays where it is: inputs, context, what
-- was learned.
SELECT run_no, run_id, tenant, automation_id, name, definition_digest, definition_version,
       automation_version, trigger_type, trigger_reason, requested_execution_profile,
       effective_execution_profile, started_by, status, last_change_id, epoch, engine_id, owner,
       cleanup, event_seq, created_at_ms, updated_at_ms, started_at_ms, finished_at_ms, due_at_ms,
       queued_at_ms, queue_reason, resource_key, rate_limited_provider, parked, detail, stop_kind,
       stop_reason, pause_reason, resume_reason, last_failure, workspace, nodes_total,
       nodes_completed, activity_at_ms, archived_at_ms, forked_from, forked_from_node
  FROM run WHERE run_no IN (SELECT value FROM json_each(:numbers));

-- name: search_runs_edge
-- The last run that such a page looks at.
SELECT run_no, created_at_ms FROM run WHERE tenant = :tenant AND run_no < :before_no
 ORDER BY run_no DESC LIMIT 1 OFFSET :looks - 1;

-- name: search_runs_of_automation
-- The runs that a page shows, of the newest ones of an automation.
SELECT run_no, created_at_ms, last_change_id, activity_at_ms, due_at_ms, queue_reason, resource_key,
       rate_limited_provider
  FROM run WHERE run_no IN (
    SELECT run_no FROM (
        SELECT run_no, run_id, automation_id, name, detail, status, trigger_type FROM run
         WHERE tenant = :tenant AND automation_id = :automation_id AND run_no < :before_no
         ORDER BY run_no DESC LIMIT :looks) AS seen
     WHERE (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
       AND (:trigger_type = '' OR trigger_type = :trigger_type)
       AND (:words = ''
            OR instr(lower(run_id || ' ' || automation_id || ' ' || name || ' ' || detail), :words))
     ORDER BY run_no DESC LIMIT :limit)
 ORDER BY run_no DESC;

-- name: search_runs_of_automation_edge
-- The last run that such a page looks at.
SELECT run_no, created_at_ms FROM run
 WHERE tenant = :tenant AND automation_id = :automation_id AND run_no < :before_no
 ORDER BY run_no DESC LIMIT 1 OFFSET :looks - 1;

-- name: search_runs_of_span
-- The runs that a page shows, of those that were created within a span; the newest first.
SELECT run_no, created_at_ms, last_change_id, activity_at_ms, due_at_ms, queue_reason, resource_key,
       rate_limited_provider
  FROM run WHERE run_no IN (
    SELECT run_no FROM (
        SELECT run_no, run_id, automation_id, name, detail, status, trigger_type, created_at_ms
          FROM run
         WHERE tenant = :tenant AND created_at_ms >= :from_ms
           AND (created_at_ms, run_no) < (:before_ms, :before_no)
         ORDER BY created_at_ms DESC, run_no DESC LIMIT :looks) AS seen
     WHERE (:statuses = '[]' OR status IN (SELECT value FROM json_each(:statuses)))
       AND (:automation_id = '' OR automation_id = :automation_id)
       AND (:trigger_type = '' OR trigger_type = :trigger_type)
       AND (:words = ''
            OR instr(lower(run_id || ' ' || automation_id || ' ' || name || ' ' || detail), :words))
     ORDER BY created_at_ms DESC, run_no DESC LIMIT :limit)
 ORDER BY created_at_ms DESC, run_no DESC;

-- name: search_runs_of_span_edge
-- The last run that such a page looks at.
SELECT run_no, created_at_ms FROM run
 WHERE tenant = :tenant AND created_at_ms >= :from_ms
   AND (created_at_ms, run_no) < (:before_ms, :before_no)
 ORDER BY created_at_ms DESC, run_no DESC LIMIT 1 OFFSET :looks - 1;

-- name: find_mark
-- What tells whether the record of a run has changed: the run by its change, and what is written
-- beside the changes: why it is not claimed, signs of life, what was learned, the lease of its engine,
-- its sessions.
SELECT r.run_no, r.last_change_id, r.due_at_ms, r.queue_reason, r.resource_key,
       r.rate_limited_provider, r.activity_at_ms, r.learning_summary,
       (SELECT lease_until_ms FROM engine AS e WHERE e.engine_id = r.engine_id) AS lease_until_ms,
       (SELECT max(session_no) || ' ' || total(session_no * is_open * (epoch + 1)) FROM (
            SELECT session_no, is_open, epoch FROM session
             WHERE tenant = :tenant AND run_id = :run_id
             ORDER BY session_no DESC LIMIT :limit)) AS sessions,
       (SELECT group_concat(instance_id || epoch) FROM (
            SELECT instance_id, epoch FROM instance WHERE tenant = :tenant AND run_id = :run_id
             LIMIT :limit)) AS instances
  FROM run AS r WHERE r.run_id = :run_id AND r.tenant = :tenant;

-- name: find_lease
-- Until when an engine has the right to drive its runs.
SELECT lease_until_ms FROM engine WHERE engine_id = :engine_id;

-- name: find_claim_event
-- The newest claim of a run; it is near the end of its events.
SELECT * FROM lifecycle_event WHERE run_no = :run_no AND event = 'run_execution_claimed'
 ORDER BY seq DESC LIMIT 1;

-- name: list_newest_gates_of_run
-- The newest askings of a run, newest first; the plus as in `list_gates_of_run`.
SELECT * FROM gate WHERE run_no = :run_no
 ORDER BY +requested_at_ms DESC, gate_id DESC LIMIT :limit;

-- name: count_outputs_of_run
-- How many nodes of a run have an output that counts.
SELECT count(*) AS outputs FROM node_run
 WHERE node_run_id BETWEEN :first AND :last AND state = 'completed'
   AND (output IS NOT NULL OR output_ref IS NOT NULL);

-- name: list_readings_of_run
-- The outputs of a run that were not read as plain successes, and what people did with them.
SELECT reading, handling FROM node_run
 WHERE node_run_id BETWEEN :first AND :last AND state = 'completed' AND reading IS NOT NULL;

-- name: list_events
-- The events of a run after a number.
SELECT e.* FROM lifecycle_event AS e
 WHERE e.run_no = :run_no AND e.seq > :after_seq ORDER BY e.seq LIMIT :limit;

-- name: list_events_after
-- The events of all runs after a position, in the order of their commits.
SELECT * FROM lifecycle_event WHERE cursor > :position ORDER BY cursor LIMIT :limit;

-- name: list_events_of_run_after
-- The events of a run after a position.
SELECT * FROM lifecycle_event WHERE run_no = :run_no AND cursor > :position
 ORDER BY seq LIMIT :limit;

-- name: find_run_told
-- What events tell of a run: its row without what may be large.
SELECT run_no, run_id, tenant, automation_id, name, definition_digest, automation_version,
       trigger_type, trigger_reason, effective_execution_profile, status, last_change_id,
       created_at_ms, updated_at_ms, finished_at_ms, detail, last_failure, started_by
  FROM run WHERE run_no = :run_no;

-- name: find_event_tail
-- Which store this is, how far its events reach, and up to where some of them are packed.
SELECT store_id, packed_to,
       coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'lifecycle_event'), 0) AS position
  FROM store_identity;

-- name: note_packed
-- Events up to this position are packed; the table holds one row.
UPDATE store_identity SET packed_to = max(packed_to, :position);

-- name: renew_store_id
-- A copy of a store is another one; the table holds one row.
UPDATE store_identity SET store_id = lower(hex(randomblob(8)));

-- name: list_newest_events
-- The newest events of a run, newest first.
SELECT * FROM lifecycle_event WHERE run_no = :run_no ORDER BY seq DESC LIMIT :limit;
-- name: repin_run
-- The run executes another version from now on, with these inputs and what follows from them.
UPDATE run SET definition_digest = :definition_digest, inputs = :inputs,
       concurrency_key = :concurrency_key, concurrency_limit = :concurrency_limit
 WHERE run_no = :run_no;

-- name: mark_fork
-- Where a new run comes from.
UPDATE run SET forked_from = :forked_from, forked_from_node = :forked_from_node
 WHERE run_no = :run_no;

-- name: list_forks
-- The runs that were forked from a run, oldest first.
SELECT * FROM run WHERE forked_from = :forked_from AND tenant = :tenant
 ORDER BY run_no LIMIT :limit;

-- name: list_digests_of_run
-- The artifacts that a run refers to, as outputs and as files: the registry knows both.
SELECT DISTINCT digest FROM artifact WHERE run_no = :run_no;

-- name: is_digest_used
-- Whether a run refers to an artifact, as an output or as a file; of one tenant, or null for any.
SELECT 1 FROM artifact AS a JOIN run AS r ON r.run_no = a.run_no
 WHERE a.digest = :digest AND r.tenant = coalesce(:tenant, r.tenant) LIMIT 1;

-- name: delete_events
-- The events of a run that is deleted.
DELETE FROM lifecycle_event WHERE run_no = :run_no;

-- name: delete_attempts
-- The attempts of a run that is deleted.
DELETE FROM attempt WHERE attempt_no BETWEEN :first AND :last;

-- name: delete_node_runs
-- The node runs of a run that is deleted.
DELETE FROM node_run WHERE node_run_id BETWEEN :first AND :last;

-- name: delete_gates
-- The gates of a run that is deleted.
DELETE FROM gate WHERE run_no = :run_no;

-- name: delete_waits
-- The waits of a run that is deleted.
DELETE FROM wait WHERE run_no = :run_no;

-- name: delete_artifacts
-- The references to artifacts of a run that is deleted.
DELETE FROM artifact WHERE run_no = :run_no;

-- name: delete_imports
-- Where a run that is deleted came from.
DELETE FROM imported_run WHERE run_no = :run_no;

-- name: delete_run
-- The run itself; no row means that it has changed since it was judged.
DELETE FROM run WHERE run_no = :run_no AND last_change_id = :last_change_id RETURNING run_no;

-- name: put_engine
-- The row of a live engine.
INSERT OR REPLACE INTO engine (engine_id, host, pid, version, lock_path, started_at_ms,
       lease_until_ms, lease_ms, labels, runs_max, runs_total_max, own_only)
VALUES (:engine_id, :host, :pid, :version, :lock_path, :started_at_ms, :lease_until_ms, :lease_ms,
       :labels, :runs_max, :runs_total_max, :own_only);

-- name: mark_active
-- A body of this run is alive on the engine that drives it; written beside the engine's lease.
UPDATE run SET activity_at_ms = :now_ms WHERE run_no = :run_no AND engine_id = :engine_id;

-- name: list_quiet
-- Driven runs that showed no life since a moment; there are never more than engines can drive.
SELECT run_id, tenant, engine_id, last_change_id, activity_at_ms FROM run
 WHERE engine_id > '' AND updated_at_ms <= :quiet_since_ms
   AND coalesce(activity_at_ms, 0) <= :quiet_since_ms
 LIMIT :limit;

-- name: list_reaped
-- Runs that were stopped for showing no life since a moment and whose processes are ended, the
-- longest stopped first.
SELECT tenant, run_id FROM run
 WHERE status = 'paused' AND stop_kind = 'stale_reaped' AND cleanup IS NULL
   AND reaped_at_ms >= :reaped_since_ms AND auto_resumes < :attempts_max
 ORDER BY reaped_at_ms LIMIT :limit;

-- name: remove_engine
-- Forget an engine that holds nothing; one that does stays, so that others find what it holds, and
-- so does one that has renewed its lease since it was judged by it.
DELETE FROM engine WHERE engine_id = :engine_id
   AND (:lease_until_ms IS NULL OR lease_until_ms = :lease_until_ms)
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

-- name: release_runs
-- Let the queued runs that this key holds be claimed again, in the order of their creation. The
-- plus keeps the planner from walking all queued runs.
UPDATE run SET due_at_ms = min(coalesce(queued_at_ms, created_at_ms), :now_ms), resource_key = '',
       queue_reason = NULL
 WHERE status = 'queued' AND due_at_ms IS NULL AND resource_key <> ''
   AND resource_key = :resource_key AND +tenant = :tenant;

-- name: list_driven_of_automation
-- The runs of an automation that engines drive now: few are driven at any moment, while an
-- automation may have any number of runs, so the pluses make the driven ones the way in.
SELECT run_no FROM run
 WHERE engine_id > '' AND +tenant = :tenant AND +automation_id = :automation_id ORDER BY +run_no;

-- name: find_automation
-- One automation of a tenant, deleted or not.
SELECT * FROM automation WHERE tenant = :tenant AND automation_id = :automation_id;

-- name: list_automations
-- The automations of a tenant that are there, by id.
SELECT * FROM automation
 WHERE tenant = :tenant AND automation_id > :after_id AND deleted_at_ms IS NULL
 ORDER BY automation_id LIMIT :limit;

-- name: insert_automation
-- A new automation; its number comes back.
INSERT INTO automation (tenant, automation_id, name, status, version, definition_digest, creator_id,
       created_at_ms, updated_at_ms, pause_reason, paused_by, paused_at_ms, deleted_at_ms,
       event_seq, last_change_id, schedule, is_watching, next_fire_at_ms, last_fired_at_ms,
       fired_until_ms, deferred_at_ms, deferred_by)
VALUES (:tenant, :automation_id, :name, :status, :version, :definition_digest, :creator_id,
       :created_at_ms, :updated_at_ms, :pause_reason, :paused_by, :paused_at_ms, :deleted_at_ms,
       :event_seq, :last_change_id, :schedule, :is_watching, :next_fire_at_ms, :last_fired_at_ms,
       :fired_until_ms, :deferred_at_ms, :deferred_by)
RETURNING automation_no;

-- name: update_automation
-- What happened to an automation; no row means that somebody else was first.
UPDATE automation SET name = :name, status = :status, version = :version,
       definition_digest = :definition_digest, updated_at_ms = :updated_at_ms,
       pause_reason = :pause_reason, paused_by = :paused_by, paused_at_ms = :paused_at_ms,
       deleted_at_ms = :deleted_at_ms, event_seq = :event_seq, last_change_id = :last_change_id,
       schedule = :schedule, is_watching = :is_watching, next_fire_at_ms = :next_fire_at_ms,
       fired_until_ms = :fired_until_ms, deferred_at_ms = :deferred_at_ms,
       deferred_by = :deferred_by
 WHERE automation_no = :automation_no AND last_change_id = :builds_on RETURNING automation_no;

-- name: list_due_automations
-- Automations whose schedule is due and not put off, the longest due first.
SELECT * FROM automation
 WHERE next_fire_at_ms <= :now_ms AND next_fire_at_ms IS NOT NULL AND deferred_by IS NULL
 ORDER BY next_fire_at_ms LIMIT :limit;

-- name: find_open_run
-- The oldest run of a stored automation that has not ended.
SELECT run_no, run_id FROM run
 WHERE tenant = :tenant AND automation_id = :automation_id AND finished_at_ms IS NULL
   AND automation_version IS NOT NULL
 ORDER BY run_no LIMIT 1;

-- name: advance_schedule
-- The watermark of a schedule moves, or its firing is put off; no row means that it has moved, or
-- that the automation has changed.
UPDATE automation SET next_fire_at_ms = :next_fire_at_ms, last_fired_at_ms = :last_fired_at_ms,
       fired_until_ms = :fired_until_ms, deferred_at_ms = :deferred_at_ms,
       deferred_by = :deferred_by
 WHERE automation_no = :automation_no AND last_change_id = :last_change_id
   AND fired_until_ms IS NOT DISTINCT FROM :until_before_ms
   AND next_fire_at_ms IS NOT DISTINCT FROM :next_before_ms
   AND deferred_by IS NULL
RETURNING automation_no;

-- name: release_firing
-- A run of the automation has ended: its schedule is looked at again.
UPDATE automation SET deferred_by = NULL
 WHERE tenant = :tenant AND automation_id = :automation_id AND deferred_by IS NOT NULL;

-- name: add_firing
-- What was decided at an occurrence; no row means that it was decided before.
INSERT INTO firing (automation_no, occurrence, trigger_type, due_at_ms, decided_at_ms, outcome,
       run_id, code, reason, missed, change_id)
VALUES (:automation_no, :occurrence, :trigger_type, :due_at_ms, :decided_at_ms, :outcome, :run_id,
       :code, :reason, :missed, :change_id)
ON CONFLICT (automation_no, occurrence) DO NOTHING RETURNING firing_no;

-- name: refuse_firing
-- Why an occurrence that is looked at again has no run yet; one that was created stays so.
INSERT INTO firing (automation_no, occurrence, trigger_type, due_at_ms, decided_at_ms, outcome,
       run_id, code, reason, missed, change_id)
VALUES (:automation_no, :occurrence, :trigger_type, :due_at_ms, :decided_at_ms, :outcome, :run_id,
       :code, :reason, :missed, :change_id)
ON CONFLICT (automation_no, occurrence) DO UPDATE SET
       decided_at_ms = excluded.decided_at_ms, outcome = excluded.outcome,
       run_id = excluded.run_id, code = excluded.code, reason = excluded.reason,
       change_id = excluded.change_id
 WHERE outcome = 'refused' RETURNING firing_no;

-- name: find_firing
-- What was decided at an occurrence.
SELECT * FROM firing WHERE automation_no = :automation_no AND occurrence = :occurrence;

-- name: list_firings
-- What was decided for an automation, newest first.
SELECT * FROM firing WHERE automation_no = :automation_no AND firing_no < :before_no
 ORDER BY firing_no DESC LIMIT :limit;

-- name: prune_firings
-- Records of an automation beyond the newest ones are forgotten.
DELETE FROM firing WHERE automation_no = :automation_no AND firing_no <= (
    SELECT firing_no FROM firing WHERE automation_no = :of_automation
     ORDER BY firing_no DESC LIMIT 1 OFFSET :kept);

-- name: list_watching
-- Active automations with watch conditions, after a number.
SELECT * FROM automation
 WHERE is_watching = 1 AND status = 'active' AND deleted_at_ms IS NULL AND automation_no > :after_no
 ORDER BY automation_no LIMIT :limit;

-- name: take_handoff
-- A handoff has its run; no row means that it was taken before.
INSERT INTO consumed_handoff (tenant, automation_id, handoff_id, handed_over_at_ms, fingerprint,
       run_id, consumed_at_ms, workspace, file, archived_dir)
VALUES (:tenant, :automation_id, :handoff_id, :handed_over_at_ms, :fingerprint, :run_id,
       :consumed_at_ms, :workspace, :file, :archived_dir)
ON CONFLICT (tenant, automation_id, handoff_id, handed_over_at_ms, fingerprint) DO NOTHING
RETURNING consumed_no;

-- name: find_consumed
-- The run that a handoff has; one that was taken long ago stands for all of its id and moment.
SELECT * FROM consumed_handoff
 WHERE tenant = :tenant AND automation_id = :automation_id AND handoff_id = :handoff_id
   AND handed_over_at_ms = :handed_over_at_ms AND fingerprint IN (:fingerprint, '');

-- name: list_unarchived
-- Handoffs that have their run and whose file may still be where it was approved.
SELECT * FROM consumed_handoff WHERE archived_at_ms IS NULL AND consumed_no > :after_no
 ORDER BY consumed_no LIMIT :limit;

-- name: mark_handoff_archived
-- The file of a handoff is archived, or gone.
UPDATE consumed_handoff SET archived_at_ms = :now_ms
 WHERE consumed_no = :consumed_no AND archived_at_ms IS NULL;

-- name: list_backlog
-- The tasks of a run, in the order in which they were put up.
SELECT * FROM backlog_task WHERE run_no = :run_no ORDER BY node_no, position, task_id;

-- name: list_backlog_sources
-- From which attempts the tasks of a run come.
SELECT * FROM backlog_source WHERE run_no = :run_no;

-- name: put_backlog_task
-- A task as it is now.
INSERT OR REPLACE INTO backlog_task (run_no, task_id, node_no, position, status, task_rev, attempt,
       lease_owner, lease_token, lease_expires_at_ms, next_retry_at_ms, last_error,
       last_command_id, created_at_ms, updated_at_ms, task)
VALUES (:run_no, :task_id, :node_no, :position, :status, :task_rev, :attempt, :lease_owner,
       :lease_token, :lease_expires_at_ms, :next_retry_at_ms, :last_error, :last_command_id,
       :created_at_ms, :updated_at_ms, :task);

-- name: remove_backlog_task
-- A task that its node does not put up any more, and that nobody has begun.
DELETE FROM backlog_task WHERE run_no = :run_no AND task_id = :task_id;

-- name: put_backlog_source
-- From which attempt of a node its tasks come.
INSERT OR REPLACE INTO backlog_source (run_no, node_no, attempt, problem)
VALUES (:run_no, :node_no, :attempt, :problem);

-- name: add_backlog_event
-- What happened to a task; numbered within the run.
INSERT INTO backlog_event (run_no, seq, event, task_id, task_rev, agent_id, reason, recorded_at_ms)
SELECT :run_no, coalesce(max(seq), 0) + 1, :event, :task_id, :task_rev, :agent_id, :reason,
       :recorded_at_ms FROM backlog_event WHERE run_no = :of_run;

-- name: list_backlog_events
-- What happened to the tasks of a run after a number.
SELECT seq, event, task_id, task_rev, agent_id, reason, recorded_at_ms FROM backlog_event
 WHERE run_no = :run_no AND seq > :after_seq ORDER BY seq LIMIT :limit;

-- name: newest_backlog_event
-- The number of the newest thing that happened to a task of a run.
SELECT seq FROM backlog_event WHERE run_no = :run_no ORDER BY seq DESC LIMIT 1;

-- name: delete_backlog_tasks
-- The tasks of a run that is deleted.
DELETE FROM backlog_task WHERE run_no = :run_no;

-- name: delete_backlog_sources
-- Where the tasks of a run that is deleted came from.
DELETE FROM backlog_source WHERE run_no = :run_no;

-- name: delete_backlog_events
-- What happened to the tasks of a run that is deleted.
DELETE FROM backlog_event WHERE run_no = :run_no;

-- name: add_automation_event
-- The record of what happened to an automation.
INSERT INTO automation_event (automation_no, seq, event, recorded_at_ms, change_id, actor, reason,
       version, definition_digest)
VALUES (:automation_no, :seq, :event, :recorded_at_ms, :change_id, :actor, :reason, :version,
       :definition_digest);

-- name: list_automation_events
-- What happened to an automation after a number.
SELECT seq, event, recorded_at_ms, change_id, actor, reason, version, definition_digest
  FROM automation_event WHERE automation_no = :automation_no AND seq > :after_seq
 ORDER BY seq LIMIT :limit;

-- name: find_automation_version
-- The definition of a version: as it was first recorded.
SELECT definition_digest FROM automation_event
 WHERE automation_no = :automation_no AND version = :version ORDER BY seq LIMIT 1;
-- name: put_learning_due
-- A run has ended: something is to be learned of it; written with its end.
INSERT INTO learning_due (run_no, review_request_id) VALUES (:run_no, :review_request_id)
ON CONFLICT (run_no) DO UPDATE SET review_request_id =
       CASE WHEN excluded.review_request_id <> '' THEN excluded.review_request_id
            ELSE review_request_id END;

-- name: list_learning_due
-- Runs of which nothing was learned yet, in the order of their ends.
SELECT run_no FROM learning_due WHERE due_no > 0 ORDER BY due_no LIMIT :limit;

-- name: find_learning_due
-- Whether something is to be learned of a run.
SELECT review_request_id FROM learning_due WHERE run_no = :run_no;

-- name: remove_learning_due
-- It was learned.
DELETE FROM learning_due WHERE run_no = :run_no;

-- name: count_node_runs
-- What the node runs of a run add up to.
SELECT count(*) FILTER (WHERE attempts > 0) AS nodes_attempted,
       coalesce(sum(attempts), 0) AS attempts,
       coalesce(max(state <> 'completed' AND repair IS NOT NULL), 0) AS needs_repair
  FROM node_run WHERE node_run_id BETWEEN :first AND :last;

-- name: has_gate_history
-- Whether a gate of a run was decided, or expired.
SELECT 1 FROM gate WHERE run_no = :run_no AND status IN ('decided', 'expired') LIMIT 1;

-- name: list_telling_outputs
-- Outputs, of the first completed nodes of a run, that say something of themselves.
SELECT node_run_id, output FROM (
    SELECT node_run_id, output FROM node_run
     WHERE node_run_id BETWEEN :first AND :last AND state = 'completed' AND output IS NOT NULL
     ORDER BY node_run_id LIMIT :limit) AS done
 WHERE instr(CAST(output AS TEXT), '"summary"')
    OR instr(CAST(output AS TEXT), '"validator_summary"');

-- name: put_run_facts
-- What is kept of a run that has ended.
INSERT OR REPLACE INTO run_facts (run_no, facts) VALUES (:run_no, :facts);

-- name: list_run_facts
-- The facts of the newest runs of an automation, of those that have ended.
SELECT f.facts FROM (
    SELECT run_no, finished_at_ms FROM run
     WHERE tenant = :tenant AND automation_id = :automation_id
     ORDER BY run_no DESC LIMIT :limit) AS newest
  JOIN run_facts AS f ON f.run_no = newest.run_no
 WHERE newest.finished_at_ms IS NOT NULL;

-- name: find_candidates
-- Candidates by their ids.
SELECT candidate FROM learning_candidate
 WHERE candidate_id IN (SELECT value FROM json_each(:candidate_ids));

-- name: put_candidate
-- A candidate as it is now.
INSERT INTO learning_candidate (candidate_id, tenant, automation_id, kind, status, confidence,
       updated_at_ms, candidate)
VALUES (:candidate_id, :tenant, :automation_id, :kind, :status, :confidence, :updated_at_ms,
       :candidate)
ON CONFLICT (candidate_id) DO UPDATE SET status = excluded.status,
       confidence = excluded.confidence, updated_at_ms = excluded.updated_at_ms,
       candidate = excluded.candidate;

-- name: prune_candidates
-- The oldest proposals of a kind make room when there are too many of them.
DELETE FROM learning_candidate WHERE candidate_no IN (
    SELECT candidate_no FROM learning_candidate
     WHERE tenant = :tenant AND automation_id = :automation_id AND status = 'proposed'
       AND kind = :kind
     ORDER BY candidate_no DESC LIMIT :surplus OFFSET :kept);

-- name: list_told
-- What runs of an automation are told, the most confident first.
SELECT candidate FROM learning_candidate
 WHERE status IN ('approved', 'applied') AND tenant = :tenant AND automation_id = :automation_id
 ORDER BY confidence DESC LIMIT :limit;

-- name: list_candidates
-- The newest candidates of a tenant.
SELECT candidate FROM learning_candidate
 WHERE tenant = :tenant AND (:kind = '' OR kind = :kind) AND (:status = '' OR status = :status)
   AND (:automation_id = '' OR automation_id = :automation_id)
 ORDER BY candidate_no DESC LIMIT :limit;

-- name: tell_run
-- What a run was told when it was claimed.
UPDATE run SET learnings = :learnings, learning_summary = :learning_summary
 WHERE run_no = :run_no;

-- name: put_learning_summary
-- What was learned of a run.
UPDATE run SET learning_summary = :learning_summary WHERE run_no = :run_no;

-- name: find_review
-- The record of an automation whose runs are counted.
SELECT * FROM review WHERE tenant = :tenant AND automation_id = :automation_id;

-- name: put_review
-- The record as it is now.
INSERT OR REPLACE INTO review (tenant, automation_id, runs_max, runs_since_review, runs_total,
       review_required, review_kind, review_requested_at_ms, review_request_id, review_reason,
       review_run_id, health_last_checked_at_ms, reviewed_at_ms, reviewed_by, review_note,
       created_at_ms, updated_at_ms)
VALUES (:tenant, :automation_id, :runs_max, :runs_since_review, :runs_total, :review_required,
       :review_kind, :review_requested_at_ms, :review_request_id, :review_reason, :review_run_id,
       :health_last_checked_at_ms, :reviewed_at_ms, :reviewed_by, :review_note, :created_at_ms,
       :updated_at_ms);

-- name: list_open_reviews
-- Automations of a tenant that a review holds back.
SELECT * FROM review WHERE tenant = :tenant AND review_required = 1 LIMIT :limit;

-- name: list_reviews
-- The records of a tenant.
SELECT * FROM review WHERE tenant = :tenant ORDER BY automation_id LIMIT :limit;

-- name: add_session
-- A session was opened under the claim that its run has now; again only what is new is written.
INSERT INTO session (tenant, session_id, run_id, node_id, epoch, is_mapped, is_open)
VALUES (:tenant, :session_id, :run_id, :node_id,
       coalesce((SELECT epoch FROM run WHERE run_id = :run_id AND tenant = :tenant), 0), 1, 1)
ON CONFLICT (tenant, session_id) DO UPDATE SET run_id = excluded.run_id, is_mapped = 1,
       is_open = 1, node_id = coalesce(excluded.node_id, node_id), epoch = excluded.epoch;

-- name: set_mcp_servers
-- The MCP servers of a session, also of one that is not known yet.
INSERT INTO session (tenant, session_id, run_id, epoch, is_mapped, is_open, mcp_servers)
VALUES (:tenant, :session_id, '', 0, 0, 0, :mcp_servers)
ON CONFLICT (tenant, session_id) DO UPDATE SET mcp_servers = excluded.mcp_servers;

-- name: clear_session
-- A session was closed.
UPDATE session SET is_mapped = 0, is_open = 0
 WHERE tenant = :tenant AND session_id = :session_id;

-- name: forget_sessions
-- Sessions are mapped to nothing any more.
UPDATE session SET is_mapped = 0, mcp_servers = NULL
 WHERE tenant = :tenant AND session_id IN (SELECT value FROM json_each(:session_ids));

-- name: find_session
-- A session by its id.
SELECT * FROM session WHERE tenant = :tenant AND session_id = :session_id;

-- name: remove_session
-- A session that belongs to no run that is here makes room for one that does.
DELETE FROM session WHERE session_no = :session_no;

-- name: list_sessions_of_run
-- The newest sessions of a run, newest first.
SELECT * FROM session WHERE tenant = :tenant AND run_id = :run_id
 ORDER BY session_no DESC LIMIT :limit;

-- name: count_stray_sessions
-- How many sessions belong to no run that is here.
SELECT count(*) AS sessions FROM session AS s
 WHERE NOT EXISTS (SELECT 1 FROM run AS r WHERE r.run_id = s.run_id AND r.tenant = s.tenant);

-- name: add_instance
-- An instance works for a run under the claim that it has now.
INSERT INTO instance (tenant, run_id, instance_id, epoch)
VALUES (:tenant, :run_id, :instance_id,
       coalesce((SELECT epoch FROM run WHERE run_id = :run_id AND tenant = :tenant), 0))
ON CONFLICT (tenant, run_id, instance_id) DO UPDATE SET epoch = excluded.epoch;

-- name: clear_instance
-- An instance works for a run no more.
DELETE FROM instance
 WHERE tenant = :tenant AND run_id = :run_id AND instance_id = :instance_id;

-- name: list_instances_of_run
-- The instances of a run.
SELECT instance_id, epoch FROM instance WHERE tenant = :tenant AND run_id = :run_id
 ORDER BY instance_no LIMIT :limit;

-- name: delete_run_facts
-- The facts of a run go with it.
DELETE FROM run_facts WHERE run_no = :run_no;

-- name: delete_sessions
-- The sessions of a run go with it.
DELETE FROM session WHERE tenant = :tenant AND run_id = :run_id;

-- name: delete_instances
-- The instances of a run go with it.
DELETE FROM instance WHERE tenant = :tenant AND run_id = :run_id;
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

-- name: list_newest_runs
-- The newest runs of all tenants.
SELECT * FROM run WHERE run_no > 0 ORDER BY run_no DESC LIMIT :limit;

-- name: count_runs
-- How many runs there are, of all tenants.
SELECT count(*) AS runs FROM run;

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

-- name: list_imports
-- What a run came from: every copy of it.
SELECT * FROM imported_run WHERE run_no = :run_no;

-- name: add_token
-- A new token; no row when the id is taken.
INSERT INTO token (token_id, tenant, name, digest, scopes, actor_id, kind, created_at_ms,
       created_by, expires_at_ms, revoked_at_ms, revoked_by, last_used_at_ms)
VALUES (:token_id, :tenant, :name, :digest, :scopes, :actor_id, :kind, :created_at_ms,
       :created_by, :expires_at_ms, :revoked_at_ms, :revoked_by, :last_used_at_ms)
ON CONFLICT (token_id) DO NOTHING RETURNING token_id;

-- name: find_token
-- A token of any tenant; its text names no other.
SELECT * FROM token WHERE token_id = :token_id;

-- name: list_tokens
-- Tokens of all tenants.
SELECT * FROM token WHERE token_id > :after_id ORDER BY token_id LIMIT :limit;

-- name: list_tokens_of_tenant
-- Tokens of one tenant.
SELECT * FROM token WHERE tenant = :tenant AND token_id > :after_id
 ORDER BY token_id LIMIT :limit;

-- name: revoke_token
-- End a token for good.
UPDATE token SET revoked_at_ms = :now_ms, revoked_by = :revoked_by
 WHERE token_id = :token_id AND revoked_at_ms IS NULL;

-- name: note_token_use
-- When a token was last used; never an earlier moment than is known.
UPDATE token SET last_used_at_ms = :now_ms
 WHERE token_id = :token_id AND coalesce(last_used_at_ms, 0) < :used_at_ms;

-- name: find_assertion_use
-- What came with this id before.
SELECT * FROM assertion_use WHERE issuer = :issuer AND assertion_id = :assertion_id;

-- name: put_assertion_use
-- An assertion that was accepted.
INSERT OR REPLACE INTO assertion_use (issuer, assertion_id, digest, expires_at_ms)
VALUES (:issuer, :assertion_id, :digest, :expires_at_ms);

-- name: has_old_assertion_use
-- Whether an assertion is kept that can come no more.
SELECT 1 FROM assertion_use WHERE expires_at_ms < :now_ms LIMIT 1;

-- name: forget_assertion_uses
-- Assertions that can come no more.
DELETE FROM assertion_use WHERE rowid IN
  (SELECT rowid FROM assertion_use WHERE expires_at_ms < :now_ms LIMIT :limit);

-- name: find_request_key
-- The request that a key was used for.
SELECT operation, key, fingerprint, run_id, created_at_ms FROM request_key
 WHERE tenant = :tenant AND operation = :operation AND key = :key;

-- name: put_request_key
-- The key of a request, with what it did.
INSERT OR REPLACE INTO request_key (tenant, operation, key, fingerprint, run_id, created_at_ms)
VALUES (:tenant, :operation, :key, :fingerprint, :run_id, :created_at_ms);

-- name: has_old_request_key
-- Whether a key is kept whose time is over.
SELECT 1 FROM request_key WHERE created_at_ms < :before_ms LIMIT 1;

-- name: forget_request_keys
-- Keys whose time is over.
DELETE FROM request_key WHERE rowid IN
  (SELECT rowid FROM request_key WHERE created_at_ms < :before_ms LIMIT :limit);

-- name: newest_audit
-- The record that the next one follows.
SELECT * FROM audit WHERE audit_no > 0 ORDER BY audit_no DESC LIMIT 1;

-- name: add_audit
-- One record of the audit.
INSERT INTO audit (audit_no, tenant, recorded_at_ms, event, actor, peer, detail, record_hash)
VALUES (:audit_no, :tenant, :recorded_at_ms, :event, :actor, :peer, :detail, :record_hash);

-- name: list_audit
-- Records of all tenants in their order.
SELECT * FROM audit WHERE audit_no > :after_no ORDER BY audit_no LIMIT :limit;

-- name: list_audit_of_tenant
-- Records of one tenant in their order.
SELECT * FROM audit WHERE tenant = :tenant AND audit_no > :after_no
 ORDER BY audit_no LIMIT :limit;

-- name: add_webhook_trigger
-- A new trigger.
INSERT INTO webhook_trigger (tenant, trigger_id, automation_id, public_path_token, trigger)
VALUES (:tenant, :trigger_id, :automation_id, :public_path_token, :trigger);

-- name: put_webhook_trigger
-- A trigger as it is now.
UPDATE webhook_trigger SET trigger = :trigger WHERE trigger_id = :trigger_id;

-- name: find_webhook_trigger
-- A trigger of a tenant.
SELECT trigger FROM webhook_trigger WHERE trigger_id = :trigger_id AND tenant = :tenant;

-- name: find_webhook_trigger_by_token
-- The trigger that has this address.
SELECT trigger FROM webhook_trigger WHERE public_path_token = :public_path_token;

-- name: list_webhook_triggers
-- The triggers of an automation, newest first.
SELECT trigger FROM webhook_trigger WHERE tenant = :tenant AND automation_id = :automation_id
 ORDER BY trigger_no DESC LIMIT :limit;

-- name: remove_webhook_trigger
-- A trigger is gone.
DELETE FROM webhook_trigger WHERE trigger_id = :trigger_id;

-- name: add_webhook_secret
-- Another secret.
INSERT INTO webhook_secret (trigger_id, version, sealed) VALUES (:trigger_id, :version, :sealed);

-- name: end_webhook_secret
-- A secret is valid until a moment, if it was valid without an end.
UPDATE webhook_secret SET valid_until_ms = :valid_until_ms
 WHERE trigger_id = :trigger_id AND version = :version;

-- name: remove_webhook_secrets
-- The secrets before a version are forgotten.
DELETE FROM webhook_secret WHERE trigger_id = :trigger_id AND version < :version;

-- name: list_webhook_secrets
-- The secrets of a trigger that are valid at a moment, newest first.
SELECT version, sealed, valid_until_ms FROM webhook_secret
 WHERE trigger_id = :trigger_id AND (valid_until_ms IS NULL OR valid_until_ms > :now_ms)
 ORDER BY version DESC LIMIT 2;

-- name: find_webhook_claims
-- Those of some idempotency keys that were claimed.
SELECT key, fingerprint, delivery_id FROM webhook_claim
 WHERE tenant = :tenant AND trigger_id = :trigger_id
   AND key IN (SELECT value FROM json_each(:keys));

-- name: add_webhook_claim
-- A delivery is the first with an idempotency key.
INSERT INTO webhook_claim (tenant, trigger_id, key, fingerprint, delivery_id, claimed_at_ms)
VALUES (:tenant, :trigger_id, :key, :fingerprint, :delivery_id, :claimed_at_ms);

-- name: remove_webhook_claims
-- The idempotency keys of a trigger go with it.
DELETE FROM webhook_claim WHERE tenant = :tenant AND trigger_id = :trigger_id;

-- name: add_webhook_delivery
-- A delivery has come; its number comes back.
INSERT INTO webhook_delivery (delivery_id, event_id, tenant, trigger_id, automation_id, status,
       run_id, duplicate_of, is_believed, received_at_ms, delivery, event)
VALUES (:delivery_id, :event_id, :tenant, :trigger_id, :automation_id, :status, :run_id,
       :duplicate_of, :is_believed, :received_at_ms, :delivery, :event)
RETURNING delivery_no;

-- name: settle_webhook_delivery
-- A delivery that is open becomes something.
UPDATE webhook_delivery SET status = :status, run_id = :run_id, delivery = :delivery
 WHERE delivery_id = :delivery_id AND status = 'received' RETURNING delivery_no;

-- name: add_webhook_payload
-- The body of a delivery.
INSERT INTO webhook_payload (delivery_no, payload) VALUES (:delivery_no, :payload);

-- name: read_webhook_payload
-- The body of a raw event.
SELECT p.payload FROM webhook_delivery d JOIN webhook_payload p ON p.delivery_no = d.delivery_no
 WHERE d.event_id = :event_id AND d.tenant = :tenant;

-- name: find_webhook_delivery
-- A delivery of a tenant.
SELECT d.delivery, d.event,
       (SELECT o.run_id FROM webhook_delivery o WHERE o.delivery_id = d.duplicate_of) AS of_run,
       EXISTS (SELECT 1 FROM webhook_payload p WHERE p.delivery_no = d.delivery_no) AS has_payload
  FROM webhook_delivery d WHERE d.delivery_id = :delivery_id AND d.tenant = :tenant;

-- name: find_webhook_event
-- A raw event of a tenant.
SELECT d.delivery, d.event,
       (SELECT o.run_id FROM webhook_delivery o WHERE o.delivery_id = d.duplicate_of) AS of_run,
       EXISTS (SELECT 1 FROM webhook_payload p WHERE p.delivery_no = d.delivery_no) AS has_payload
  FROM webhook_delivery d WHERE d.event_id = :event_id AND d.tenant = :tenant;

-- name: list_webhook_deliveries_of_trigger
-- Deliveries at a trigger, newest first; in one status, or with their payload kept, only where asked.
SELECT d.delivery, d.event,
       (SELECT o.run_id FROM webhook_delivery o WHERE o.delivery_id = d.duplicate_of) AS of_run,
       EXISTS (SELECT 1 FROM webhook_payload p WHERE p.delivery_no = d.delivery_no) AS has_payload
  FROM webhook_delivery d WHERE d.trigger_id = :of AND d.tenant = :tenant
   AND (:status = '' OR d.status = :status) AND (:raw_only = 0 OR d.event_id IS NOT NULL)
   AND d.delivery_no < :before_no
 ORDER BY d.delivery_no DESC LIMIT :limit;

-- name: list_webhook_deliveries_of_automation
-- Deliveries for an automation, newest first; in one status, or with their payload kept, only where asked.
SELECT d.delivery, d.event,
       (SELECT o.run_id FROM webhook_delivery o WHERE o.delivery_id = d.duplicate_of) AS of_run,
       EXISTS (SELECT 1 FROM webhook_payload p WHERE p.delivery_no = d.delivery_no) AS has_payload
  FROM webhook_delivery d WHERE d.tenant = :tenant AND d.automation_id = :of
   AND (:status = '' OR d.status = :status) AND (:raw_only = 0 OR d.event_id IS NOT NULL)
   AND d.delivery_no < :before_no
 ORDER BY d.delivery_no DESC LIMIT :limit;

-- name: list_webhook_deliveries_of_run
-- Deliveries that started or woke a run, newest first; in one status, or with their payload kept, only where asked.
SELECT d.delivery, d.event,
       (SELECT o.run_id FROM webhook_delivery o WHERE o.delivery_id = d.duplicate_of) AS of_run,
       EXISTS (SELECT 1 FROM webhook_payload p WHERE p.delivery_no = d.delivery_no) AS has_payload
  FROM webhook_delivery d WHERE d.tenant = :tenant AND d.run_id = :of
   AND (:status = '' OR d.status = :status) AND (:raw_only = 0 OR d.event_id IS NOT NULL)
   AND d.delivery_no < :before_no
 ORDER BY d.delivery_no DESC LIMIT :limit;

-- name: list_webhook_deliveries_of_tenant
-- Deliveries of a tenant, newest first; in one status, or with their payload kept, only where asked.
SELECT d.delivery, d.event,
       (SELECT o.run_id FROM webhook_delivery o WHERE o.delivery_id = d.duplicate_of) AS of_run,
       EXISTS (SELECT 1 FROM webhook_payload p WHERE p.delivery_no = d.delivery_no) AS has_payload
  FROM webhook_delivery d WHERE d.tenant = :tenant
   AND (:status = '' OR d.status = :status) AND (:raw_only = 0 OR d.event_id IS NOT NULL)
   AND d.delivery_no < :before_no
 ORDER BY d.delivery_no DESC LIMIT :limit;

-- name: find_webhook_delivery_no
-- The place of a delivery among those of its tenant.
SELECT delivery_no FROM webhook_delivery WHERE delivery_id = :delivery_id AND tenant = :tenant;

-- name: list_open_webhook_deliveries
-- Deliveries that still have to become something, oldest first.
SELECT tenant, delivery_id FROM webhook_delivery
 WHERE status = 'received' AND delivery_no > :after_no ORDER BY delivery_no LIMIT :limit;

-- name: trim_webhook_rejections
-- Of the deliveries at a trigger that were not believed the newest stay.
DELETE FROM webhook_delivery WHERE delivery_no IN (
    SELECT delivery_no FROM webhook_delivery WHERE trigger_id = :trigger_id AND is_believed = 0
     ORDER BY delivery_no DESC LIMIT 10 OFFSET :kept);

-- name: list_old_webhook_deliveries
-- Deliveries of one kind that came before a moment, oldest first.
SELECT delivery_no, status FROM webhook_delivery
 WHERE is_believed = :is_believed AND received_at_ms < :before_ms
 ORDER BY received_at_ms LIMIT :limit;

-- name: nth_newest_webhook_delivery
-- When the first of the believed deliveries came that are too many, if there are too many.
SELECT received_at_ms FROM webhook_delivery WHERE is_believed = 1
 ORDER BY received_at_ms DESC LIMIT 1 OFFSET :kept;

-- name: remove_webhook_payload
-- The body of a delivery is forgotten.
DELETE FROM webhook_payload WHERE delivery_no = :delivery_no;

-- name: remove_webhook_delivery
-- A delivery is forgotten.
DELETE FROM webhook_delivery WHERE delivery_no = :delivery_no AND status <> 'received';
