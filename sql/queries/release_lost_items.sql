-- Gives back the leases of daemons whose heartbeat is older than 3 s and those past their own deadline.
WITH lost AS MATERIALIZED (
    SELECT q.id
    FROM rowvec.embedding_queue q
    WHERE q.status = 'processing'
      AND (q.lease_expires_at < now()
           OR q.daemon <> ALL (ARRAY(SELECT d.id FROM rowvec.daemon d WHERE d.beat_at > now() - interval '3 s')))
    LIMIT 5000
    FOR UPDATE SKIP LOCKED
)
UPDATE rowvec.embedding_queue q
SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL, updated_at = now(),
    message_id = CASE WHEN message_id IS NOT NULL THEN '00000000-0000-0000-0000-000000000000'::uuid END,
    scheduled_at = greatest(q.scheduled_at, now())
WHERE q.id = ANY (ARRAY(SELECT id FROM lost))
RETURNING q.id
