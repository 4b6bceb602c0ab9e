-- Queues the next page of a source's existing rows; NULL when there is nothing to do here.
-- $1 content_type: text
SELECT rowvec.append_backfill($1::text) AS appended
