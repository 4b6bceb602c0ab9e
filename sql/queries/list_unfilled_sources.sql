-- Sources with work in the background: vectors to look through for rows that are gone; rows to be queued where some
-- active model has fewer than so many bulk items waiting: one that is away must not keep the others from being filled.
-- $1 max_waiting: integer
SELECT s.content_type
FROM rowvec.source s
WHERE s.paused_at IS NULL AND (NOT s.swept OR (NOT s.backfilled
  AND EXISTS (
      SELECT FROM rowvec.model m
      WHERE m.active AND $1::integer > (
          SELECT count(*) FROM (
              SELECT FROM rowvec.embedding_queue q
              WHERE q.status = 'queued' AND q.model = m.name AND q.lane = 'bulk' AND q.content_type = s.content_type
              LIMIT $1::integer) AS waiting))
  AND (SELECT count(*) FROM (SELECT FROM rowvec.change LIMIT $1::integer) AS unfolded) < $1::integer))
ORDER BY s.content_type
