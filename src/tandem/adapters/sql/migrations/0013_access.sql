-- Who may do what: tokens, assertions that were used, keys of requests, the audit.

-- Of a token only its hash is kept.
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

-- Assertions that came, for as long as they could come again.
CREATE TABLE assertion_use (
    issuer        TEXT NOT NULL,
    assertion_id  TEXT NOT NULL,
    digest        BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (issuer, assertion_id)
);
CREATE INDEX assertion_use_expiry ON assertion_use (expires_at_ms);

-- Keys of requests, each written with what its request did.
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

-- Only ever added to; each record holds the hash of itself and of the one before it.
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

-- Whether somebody else than the one who asked has to approve.
ALTER TABLE gate ADD COLUMN four_eyes INTEGER NOT NULL DEFAULT 0;
