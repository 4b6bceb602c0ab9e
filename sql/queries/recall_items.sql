-- Takes items back from a message that was not sent, and tells which of them somebody holds just now; what has been
-- claimed out of it meanwhile is left alone.
-- $1 ids: bigint[], $2 message_id: uuid
WITH mine AS MATERIALIZED (
    SELECT id FROM rowvec.embedding_queue
    WHERE id = ANY ($1::bigint[]) AND message_id = $2::uuid AND status = 'queued'
    FOR UPDATE SKIP LOCKED
),
recalled AS (
    UPDATE rowvec.embedding_queue
    SET message_id = NULL, scheduled_at = now(), updated_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM mine))
)
-- As it was before.
SELECT q.model, q.lane, q.content_type, q.id <> ALL (ARRAY(SELECT id FROM mine)) AS held
FROM rowvec.embedding_queue q
WHERE q.id = ANY ($1::bigint[]) AND q.message_id = $2::uuid AND q.status = 'queued'
