-- What has been collected of a lane, paused sources aside: for how long the oldest has been due, how many wait in the
-- fullest slot, and whether a message has left something undone. A scalar subquery each, as in probe_items.
-- $1 lane: text, $2 models: text[], $3 enough: integer
SELECT coalesce(extract(epoch FROM now() - min(slot.due_at)), 0)::double precision AS oldest_seconds,
       coalesce(max(slot.waiting), 0) AS waiting,
       EXISTS (
           SELECT FROM rowvec.embedding_queue q
           WHERE q.status = 'queued' AND q.message_id IS NOT NULL AND q.scheduled_at <= now() AND q.lane = $1::text
             AND q.message_id <> '00000000-0000-0000-0000-000000000000'::uuid AND q.model = ANY ($2::text[])
             AND EXISTS (SELECT FROM rowvec.source s WHERE s.content_type = q.content_type AND s.paused_at IS NULL)
       ) AS overdue
FROM (
    SELECT (
        SELECT q.scheduled_at FROM rowvec.embedding_queue q
        WHERE q.status = 'queued' AND q.model = m.name AND q.lane = $1::text AND q.content_type = s.content_type
          AND q.scheduled_at <= now()
        ORDER BY q.scheduled_at
        LIMIT 1
    ) AS due_at, (
        SELECT count(*) FROM (
            SELECT FROM rowvec.embedding_queue q
            WHERE q.status = 'queued' AND q.model = m.name AND q.lane = $1::text AND q.content_type = s.content_type
              AND q.scheduled_at <= now()
            ORDER BY q.scheduled_at
            LIMIT $3::integer
        ) AS first
    ) AS waiting
    FROM unnest($2::text[]) AS m (name)
    CROSS JOIN rowvec.source s
    WHERE s.paused_at IS NULL
    OFFSET 0
) AS slot
