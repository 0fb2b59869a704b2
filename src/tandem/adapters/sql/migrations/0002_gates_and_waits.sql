-- What time does to gates and waits, waits for signals, the signals that were accepted, and who
-- started a run. A signal is found by its keys; one row of `signal_key` each.

ALTER TABLE run ADD COLUMN started_by TEXT NOT NULL DEFAULT '';

ALTER TABLE gate ADD COLUMN rework_targets TEXT;
ALTER TABLE gate ADD COLUMN requested_by TEXT NOT NULL DEFAULT '';
ALTER TABLE gate ADD COLUMN escalate_to TEXT NOT NULL DEFAULT '';
ALTER TABLE gate ADD COLUMN remind_every_ms INTEGER;
ALTER TABLE gate ADD COLUMN stale_after_ms INTEGER;
ALTER TABLE gate ADD COLUMN policy_state TEXT;
ALTER TABLE gate ADD COLUMN reviewed_artifact TEXT;
ALTER TABLE gate ADD COLUMN guard_denials INTEGER NOT NULL DEFAULT 0;

CREATE TABLE new_wait (
    wait_id          TEXT PRIMARY KEY,
    run_no           INTEGER NOT NULL,
    node_no          INTEGER NOT NULL,
    node_id          TEXT NOT NULL,
    kind             TEXT NOT NULL,
    due_at_ms        INTEGER,
    registered_at_ms INTEGER NOT NULL,
    signal_key       TEXT NOT NULL DEFAULT '',
    accepts_since_ms INTEGER NOT NULL DEFAULT 0,
    timeout_at_ms    INTEGER,
    on_timeout       TEXT NOT NULL DEFAULT 'cancel',
    escalate_to      TEXT NOT NULL DEFAULT '',
    remind_every_ms  INTEGER,
    policy_state     TEXT,
    status           TEXT NOT NULL,
    idempotency_key  TEXT NOT NULL DEFAULT '',
    ended_at_ms      INTEGER
);
INSERT INTO new_wait (wait_id, run_no, node_no, node_id, kind, due_at_ms, registered_at_ms, status,
       ended_at_ms)
SELECT wait_id, run_no, node_no, node_id, kind, due_at_ms, registered_at_ms, status, ended_at_ms
  FROM wait;
DROP TABLE wait;
ALTER TABLE new_wait RENAME TO wait;
CREATE INDEX wait_of_run ON wait (run_no, status);
CREATE INDEX wait_for_signal ON wait (signal_key, wait_id)
    WHERE signal_key <> '' AND status IN ('waiting', 'escalated');
CREATE INDEX wait_of_status ON wait (status, registered_at_ms);

CREATE TABLE signal (
    signal_no       INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant          TEXT NOT NULL,
    kind            TEXT NOT NULL,
    subject         TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    received_at_ms  INTEGER NOT NULL,
    signal          BLOB NOT NULL,
    open_after      TEXT,
    UNIQUE (tenant, kind, subject, idempotency_key)
);
CREATE INDEX signal_open ON signal (signal_no) WHERE open_after IS NOT NULL;
CREATE INDEX signal_received ON signal (received_at_ms);

CREATE TABLE signal_key (
    signal_key TEXT NOT NULL,
    signal_no  INTEGER NOT NULL,
    PRIMARY KEY (signal_key, signal_no)
) WITHOUT ROWID;
CREATE INDEX signal_key_of ON signal_key (signal_no);
