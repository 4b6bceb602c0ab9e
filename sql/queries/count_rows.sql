-- How many rows wait, by lane, whatever the number of models, and how many of them could be worked on here at once. One
-- pass over the queue.
SELECT CASE WHEN r.priority <= 2 THEN 'immediate' WHEN r.priority <= 4 THEN 'standard' ELSE 'bulk' END AS lane,
       count(*) AS queued,
       count(*) FILTER (WHERE r.due) AS due
FROM (
    SELECT w.content_type, w.content_id, min(w.priority) AS priority, bool_or(w.due) AS due
    FROM (
        SELECT content_type, content_id, priority, scheduled_at <= statement_timestamp() AS due
        FROM rowvec.embedding_queue WHERE status = 'queued'
        UNION ALL
        SELECT content_type, content_id, priority, coalesce(due_at <= statement_timestamp(), true)
        FROM rowvec.change WHERE content_id IS NOT NULL
    ) AS w
    GROUP BY w.content_type, w.content_id
) AS r
GROUP BY 1
