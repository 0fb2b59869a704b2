-- What runs and attempts spend, and what runs may spend.

ALTER TABLE run ADD COLUMN prompt_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN completion_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN total_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN cost_nano_usd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN tool_calls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN active_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN active_since_ms INTEGER;
ALTER TABLE run ADD COLUMN runtime_clock TEXT NOT NULL DEFAULT 'active';
ALTER TABLE run ADD COLUMN allowance TEXT;

-- Absent for an attempt that told of none.
ALTER TABLE attempt ADD COLUMN usage TEXT;
