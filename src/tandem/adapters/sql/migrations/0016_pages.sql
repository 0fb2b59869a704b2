-- Pages of gates and waits go on behind the last one, also among those of one moment.

DROP INDEX gate_of_status;
CREATE INDEX gate_of_status ON gate (status, requested_at_ms, gate_id);
DROP INDEX wait_of_status;
CREATE INDEX wait_of_status ON wait (status, registered_at_ms, wait_id);
