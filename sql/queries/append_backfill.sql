-- Queues the next page of a source's existing rows for a model or, without one, looks at the next page of its vectors;
-- NULL when there is nothing to do here.
-- $1 content_type: text, $2 model: text
SELECT rowvec.append_backfill($1::text, $2::text) AS appended
