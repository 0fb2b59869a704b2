-- What the recovery of runs needs to know: the last sign of life of their bodies, the engines that
-- died with them, and when and how often they were stopped or resumed without a person.

ALTER TABLE run ADD COLUMN activity_at_ms INTEGER;
ALTER TABLE run ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN auto_resumes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN reaped_at_ms INTEGER;
CREATE INDEX run_reaped ON run (reaped_at_ms)
    WHERE status = 'paused' AND stop_kind = 'stale_reaped' AND cleanup IS NULL;

-- How long the lease of an engine lasts, so that others can time it by a clock of their own.
ALTER TABLE engine ADD COLUMN lease_ms INTEGER NOT NULL DEFAULT 30000;
