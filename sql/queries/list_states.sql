-- Which sources are paused, and which have vectors to be looked through for rows that are gone. Our own source of texts
-- queued by hand is no news before there is one.
SELECT content_type, paused_at, swept
FROM rowvec.source
WHERE relation <> 'rowvec.document'::regclass OR EXISTS (SELECT FROM rowvec.document)
ORDER BY content_type
