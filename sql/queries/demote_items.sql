-- Gives leases back as bulk, without counting an attempt: their owner has had its share of an urgent lane.
-- $1 ids: bigint[], $2 token: uuid
UPDATE rowvec.embedding_queue
SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL, message_id = NULL, updated_at = now(),
    priority = greatest(priority, 5)
WHERE id = ANY (ARRAY(
    SELECT id FROM rowvec.embedding_queue WHERE id = ANY ($1::bigint[]) AND token = $2::uuid
    FOR UPDATE SKIP LOCKED))
