-- Sources whose existing rows are still to be queued, with fewer than so many changes and items waiting.
-- $1 max_waiting: integer
SELECT s.content_type
FROM rowvec.source s
WHERE NOT s.backfilled
  AND (SELECT count(*) FROM (
          SELECT FROM rowvec.embedding_queue q
          WHERE q.status = 'queued' AND q.content_type = s.content_type AND q.lane = 'bulk'
          LIMIT $1::integer) AS waiting) < $1::integer
  AND (SELECT count(*) FROM (SELECT FROM rowvec.change LIMIT $1::integer) AS unfolded) < $1::integer
ORDER BY s.content_type
