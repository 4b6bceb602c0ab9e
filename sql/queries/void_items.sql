-- Takes the token from items whose rows were removed, so that no late store can bring the vectors back.
-- $1 content_types: text[], $2 content_ids: text[]
UPDATE rowvec.embedding_queue q
SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL, message_id = NULL, updated_at = now()
FROM unnest($1::text[], $2::text[]) AS removed (content_type, content_id)
WHERE q.content_type = removed.content_type AND q.content_id = removed.content_id AND q.status = 'processing'
