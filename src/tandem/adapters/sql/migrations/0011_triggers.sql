-- What starts runs besides people: schedules and handoffs; and the tasks that runs put up for agents.

ALTER TABLE automation ADD COLUMN schedule TEXT NOT NULL DEFAULT '';
ALTER TABLE automation ADD COLUMN is_watching INTEGER NOT NULL DEFAULT 0;
ALTER TABLE automation ADD COLUMN next_fire_at_ms INTEGER;
ALTER TABLE automation ADD COLUMN last_fired_at_ms INTEGER;
ALTER TABLE automation ADD COLUMN fired_until_ms INTEGER;
ALTER TABLE automation ADD COLUMN deferred_at_ms INTEGER;
ALTER TABLE automation ADD COLUMN deferred_by INTEGER;
-- What was saved before begins now: without a watermark the first look only finds the next moment.
UPDATE automation SET
       schedule = coalesce((SELECT json_extract(CAST(d.document AS TEXT), '$.schedule')
                              FROM definition d WHERE d.tenant = automation.tenant
                               AND d.digest = automation.definition_digest), ''),
       is_watching = coalesce((SELECT json_array_length(CAST(d.document AS TEXT),
                                                        '$.watch_conditions') > 0
                                 FROM definition d WHERE d.tenant = automation.tenant
                                  AND d.digest = automation.definition_digest), 0);
UPDATE automation SET next_fire_at_ms = 0
 WHERE status = 'active' AND deleted_at_ms IS NULL AND schedule <> ''
   AND json_extract(schedule, '$.type') <> 'manual';
CREATE INDEX automation_due ON automation (next_fire_at_ms)
    WHERE next_fire_at_ms IS NOT NULL AND deferred_by IS NULL;
CREATE INDEX automation_watching ON automation (automation_no)
    WHERE is_watching = 1 AND status = 'active' AND deleted_at_ms IS NULL;

-- Runs of stored automations that have not ended: they hold back what their automation would start.
CREATE INDEX run_open ON run (tenant, automation_id)
    WHERE finished_at_ms IS NULL AND automation_version IS NOT NULL;

-- What was decided at each occurrence. Old records are forgotten; the watermark and the handoffs
-- that were taken are not.
CREATE TABLE firing (
    firing_no     INTEGER PRIMARY KEY AUTOINCREMENT,
    automation_no INTEGER NOT NULL,
    occurrence    TEXT NOT NULL,
    trigger_type  TEXT NOT NULL,
    due_at_ms     INTEGER NOT NULL,
    decided_at_ms INTEGER NOT NULL,
    outcome       TEXT NOT NULL,
    run_id        TEXT,
    code          TEXT NOT NULL,
    reason        TEXT NOT NULL,
    missed        INTEGER NOT NULL,
    change_id     TEXT NOT NULL,
    UNIQUE (automation_no, occurrence)
);
CREATE INDEX firing_of_automation ON firing (automation_no, firing_no);

-- Handoffs that have their run. `file` and the folders say where its file is until it is archived.
CREATE TABLE consumed_handoff (
    consumed_no         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant              TEXT NOT NULL,
    automation_id       TEXT NOT NULL,
    handoff_id          TEXT NOT NULL,
    handed_over_at_ms   INTEGER NOT NULL,
    run_id              TEXT NOT NULL,
    consumed_at_ms      INTEGER NOT NULL,
    workspace           TEXT NOT NULL,
    file                TEXT NOT NULL,
    archived_dir        TEXT NOT NULL,
    archived_at_ms      INTEGER,
    UNIQUE (tenant, automation_id, handoff_id, handed_over_at_ms)
);
CREATE INDEX handoff_to_archive ON consumed_handoff (consumed_no) WHERE archived_at_ms IS NULL;
ALTER TABLE run ADD COLUMN consumed_handoff_id TEXT NOT NULL DEFAULT '';

-- Tasks that nodes put up for agents. `task` is what the output said of it.
CREATE TABLE backlog_task (
    run_no              INTEGER NOT NULL,
    task_id             TEXT NOT NULL,
    node_no             INTEGER NOT NULL,
    position            INTEGER NOT NULL,
    status              TEXT NOT NULL,
    task_rev            INTEGER NOT NULL,
    attempt             INTEGER NOT NULL,
    lease_owner         TEXT NOT NULL,
    lease_token         TEXT NOT NULL,
    lease_expires_at_ms INTEGER,
    next_retry_at_ms    INTEGER,
    last_error          TEXT NOT NULL,
    last_command_id     TEXT NOT NULL,
    created_at_ms       INTEGER NOT NULL,
    updated_at_ms       INTEGER NOT NULL,
    task                TEXT NOT NULL,
    PRIMARY KEY (run_no, task_id)
) WITHOUT ROWID;
-- Which attempt of a node the tasks come from.
CREATE TABLE backlog_source (
    run_no  INTEGER NOT NULL,
    node_no INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    problem TEXT NOT NULL,
    PRIMARY KEY (run_no, node_no)
) WITHOUT ROWID;
CREATE TABLE backlog_event (
    run_no         INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    event          TEXT NOT NULL,
    task_id        TEXT NOT NULL,
    task_rev       INTEGER NOT NULL,
    agent_id       TEXT NOT NULL,
    reason         TEXT NOT NULL,
    recorded_at_ms INTEGER NOT NULL,
    PRIMARY KEY (run_no, seq)
) WITHOUT ROWID;
