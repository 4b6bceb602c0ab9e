-- Queues failed items again, a page of those that had failed at a moment. As bulk: nobody waits for them any more, and
-- many of them must not delay what is fresh.
-- $1 failed_before: timestamptz (NULL: now), $2 limit: bigint
WITH given_up AS MATERIALIZED (
    SELECT id FROM rowvec.embedding_queue
    WHERE status = 'failed' AND updated_at < coalesce($1::timestamptz, now())
    ORDER BY updated_at
    LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
)
UPDATE rowvec.embedding_queue
SET status = 'queued', priority = greatest(priority, 5), retry_count = 0, error_message = NULL, error_detail = NULL,
    scheduled_at = now(), updated_at = now()
WHERE id = ANY (ARRAY(SELECT id FROM given_up))
RETURNING now() AS asked_at
