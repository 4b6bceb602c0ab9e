-- Counts a failed attempt: back in the queue after a delay, or failed when no attempt is left. An item whose row
-- changed meanwhile failed with a text that is no longer its own: it is queued again and nothing is counted.
-- $1 ids: bigint[], $2 token: uuid, $3 generations: bigint[], $4 delays_seconds: double precision[] (NULL: give up),
-- $5 error_message: text, $6 error_detail: text
UPDATE rowvec.embedding_queue q
SET status = CASE WHEN q.generation = f.generation AND f.delay_seconds IS NULL THEN 'failed' ELSE 'queued' END,
    retry_count = CASE WHEN q.generation = f.generation THEN q.retry_count + 1 ELSE q.retry_count END,
    error_message = CASE WHEN q.generation = f.generation THEN $5::text END,
    error_detail = CASE WHEN q.generation = f.generation THEN $6::text END,
    scheduled_at = CASE WHEN q.generation = f.generation
                        THEN now() + make_interval(secs => coalesce(f.delay_seconds, 0))
                        ELSE greatest(q.scheduled_at, now()) END,
    token = NULL, daemon = NULL, lease_expires_at = NULL, message_id = NULL, updated_at = now()
FROM unnest($1::bigint[], $3::bigint[], $4::double precision[]) AS f (id, generation, delay_seconds)
WHERE q.id = f.id AND q.id = ANY (ARRAY(
    SELECT id FROM rowvec.embedding_queue WHERE id = ANY ($1::bigint[]) AND token = $2::uuid
    FOR UPDATE SKIP LOCKED))
RETURNING q.id, q.status
