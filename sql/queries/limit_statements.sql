-- Bounds each statement of this transaction.
-- $1 limit: text
SELECT set_config('statement_timeout', $1::text, true)
