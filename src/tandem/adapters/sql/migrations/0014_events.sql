-- Which store this is, so that a cursor can name it, and up to where its events may be packed.
CREATE TABLE store_identity (
    store_id  TEXT PRIMARY KEY,
    packed_to INTEGER NOT NULL DEFAULT 0
);
INSERT INTO store_identity (store_id) VALUES (lower(hex(randomblob(8))));

-- The state of the run after the change of the event, so that it is told the same at any time.
ALTER TABLE lifecycle_event ADD COLUMN run_status TEXT;
