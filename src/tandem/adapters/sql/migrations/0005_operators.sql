-- What operators do to runs: pauses that stop what runs, nodes completed by hand, forks, deletion.

ALTER TABLE run ADD COLUMN pause_mode TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN forked_from TEXT;
ALTER TABLE run ADD COLUMN forked_from_node TEXT;
CREATE INDEX run_forked ON run (forked_from) WHERE forked_from IS NOT NULL;

ALTER TABLE node_run ADD COLUMN handling TEXT;

-- Who still refers to the bytes of an artifact: asked when a run is deleted.
CREATE INDEX artifact_digest ON artifact (json_extract(ref, '$.digest'));
CREATE INDEX node_run_output_digest ON node_run (json_extract(output_ref, '$.digest'))
    WHERE output_ref IS NOT NULL;
