-- Written by `make fix` from the migrations; do not edit.
-- version: 17
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
, started_by TEXT NOT NULL DEFAULT '', queued_at_ms INTEGER, resource_key TEXT NOT NULL DEFAULT '', rate_limited_provider TEXT NOT NULL DEFAULT '', lock_path TEXT NOT NULL DEFAULT '', concurrency_key TEXT NOT NULL DEFAULT '', concurrency_limit INTEGER NOT NULL DEFAULT 0, labels TEXT NOT NULL DEFAULT '[]', lane TEXT
    GENERATED ALWAYS AS (json_array(tenant, labels, coalesce(owner, ''))) VIRTUAL, activity_at_ms INTEGER, interruptions INTEGER NOT NULL DEFAULT 0, auto_resumes INTEGER NOT NULL DEFAULT 0, reaped_at_ms INTEGER, pause_mode TEXT NOT NULL DEFAULT '', forked_from TEXT, forked_from_node TEXT, definition_version TEXT NOT NULL DEFAULT '', automation_version INTEGER, trigger_reason TEXT NOT NULL DEFAULT '', requested_execution_profile TEXT, effective_execution_profile TEXT NOT NULL DEFAULT 'strict', runtime_context TEXT, learnings TEXT, learning_summary TEXT, event_hash BLOB, archived_at_ms INTEGER, prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0, total_tokens INTEGER NOT NULL DEFAULT 0, cost_nano_usd INTEGER NOT NULL DEFAULT 0, tool_calls INTEGER NOT NULL DEFAULT 0, active_ms INTEGER NOT NULL DEFAULT 0, active_since_ms INTEGER, runtime_clock TEXT NOT NULL DEFAULT 'active', allowance TEXT, consumed_handoff_id TEXT NOT NULL DEFAULT '', trigger_context TEXT);
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
, handling TEXT, reading TEXT);
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
, unmet TEXT, is_repair_charged INTEGER, usage TEXT);
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
, rework_targets TEXT, requested_by TEXT NOT NULL DEFAULT '', escalate_to TEXT NOT NULL DEFAULT '', remind_every_ms INTEGER, stale_after_ms INTEGER, policy_state TEXT, reviewed_artifact TEXT, guard_denials INTEGER NOT NULL DEFAULT 0, four_eyes INTEGER NOT NULL DEFAULT 0);
CREATE INDEX gate_of_run ON gate (run_no, status);
CREATE TABLE artifact (
    artifact_no INTEGER PRIMARY KEY,
    run_no      INTEGER NOT NULL,
    node_no     INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    ref         TEXT NOT NULL
, digest TEXT NOT NULL DEFAULT '', contract TEXT NOT NULL DEFAULT '', inputs_digest TEXT NOT NULL DEFAULT '', validity TEXT NOT NULL DEFAULT 'valid', provenance TEXT, registered_at_ms INTEGER NOT NULL DEFAULT 0, invalidated_at_ms INTEGER);
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
    metadata       TEXT, record_hash BLOB, run_status TEXT,
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
, labels TEXT NOT NULL DEFAULT '[]', runs_max INTEGER NOT NULL DEFAULT 0, runs_total_max INTEGER, own_only INTEGER NOT NULL DEFAULT 0, lease_ms INTEGER NOT NULL DEFAULT 30000);
CREATE TABLE "wait" (
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
CREATE INDEX wait_of_run ON wait (run_no, status);
CREATE INDEX wait_for_signal ON wait (signal_key, wait_id)
    WHERE signal_key <> '' AND status IN ('waiting', 'escalated');
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
CREATE TABLE admission (
    admission_no    INTEGER PRIMARY KEY CHECK (admission_no = 1),
    last_tenant     TEXT NOT NULL,
    admitted_total  INTEGER NOT NULL,
    completed_total INTEGER NOT NULL
);
CREATE TABLE admission_wait (
    slot    INTEGER PRIMARY KEY,
    wait_ms INTEGER NOT NULL
);
CREATE INDEX run_reaped ON run (reaped_at_ms)
    WHERE status = 'paused' AND stop_kind = 'stale_reaped' AND cleanup IS NULL;
CREATE INDEX run_forked ON run (forked_from) WHERE forked_from IS NOT NULL;
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
    last_change_id    TEXT NOT NULL, schedule TEXT NOT NULL DEFAULT '', is_watching INTEGER NOT NULL DEFAULT 0, next_fire_at_ms INTEGER, last_fired_at_ms INTEGER, fired_until_ms INTEGER, deferred_at_ms INTEGER, deferred_by INTEGER,
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
CREATE TABLE learning_due (
    due_no            INTEGER PRIMARY KEY AUTOINCREMENT,
    run_no            INTEGER NOT NULL UNIQUE,
    review_request_id TEXT NOT NULL
);
CREATE TABLE run_facts (
    run_no INTEGER PRIMARY KEY,
    facts  TEXT NOT NULL
);
CREATE TABLE learning_candidate (
    candidate_no  INTEGER PRIMARY KEY AUTOINCREMENT,
    candidate_id  TEXT NOT NULL UNIQUE,
    tenant        TEXT NOT NULL,
    automation_id TEXT NOT NULL,
    kind          TEXT NOT NULL,
    status        TEXT NOT NULL,
    confidence    REAL NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    candidate     TEXT NOT NULL
);
CREATE INDEX candidate_of_automation
    ON learning_candidate (tenant, automation_id, status, kind, candidate_no);
CREATE INDEX candidate_of_tenant ON learning_candidate (tenant, candidate_no);
CREATE INDEX candidate_told ON learning_candidate (tenant, automation_id, confidence)
    WHERE status IN ('approved', 'applied');
CREATE TABLE review (
    tenant                  TEXT NOT NULL,
    automation_id           TEXT NOT NULL,
    runs_max                INTEGER NOT NULL,
    runs_since_review       INTEGER NOT NULL,
    runs_total              INTEGER NOT NULL,
    review_required         INTEGER NOT NULL,
    review_kind             TEXT NOT NULL,
    review_requested_at_ms  INTEGER,
    review_request_id       TEXT NOT NULL,
    review_reason           TEXT NOT NULL,
    review_run_id           TEXT NOT NULL,
    health_last_checked_at_ms INTEGER,
    reviewed_at_ms          INTEGER,
    reviewed_by             TEXT NOT NULL,
    review_note             TEXT NOT NULL,
    created_at_ms           INTEGER NOT NULL,
    updated_at_ms           INTEGER NOT NULL,
    PRIMARY KEY (tenant, automation_id)
);
CREATE INDEX review_open ON review (tenant, review_required);
CREATE TABLE session (
    session_no  INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant      TEXT NOT NULL,
    session_id  TEXT NOT NULL,
    run_id      TEXT NOT NULL,
    node_id     TEXT,
    epoch       INTEGER NOT NULL,
    is_mapped   INTEGER NOT NULL,
    is_open     INTEGER NOT NULL,
    mcp_servers TEXT,
    UNIQUE (tenant, session_id)
);
CREATE INDEX session_of_run ON session (tenant, run_id, session_no);
CREATE TABLE instance (
    instance_no INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant      TEXT NOT NULL,
    run_id      TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    epoch       INTEGER NOT NULL,
    UNIQUE (tenant, run_id, instance_id)
);
CREATE INDEX artifact_of_node ON artifact (run_no, node_no, artifact_no);
CREATE INDEX artifact_of_digest ON artifact (digest);
CREATE TABLE archive_part (
    run_no INTEGER NOT NULL,
    part   INTEGER NOT NULL,
    rows   BLOB NOT NULL,
    PRIMARY KEY (run_no, part)
);
CREATE INDEX run_retired ON run (updated_at_ms)
    WHERE finished_at_ms IS NOT NULL AND archived_at_ms IS NULL;
CREATE TABLE imported_run (
    run_no         INTEGER NOT NULL,
    digest         TEXT NOT NULL,
    source         TEXT NOT NULL,
    imported_at_ms INTEGER NOT NULL,
    document       BLOB NOT NULL,
    PRIMARY KEY (run_no, digest)
);
CREATE INDEX automation_due ON automation (next_fire_at_ms)
    WHERE next_fire_at_ms IS NOT NULL AND deferred_by IS NULL;
CREATE INDEX automation_watching ON automation (automation_no)
    WHERE is_watching = 1 AND status = 'active' AND deleted_at_ms IS NULL;
CREATE INDEX run_open ON run (tenant, automation_id)
    WHERE finished_at_ms IS NULL AND automation_version IS NOT NULL;
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
CREATE INDEX run_of_creation ON run (tenant, created_at_ms, run_no);
CREATE TABLE token (
    token_id        TEXT PRIMARY KEY,
    tenant          TEXT NOT NULL,
    name            TEXT NOT NULL,
    digest          BLOB NOT NULL UNIQUE,
    scopes          TEXT NOT NULL,
    actor_id        TEXT NOT NULL,
    kind            TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    created_by      TEXT NOT NULL,
    expires_at_ms   INTEGER,
    revoked_at_ms   INTEGER,
    revoked_by      TEXT NOT NULL,
    last_used_at_ms INTEGER
);
CREATE INDEX token_of_tenant ON token (tenant, token_id);
CREATE TABLE assertion_use (
    issuer        TEXT NOT NULL,
    assertion_id  TEXT NOT NULL,
    digest        BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (issuer, assertion_id)
);
CREATE INDEX assertion_use_expiry ON assertion_use (expires_at_ms);
CREATE TABLE request_key (
    tenant        TEXT NOT NULL,
    operation     TEXT NOT NULL,
    key           TEXT NOT NULL,
    fingerprint   TEXT NOT NULL,
    run_id        TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, operation, key)
);
CREATE INDEX request_key_age ON request_key (created_at_ms);
CREATE TABLE audit (
    audit_no       INTEGER PRIMARY KEY,
    tenant         TEXT NOT NULL,
    recorded_at_ms INTEGER NOT NULL,
    event          TEXT NOT NULL,
    actor          TEXT NOT NULL,
    peer           TEXT NOT NULL,
    detail         TEXT NOT NULL,
    record_hash    BLOB NOT NULL
);
CREATE INDEX audit_of_tenant ON audit (tenant, audit_no);
CREATE TABLE store_identity (
    store_id  TEXT PRIMARY KEY,
    packed_to INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE webhook_trigger (
    trigger_no        INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant            TEXT NOT NULL,
    trigger_id        TEXT NOT NULL UNIQUE,
    automation_id     TEXT NOT NULL,
    public_path_token TEXT NOT NULL UNIQUE,
    trigger           TEXT NOT NULL
);
CREATE INDEX webhook_trigger_of_automation
    ON webhook_trigger (tenant, automation_id, trigger_no);
CREATE TABLE webhook_secret (
    trigger_id     TEXT NOT NULL,
    version        INTEGER NOT NULL,
    sealed         BLOB NOT NULL,
    valid_until_ms INTEGER,
    PRIMARY KEY (trigger_id, version)
);
CREATE TABLE webhook_delivery (
    delivery_no    INTEGER PRIMARY KEY AUTOINCREMENT,
    delivery_id    TEXT NOT NULL UNIQUE,
    event_id       TEXT UNIQUE,
    tenant         TEXT NOT NULL,
    trigger_id     TEXT NOT NULL,
    automation_id  TEXT NOT NULL,
    status         TEXT NOT NULL,
    run_id         TEXT,
    duplicate_of   TEXT,
    is_believed    INTEGER NOT NULL,
    received_at_ms INTEGER NOT NULL,
    delivery       TEXT NOT NULL,
    event          TEXT
);
CREATE INDEX webhook_delivery_of_trigger ON webhook_delivery (tenant, trigger_id, delivery_no);
CREATE INDEX webhook_delivery_not_believed ON webhook_delivery (trigger_id, delivery_no)
    WHERE is_believed = 0;
CREATE INDEX webhook_delivery_of_automation
    ON webhook_delivery (tenant, automation_id, delivery_no);
CREATE INDEX webhook_delivery_of_tenant ON webhook_delivery (tenant, delivery_no);
CREATE INDEX webhook_delivery_of_run ON webhook_delivery (tenant, run_id, delivery_no)
    WHERE run_id IS NOT NULL;
CREATE INDEX webhook_delivery_open ON webhook_delivery (delivery_no) WHERE status = 'received';
CREATE INDEX webhook_delivery_received ON webhook_delivery (is_believed, received_at_ms);
CREATE TABLE webhook_payload (
    delivery_no INTEGER PRIMARY KEY,
    payload     BLOB NOT NULL
);
CREATE TABLE webhook_claim (
    claim_no      INTEGER PRIMARY KEY,
    tenant        TEXT NOT NULL,
    trigger_id    TEXT NOT NULL,
    key           TEXT NOT NULL,
    fingerprint   TEXT NOT NULL,
    delivery_id   TEXT NOT NULL,
    claimed_at_ms INTEGER NOT NULL,
    UNIQUE (tenant, trigger_id, key)
);
CREATE INDEX gate_of_status ON gate (status, requested_at_ms, gate_id);
CREATE INDEX wait_of_status ON wait (status, registered_at_ms, wait_id);
CREATE TABLE "consumed_handoff" (
    consumed_no         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant              TEXT NOT NULL,
    automation_id       TEXT NOT NULL,
    handoff_id          TEXT NOT NULL,
    handed_over_at_ms   INTEGER NOT NULL,
    fingerprint         TEXT NOT NULL,
    run_id              TEXT NOT NULL,
    consumed_at_ms      INTEGER NOT NULL,
    workspace           TEXT NOT NULL,
    file                TEXT NOT NULL,
    archived_dir        TEXT NOT NULL,
    archived_at_ms      INTEGER,
    UNIQUE (tenant, automation_id, handoff_id, handed_over_at_ms, fingerprint)
);
CREATE INDEX handoff_to_archive ON consumed_handoff (consumed_no) WHERE archived_at_ms IS NULL;
INSERT INTO admission (admission_no, last_tenant, admitted_total, completed_total)
VALUES (1, '', 0, 0);
INSERT INTO store_identity (store_id) VALUES (lower(hex(randomblob(8))));
