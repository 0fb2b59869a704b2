-- Runs are looked for by the moment of their creation; an imported run has a higher number than
-- those that were created after it.

CREATE INDEX run_of_creation ON run (tenant, created_at_ms, run_no);
