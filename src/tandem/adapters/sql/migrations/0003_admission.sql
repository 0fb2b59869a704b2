-- What admission needs: what a run holds and requires, why it waits, who is held off, who is next.

ALTER TABLE run ADD COLUMN queued_at_ms INTEGER;
ALTER TABLE run ADD COLUMN resource_key TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN rate_limited_provider TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN lock_path TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN concurrency_key TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN concurrency_limit INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
UPDATE run SET queued_at_ms = updated_at_ms WHERE status = 'queued';

-- Due runs of one lane are equal for admission: same tenant, same labels, same owner.
ALTER TABLE run ADD COLUMN lane TEXT
    GENERATED ALWAYS AS (json_array(tenant, labels, coalesce(owner, ''))) VIRTUAL;
DROP INDEX run_queue;
CREATE INDEX run_queue ON run (lane, due_at_ms) WHERE status = 'queued' AND due_at_ms IS NOT NULL;
CREATE INDEX run_blocked ON run (resource_key)
    WHERE status = 'queued' AND due_at_ms IS NULL AND resource_key <> '';
CREATE INDEX run_concurrency ON run (concurrency_key)
    WHERE concurrency_key <> '' AND (engine_id IS NOT NULL OR cleanup IS NOT NULL);

CREATE TABLE workspace_lock (
    path      TEXT PRIMARY KEY,
    run_no    INTEGER NOT NULL UNIQUE,
    epoch     INTEGER NOT NULL,
    engine_id TEXT NOT NULL,
    since_ms  INTEGER NOT NULL
);

CREATE TABLE provider_throttle (
    tenant         TEXT NOT NULL,
    provider       TEXT NOT NULL,
    until_ms       INTEGER NOT NULL,
    recorded_at_ms INTEGER NOT NULL,
    run_no         INTEGER NOT NULL,
    PRIMARY KEY (tenant, provider)
);

-- One row under which all engines admit: whose turn is over, and what was counted so far.
CREATE TABLE admission (
    admission_no    INTEGER PRIMARY KEY CHECK (admission_no = 1),
    last_tenant     TEXT NOT NULL,
    admitted_total  INTEGER NOT NULL,
    completed_total INTEGER NOT NULL
);
INSERT INTO admission (admission_no, last_tenant, admitted_total, completed_total)
VALUES (1, '', 0, 0);

-- The newest waits, a ring: slot = number of the admission modulo 1,000.
CREATE TABLE admission_wait (
    slot    INTEGER PRIMARY KEY,
    wait_ms INTEGER NOT NULL
);

ALTER TABLE engine ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
ALTER TABLE engine ADD COLUMN runs_max INTEGER NOT NULL DEFAULT 0;
ALTER TABLE engine ADD COLUMN runs_total_max INTEGER;
ALTER TABLE engine ADD COLUMN own_only INTEGER NOT NULL DEFAULT 0;
