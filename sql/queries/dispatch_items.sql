-- Hands a claim's items to a message: queued again, and due here when it has had its time. What the other models of
-- this daemon have to do just now for the same rows goes with them. An item that has become immediate meanwhile is left:
-- it waits for no message. So is what has been due for so long that it would be late if its message never came.
-- $1 ids: bigint[], $2 token: uuid, $3 message_id: uuid, $4 deadline_seconds: double precision, $5 models: text[],
-- $6 oldest_seconds: double precision
WITH mine AS MATERIALIZED (
    SELECT id, content_type, content_id, lane FROM rowvec.embedding_queue
    WHERE id = ANY ($1::bigint[]) AND token = $2::uuid AND lane <> 'immediate'
      AND scheduled_at >= now() - make_interval(secs => $6::double precision)
    FOR UPDATE SKIP LOCKED
),
others AS MATERIALIZED (
    SELECT q.id
    FROM mine m
    CROSS JOIN LATERAL (
        SELECT id FROM rowvec.embedding_queue
        WHERE content_type = m.content_type AND content_id = m.content_id AND lane = m.lane
          AND model = ANY ($5::text[])
          AND status = 'queued' AND message_id IS NULL AND scheduled_at <= now()
          AND scheduled_at >= now() - make_interval(secs => $6::double precision)
        FOR UPDATE SKIP LOCKED
    ) AS q
)
UPDATE rowvec.embedding_queue q
SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL, updated_at = now(),
    message_id = $3::uuid, scheduled_at = now() + make_interval(secs => $4::double precision)
WHERE q.id = ANY (ARRAY(SELECT id FROM mine UNION SELECT id FROM others))
RETURNING q.id, q.content_type, q.content_id, q.priority
