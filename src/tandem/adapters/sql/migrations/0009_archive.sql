-- What was recorded can be proven, what is old is kept small, what came from elsewhere is known.

-- The chain of lifecycle events: each holds the hash of itself and of the one before it.
ALTER TABLE run ADD COLUMN event_hash BLOB;
ALTER TABLE lifecycle_event ADD COLUMN record_hash BLOB;

-- The registry of artifacts.
ALTER TABLE artifact ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE artifact ADD COLUMN contract TEXT NOT NULL DEFAULT '';
ALTER TABLE artifact ADD COLUMN inputs_digest TEXT NOT NULL DEFAULT '';
ALTER TABLE artifact ADD COLUMN validity TEXT NOT NULL DEFAULT 'valid';
ALTER TABLE artifact ADD COLUMN provenance TEXT;
ALTER TABLE artifact ADD COLUMN registered_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE artifact ADD COLUMN invalidated_at_ms INTEGER;
UPDATE artifact SET digest = json_extract(ref, '$.digest');
-- Outputs that were put aside belong to the registry too, so that one index finds every reference,
-- also those of packed runs.
INSERT INTO artifact (run_no, node_no, attempt, ref, digest, validity)
SELECT node_run_id >> 20, node_run_id & 1048575, attempts, output_ref,
       json_extract(output_ref, '$.digest'), iif(state = 'completed', 'valid', 'rejected')
  FROM node_run WHERE output_ref IS NOT NULL;
DROP INDEX artifact_of_run;
DROP INDEX artifact_digest;
DROP INDEX node_run_output_digest;
CREATE INDEX artifact_of_node ON artifact (run_no, node_no, artifact_no);
CREATE INDEX artifact_of_digest ON artifact (digest);

-- Rows of old runs, packed. A part holds rows that are in no other table any more.
CREATE TABLE archive_part (
    run_no INTEGER NOT NULL,
    part   INTEGER NOT NULL,
    rows   BLOB NOT NULL,
    PRIMARY KEY (run_no, part)
);
ALTER TABLE run ADD COLUMN archived_at_ms INTEGER;
CREATE INDEX run_retired ON run (updated_at_ms)
    WHERE finished_at_ms IS NOT NULL AND archived_at_ms IS NULL;

-- Where a run came from, when it was not started here. `document` is what had no place in a row.
CREATE TABLE imported_run (
    run_no         INTEGER NOT NULL,
    digest         TEXT NOT NULL,
    source         TEXT NOT NULL,
    imported_at_ms INTEGER NOT NULL,
    document       BLOB NOT NULL,
    PRIMARY KEY (run_no, digest)
);
