-- Which sources are paused, and which still have rows to be queued or vectors to be looked through.
SELECT content_type, paused_at, backfilled AND swept AS backfilled
FROM rowvec.source
ORDER BY content_type
