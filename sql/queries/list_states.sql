-- Which sources are paused, and which have vectors to be looked through for rows that are gone. Our own source, of texts
-- queued by hand, is only spoken of when it is.
SELECT content_type, paused_at, swept
FROM rowvec.source
WHERE content_type <> 'document' OR paused_at IS NOT NULL OR NOT swept
ORDER BY content_type
