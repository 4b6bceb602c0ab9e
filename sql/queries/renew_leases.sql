-- Prolongs the leases of the claims under way here, and gives back those of this daemon that no claim here knows
-- of any more (an answer that was lost, a row that a writer held at the wrong moment). Not the youngest of these:
-- a claim may have been made since the tokens were listed.
-- $1 daemon: uuid, $2 tokens: uuid[], $3 lease_seconds: double precision, $4 stray_seconds: double precision
WITH mine AS MATERIALIZED (
    SELECT id, token = ANY ($2::uuid[]) AS under_way
    FROM rowvec.embedding_queue
    WHERE status = 'processing' AND daemon = $1::uuid
      AND ((token <> ALL ($2::uuid[]) AND updated_at <= now() - make_interval(secs => $4::double precision))
           OR lease_expires_at < now() + make_interval(secs => $3::double precision / 2))
    FOR UPDATE SKIP LOCKED
),
renewed AS (
    UPDATE rowvec.embedding_queue
    SET lease_expires_at = now() + make_interval(secs => $3::double precision)
    WHERE id = ANY (ARRAY(SELECT id FROM mine WHERE under_way))
)
UPDATE rowvec.embedding_queue
SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL, updated_at = now(),
    message_id = CASE WHEN message_id IS NOT NULL THEN '00000000-0000-0000-0000-000000000000'::uuid END,
    scheduled_at = greatest(scheduled_at, now())
WHERE id = ANY (ARRAY(SELECT id FROM mine WHERE NOT under_way))
