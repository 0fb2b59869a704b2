-- Triggers at which deliveries from outside come in, and what came.

-- What a run keeps of the trigger that started it; written with the run.
ALTER TABLE run ADD COLUMN trigger_context TEXT;

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

-- Sealed with a key that is not in the store. Without an end a secret is valid until another one
-- takes its place.
CREATE TABLE webhook_secret (
    trigger_id     TEXT NOT NULL,
    version        INTEGER NOT NULL,
    sealed         BLOB NOT NULL,
    valid_until_ms INTEGER,
    PRIMARY KEY (trigger_id, version)
);

-- A row for each delivery; the inbox is those that are `received`. One that was not believed has
-- no event.
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

-- Who was first with an idempotency key. These never grow old.
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
