-- How far the backfills of sources and active models are: rows looked at, changes of theirs that are not folded; bulk items,
-- of those that came no later than one of them, that wait or are worked on; items that failed. Paused sources rest. Our own
-- source of texts queued by hand has none to speak of before there is one.
-- $1 last_item: bigint
WITH unfolded AS MATERIALIZED (
    SELECT content_type, model, count(*) AS changes FROM rowvec.change WHERE model IS NOT NULL GROUP BY content_type, model
)
SELECT s.content_type, m.name AS model, coalesce(b.done, false) AS done, coalesce(b.stopped, false) AS stopped,
       coalesce(b.rows, 0) AS rows,
       coalesce((SELECT changes FROM unfolded u WHERE u.content_type = s.content_type AND u.model = m.name), 0) AS unfolded,
       (SELECT count(*) FROM rowvec.embedding_queue q
        WHERE q.status = 'queued' AND q.model = m.name AND q.lane = 'bulk' AND q.content_type = s.content_type
          AND q.id <= coalesce($1::bigint, q.id))
       + (SELECT count(*) FROM rowvec.embedding_queue q
          WHERE q.status = 'processing' AND q.model = m.name AND q.lane = 'bulk' AND q.content_type = s.content_type
            AND q.id <= coalesce($1::bigint, q.id)) AS waiting,
       (SELECT count(*) FROM rowvec.embedding_queue q
        WHERE q.status = 'failed' AND q.model = m.name AND q.content_type = s.content_type) AS failed
FROM rowvec.source s
CROSS JOIN rowvec.model m
LEFT JOIN rowvec.backfill b ON b.content_type = s.content_type AND b.model = m.name
WHERE m.active AND s.paused_at IS NULL
  AND (s.relation <> 'rowvec.document'::regclass OR EXISTS (SELECT FROM rowvec.document))
ORDER BY s.content_type, m.name
