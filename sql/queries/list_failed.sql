-- Items that were given up, the newest first.
-- $1 limit: integer
SELECT content_type, content_id, model, retry_count, error_message, error_detail, updated_at
FROM rowvec.embedding_queue
WHERE status = 'failed'
ORDER BY updated_at DESC, id
LIMIT $1::integer
