-- What is learned from runs that have ended, reviews of automations, and the sessions of runs.

-- What the run was told when it was claimed, and what was learned of it; written beside changes.
ALTER TABLE run ADD COLUMN learnings TEXT;
ALTER TABLE run ADD COLUMN learning_summary TEXT;

-- Runs that have ended and of which nothing was learned yet, in the order of their ends. Written in
-- the transaction of the end.
CREATE TABLE learning_due (
    due_no            INTEGER PRIMARY KEY AUTOINCREMENT,
    run_no            INTEGER NOT NULL UNIQUE,
    review_request_id TEXT NOT NULL
);

-- The facts of a run that metrics are made of; those of a run that ends again are replaced.
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

-- Automations whose runs are counted until a person has looked at them.
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

-- Sessions and instances of runs. `epoch` is that of the claim they were opened under.
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
