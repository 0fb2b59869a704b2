-- Stored automations, what happened to them, and what a run takes from them.

CREATE TABLE automation (
    automation_no     INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant            TEXT NOT NULL,
    automation_id     TEXT NOT NULL,
    name              TEXT NOT NULL,
    status            TEXT NOT NULL,
    version           INTEGER NOT NULL,
    definition_digest TEXT NOT NULL,
    creator_id        TEXT NOT NULL,
    created_at_ms     INTEGER NOT NULL,
    updated_at_ms     INTEGER NOT NULL,
    pause_reason      TEXT NOT NULL,
    paused_by         TEXT NOT NULL,
    paused_at_ms      INTEGER,
    deleted_at_ms     INTEGER,
    event_seq         INTEGER NOT NULL,
    last_change_id    TEXT NOT NULL,
    UNIQUE (tenant, automation_id)
);

CREATE TABLE automation_event (
    event_no          INTEGER PRIMARY KEY,
    automation_no     INTEGER NOT NULL,
    seq               INTEGER NOT NULL,
    event             TEXT NOT NULL,
    recorded_at_ms    INTEGER NOT NULL,
    change_id         TEXT NOT NULL,
    actor             TEXT NOT NULL,
    reason            TEXT NOT NULL,
    version           INTEGER NOT NULL,
    definition_digest TEXT NOT NULL,
    UNIQUE (automation_no, seq)
);
CREATE INDEX automation_event_of_version ON automation_event (automation_no, version, seq);

ALTER TABLE run ADD COLUMN definition_version TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN automation_version INTEGER;
ALTER TABLE run ADD COLUMN trigger_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN requested_execution_profile TEXT;
ALTER TABLE run ADD COLUMN effective_execution_profile TEXT NOT NULL DEFAULT 'strict';
ALTER TABLE run ADD COLUMN runtime_context TEXT;
