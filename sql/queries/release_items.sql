-- Gives leases back without counting an attempt: the row changed meanwhile, or the work did not begin. What a message has
-- brought is done here next time, and so it is marked: whatever stood in the way would only meet the next message too.
-- $1 ids: bigint[], $2 token: uuid, $3 delay_seconds: double precision
UPDATE rowvec.embedding_queue
SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL, updated_at = now(),
    message_id = CASE WHEN message_id IS NOT NULL THEN '00000000-0000-0000-0000-000000000000'::uuid END,
    scheduled_at = greatest(scheduled_at, now() + make_interval(secs => $3::double precision))
WHERE id = ANY (ARRAY(
    SELECT id FROM rowvec.embedding_queue WHERE id = ANY ($1::bigint[]) AND token = $2::uuid
    FOR UPDATE SKIP LOCKED))
