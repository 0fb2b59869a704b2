-- How outputs were read, and what attempts missed. All of it is absent for a plain success.

ALTER TABLE node_run ADD COLUMN reading TEXT;
ALTER TABLE attempt ADD COLUMN unmet TEXT;
ALTER TABLE attempt ADD COLUMN is_repair_charged INTEGER;
