-- Which lanes of which models and sources, paused ones aside, hold due items, and since when. A scalar subquery each, so
-- that the planner can't turn it into a scan of the whole queue.
-- $1 models: text[], $2 since: timestamptz
SELECT slot.model, slot.lane, slot.content_type, slot.due_at
FROM (
    SELECT m.name AS model, l.lane, s.content_type, (
        SELECT q.scheduled_at FROM rowvec.embedding_queue q
        WHERE q.status = 'queued' AND q.model = m.name AND q.lane = l.lane AND q.content_type = s.content_type
          AND q.scheduled_at >= $2::timestamptz AND q.scheduled_at <= now()
        ORDER BY q.scheduled_at
        LIMIT 1
    ) AS due_at
    FROM unnest($1::text[]) AS m (name)
    CROSS JOIN unnest(ARRAY['immediate', 'standard', 'bulk']) AS l (lane)
    CROSS JOIN rowvec.source s
    WHERE s.paused_at IS NULL
    OFFSET 0
) AS slot
WHERE slot.due_at IS NOT NULL
