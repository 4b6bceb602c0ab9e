-- Ends changes of whole types, whose sources the caller then reopens; leaves those whose items or source are locked.
WITH whole AS MATERIALIZED (
    SELECT id, content_type, kind FROM rowvec.change WHERE urgency = 0 ORDER BY id LIMIT 1000
),
leased AS MATERIALIZED (
    SELECT q.id, q.content_type
    FROM rowvec.embedding_queue q
    WHERE q.status = 'processing' AND q.content_type IN (SELECT content_type FROM whole WHERE kind = 'remove')
),
locked AS MATERIALIZED (
    SELECT id FROM rowvec.embedding_queue
    WHERE id = ANY (ARRAY(SELECT id FROM leased)) AND status = 'processing'
    FOR UPDATE SKIP LOCKED
),
free AS MATERIALIZED (
    -- A watch may hold its source for as long as it waits for the table.
    SELECT s.content_type FROM rowvec.source s
    WHERE s.content_type IN (SELECT content_type FROM whole)
      AND s.content_type NOT IN (SELECT content_type FROM leased WHERE id NOT IN (SELECT id FROM locked))
    FOR UPDATE SKIP LOCKED
),
removed AS MATERIALIZED (
    SELECT DISTINCT content_type FROM whole JOIN free USING (content_type) WHERE kind = 'remove'
),
voided AS (
    -- Above READ COMMITTED the trigger could not do it.
    UPDATE rowvec.embedding_queue
    SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL,
        generation = nextval('rowvec.generation'), updated_at = now()
    WHERE id = ANY (ARRAY(SELECT id FROM locked)) AND content_type IN (SELECT content_type FROM removed)
)
DELETE FROM rowvec.change
WHERE urgency = 0 AND id = ANY (ARRAY(
    SELECT id FROM whole w
    WHERE w.content_type IN (SELECT content_type FROM free)
       OR NOT EXISTS (SELECT FROM rowvec.source s WHERE s.content_type = w.content_type)))
RETURNING content_type, kind
