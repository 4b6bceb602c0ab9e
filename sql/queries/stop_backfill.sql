-- Stops backfills until somebody goes on with them.
-- $1 content_type: text, $2 model: text
SELECT rowvec.stop_backfill($1::text, $2::text)
