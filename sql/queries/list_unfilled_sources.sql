-- Work in the background: sources with vectors to look through for rows that are gone (no model); rows to be queued for
-- a model that has fewer than so many bulk items of the source waiting.
-- $1 max_waiting: integer
SELECT s.content_type, NULL::text AS model
FROM rowvec.source s
WHERE s.paused_at IS NULL AND NOT s.swept
UNION ALL
SELECT u.content_type, u.model
FROM rowvec.unfilled u
JOIN rowvec.source s ON s.content_type = u.content_type AND s.paused_at IS NULL AND s.swept
WHERE NOT u.stopped
  AND (SELECT count(*) FROM (
          SELECT FROM rowvec.embedding_queue q
          WHERE q.status = 'queued' AND q.model = u.model AND q.lane = 'bulk' AND q.content_type = u.content_type
          LIMIT $1::integer) AS waiting) < $1::integer
  AND (SELECT count(*) FROM (SELECT FROM rowvec.change LIMIT $1::integer) AS unfolded) < $1::integer
ORDER BY 1, 2
