-- Leases what a message asks for: what is to be done for rows by the models that are here, now or by a message. What
-- waits for its next attempt goes on waiting. It is due from now on: given back, it must not wait for the message's
-- deadline.
-- $1 models: text[], $2 content_types: text[], $3 content_ids: text[], $4 token: uuid, $5 daemon: uuid,
-- $6 lease_seconds: double precision
WITH asked AS MATERIALIZED (
    SELECT DISTINCT a.content_type, a.content_id
    FROM unnest($2::text[], $3::text[]) AS a (content_type, content_id)
    JOIN rowvec.source s ON s.content_type = a.content_type AND s.paused_at IS NULL
),
due AS MATERIALIZED (
    SELECT q.id
    FROM asked a
    CROSS JOIN LATERAL (
        SELECT id FROM rowvec.embedding_queue
        WHERE content_type = a.content_type AND content_id = a.content_id AND model = ANY ($1::text[])
          AND status = 'queued' AND (message_id IS NOT NULL OR scheduled_at <= now())
        FOR UPDATE SKIP LOCKED
    ) AS q
)
UPDATE rowvec.embedding_queue q
SET status = 'processing', token = $4::uuid, daemon = $5::uuid,
    lease_expires_at = now() + make_interval(secs => $6::double precision), updated_at = now(),
    scheduled_at = least(q.scheduled_at, now())
WHERE q.id = ANY (ARRAY(SELECT id FROM due))
RETURNING q.id, q.content_type, q.content_id, q.model, q.lane, q.generation, q.retry_count, q.scheduled_at, q.message_id
