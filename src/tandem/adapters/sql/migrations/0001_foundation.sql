-- Runs and everything that is recorded of them.
-- A node run is numbered run_no * 2^20 + node_no, an attempt node_run_id * 2^12 + number: one
-- clustered integer key each, so that a node costs no second index.

CREATE TABLE definition (
    tenant   TEXT NOT NULL,
    digest   TEXT NOT NULL,
    document BLOB NOT NULL,
    UNIQUE (tenant, digest)
);

CREATE TABLE run (
    run_no            INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id            TEXT NOT NULL UNIQUE,
    tenant            TEXT NOT NULL,
    automation_id     TEXT NOT NULL,
    name              TEXT NOT NULL,
    definition_digest TEXT NOT NULL,
    trigger_type      TEXT NOT NULL,
    status            TEXT NOT NULL,
    last_change_id    TEXT NOT NULL,
    epoch             INTEGER NOT NULL,
    engine_id         TEXT,
    owner             TEXT,
    cleanup           TEXT,
    event_seq         INTEGER NOT NULL,
    created_at_ms     INTEGER NOT NULL,
    updated_at_ms     INTEGER NOT NULL,
    started_at_ms     INTEGER,
    finished_at_ms    INTEGER,
    due_at_ms         INTEGER,
    queue_reason      TEXT,
    parked            TEXT NOT NULL,
    detail            TEXT NOT NULL,
    stop_kind         TEXT,
    stop_reason       TEXT NOT NULL,
    pause_reason      TEXT NOT NULL,
    resume_reason     TEXT NOT NULL,
    last_failure      TEXT,
    inputs            TEXT NOT NULL,
    workspace         TEXT NOT NULL,
    nodes_total       INTEGER NOT NULL,
    nodes_completed   INTEGER NOT NULL
);
CREATE INDEX run_queue ON run (owner, due_at_ms) WHERE status = 'queued' AND due_at_ms IS NOT NULL;
CREATE INDEX run_due ON run (due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX run_parked ON run (due_at_ms)
    WHERE status IN ('paused', 'awaiting_approval') AND due_at_ms IS NOT NULL;
CREATE INDEX run_of_tenant ON run (tenant, run_no);
CREATE INDEX run_of_status ON run (tenant, status, run_no);
CREATE INDEX run_of_automation ON run (tenant, automation_id, run_no);
CREATE INDEX run_held ON run (engine_id) WHERE engine_id IS NOT NULL;
CREATE INDEX run_owned ON run (owner) WHERE owner IS NOT NULL;
CREATE INDEX run_cleanup ON run (cleanup) WHERE cleanup IS NOT NULL;

CREATE TABLE node_run (
    node_run_id    INTEGER PRIMARY KEY,
    state          TEXT NOT NULL,
    attempts       INTEGER NOT NULL,
    attempts_used  INTEGER NOT NULL,
    repairs_used   INTEGER NOT NULL,
    interruptions  INTEGER NOT NULL,
    gates          INTEGER NOT NULL,
    due_at_ms      INTEGER,
    started_at_ms  INTEGER,
    finished_at_ms INTEGER,
    output         BLOB,
    output_ref     TEXT,
    repair         TEXT,
    failure        TEXT
);

CREATE TABLE attempt (
    attempt_no    INTEGER PRIMARY KEY,
    epoch         INTEGER NOT NULL,
    engine_id     TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms   INTEGER,
    outcome       TEXT,
    failure_class TEXT NOT NULL DEFAULT '',
    message       TEXT NOT NULL DEFAULT '',
    detail        TEXT NOT NULL DEFAULT '',
    exit_code     INTEGER
);

CREATE TABLE gate (
    gate_id         TEXT PRIMARY KEY,
    run_no          INTEGER NOT NULL,
    node_no         INTEGER NOT NULL,
    node_id         TEXT NOT NULL,
    instance        INTEGER NOT NULL,
    purpose         TEXT NOT NULL,
    title           TEXT NOT NULL,
    instructions    TEXT NOT NULL,
    decisions       TEXT NOT NULL,
    requested_at_ms INTEGER NOT NULL,
    expires_at_ms   INTEGER,
    on_expiry       TEXT NOT NULL,
    status          TEXT NOT NULL,
    decision        TEXT NOT NULL,
    reason          TEXT NOT NULL,
    decided_by      TEXT NOT NULL,
    decided_at_ms   INTEGER
);
CREATE INDEX gate_of_run ON gate (run_no, status);
CREATE INDEX gate_of_status ON gate (status, requested_at_ms);

CREATE TABLE wait (
    wait_id          TEXT PRIMARY KEY,
    run_no           INTEGER NOT NULL,
    node_no          INTEGER NOT NULL,
    node_id          TEXT NOT NULL,
    kind             TEXT NOT NULL,
    due_at_ms        INTEGER NOT NULL,
    registered_at_ms INTEGER NOT NULL,
    status           TEXT NOT NULL,
    ended_at_ms      INTEGER
);
CREATE INDEX wait_of_run ON wait (run_no, status);

CREATE TABLE artifact (
    artifact_no INTEGER PRIMARY KEY,
    run_no      INTEGER NOT NULL,
    node_no     INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    ref         TEXT NOT NULL
);
CREATE INDEX artifact_of_run ON artifact (run_no, artifact_no);

CREATE TABLE lifecycle_event (
    cursor         INTEGER PRIMARY KEY AUTOINCREMENT,
    run_no         INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    event          TEXT NOT NULL,
    recorded_at_ms INTEGER NOT NULL,
    change_id      TEXT NOT NULL,
    node_id        TEXT,
    attempt        INTEGER,
    reason         TEXT NOT NULL,
    stop_kind      TEXT,
    metadata       TEXT,
    UNIQUE (run_no, seq)
);

CREATE TABLE engine (
    engine_id      TEXT PRIMARY KEY,
    host           TEXT NOT NULL,
    pid            INTEGER NOT NULL,
    version        TEXT NOT NULL,
    lock_path      TEXT NOT NULL,
    started_at_ms  INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL
);
