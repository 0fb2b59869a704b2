-- A handoff is known by what it says, too: an id and a moment alone may come again with other work.
-- Those that were taken before this stand for all of their id and moment.
CREATE TABLE new_consumed_handoff (
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
INSERT INTO new_consumed_handoff
SELECT consumed_no, tenant, automation_id, handoff_id, handed_over_at_ms, '', run_id,
       consumed_at_ms, workspace, file, archived_dir, archived_at_ms
  FROM consumed_handoff;
DROP TABLE consumed_handoff;
ALTER TABLE new_consumed_handoff RENAME TO consumed_handoff;
CREATE INDEX handoff_to_archive ON consumed_handoff (consumed_no) WHERE archived_at_ms IS NULL;
