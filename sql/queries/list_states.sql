-- Which sources are paused, and which have vectors to be looked through for rows that are gone.
SELECT content_type, paused_at, swept
FROM rowvec.source
ORDER BY content_type
