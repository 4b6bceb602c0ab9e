-- Leases the items of one model, lane and source that have been due the longest.
-- $1 model: text, $2 lane: text, $3 content_type: text, $4 since: timestamptz, $5 limit: integer, $6 token: uuid,
-- $7 daemon: uuid, $8 lease_seconds: double precision
WITH due AS MATERIALIZED (
    SELECT id
    FROM rowvec.embedding_queue
    WHERE status = 'queued' AND model = $1::text AND lane = $2::text AND content_type = $3::text
      AND scheduled_at >= $4::timestamptz AND scheduled_at <= now()
    ORDER BY scheduled_at, id
    LIMIT $5::integer
    FOR UPDATE SKIP LOCKED
)
-- An array of ids, not a join: a join is planned as a scan of the whole queue under a generic plan.
UPDATE rowvec.embedding_queue q
SET status = 'processing', token = $6::uuid, daemon = $7::uuid,
    lease_expires_at = now() + make_interval(secs => $8::double precision), updated_at = now()
WHERE q.id = ANY (ARRAY(SELECT id FROM due))
RETURNING q.id, q.content_id, q.generation, q.retry_count, q.scheduled_at, q.message_id
