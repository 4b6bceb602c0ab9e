-- Takes rows back from a message that has died; what has been claimed out of it meanwhile is left alone. They are due here
-- now, and keep the message: it has been waited for, and what kept it from being delivered would keep the next one too.
-- $1 message_id: uuid, $2 content_types: text[], $3 content_ids: text[]
WITH left_behind AS MATERIALIZED (
    SELECT q.id
    FROM (SELECT DISTINCT * FROM unnest($2::text[], $3::text[]) AS g (content_type, content_id)) AS a
    CROSS JOIN LATERAL (
        SELECT id FROM rowvec.embedding_queue
        WHERE content_type = a.content_type AND content_id = a.content_id
          AND status = 'queued' AND message_id = $1::uuid AND scheduled_at > now()
        FOR UPDATE SKIP LOCKED
    ) AS q
)
UPDATE rowvec.embedding_queue
SET scheduled_at = now(), updated_at = now()
WHERE id = ANY (ARRAY(SELECT id FROM left_behind))
RETURNING model, lane, content_type
