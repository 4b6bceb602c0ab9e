-- Queues failed items again; NULL means of every source, key or model.
-- $1 content_type: text, $2 content_id: text, $3 model: text
WITH given_up AS MATERIALIZED (
    SELECT id FROM rowvec.embedding_queue
    WHERE status = 'failed' AND ($1::text IS NULL OR content_type = $1::text)
      AND ($2::text IS NULL OR content_id = $2::text) AND ($3::text IS NULL OR model = $3::text)
    FOR UPDATE SKIP LOCKED
)
UPDATE rowvec.embedding_queue
SET status = 'queued', retry_count = 0, error_message = NULL, error_detail = NULL, scheduled_at = now(),
    updated_at = now()
WHERE id = ANY (ARRAY(SELECT id FROM given_up))
RETURNING id
