-- Turns the oldest changes, removals and immediate ones first, into items of every active model; leaves those
-- whose items are locked.
-- $1 floors: bigint[], $2 batch: integer
WITH removals AS MATERIALIZED (
    SELECT * FROM rowvec.change WHERE urgency = 1 AND id >= ($1::bigint[])[1] ORDER BY id LIMIT $2::integer
),
immediate AS MATERIALIZED (
    SELECT * FROM rowvec.change WHERE urgency = 2 AND id >= ($1::bigint[])[2] ORDER BY id LIMIT $2::integer
),
others AS MATERIALIZED (
    SELECT * FROM rowvec.change WHERE urgency = 3 AND id >= ($1::bigint[])[3] ORDER BY id LIMIT $2::integer
),
taken AS MATERIALIZED (
    SELECT * FROM removals UNION ALL SELECT * FROM immediate UNION ALL SELECT * FROM others
),
keyed AS MATERIALIZED (
    -- A key twice in one upsert is an error. Changes of a source that is no longer watched end here, and so do keys
    -- that no index of ours can hold.
    SELECT t.content_type, t.content_id, min(t.priority) AS priority, bool_or(t.kind = 'remove') AS removed,
           -- NULL: all models. A backfill asks for one.
           CASE WHEN NOT bool_or(t.model IS NULL) THEN array_agg(t.model) END AS models,
           -- Never before now: claims look only a minute back.
           min(greatest(t.due_at, now())) AS due_at
    FROM taken t
    WHERE octet_length(t.content_id) <= 1000
      AND EXISTS (SELECT FROM rowvec.source s WHERE s.content_type = t.content_type)
    GROUP BY t.content_type, t.content_id
),
visible AS MATERIALIZED (
    SELECT k.content_type, k.content_id, q.id
    FROM keyed k
    CROSS JOIN LATERAL (
        SELECT id FROM rowvec.embedding_queue
        WHERE content_type = k.content_type AND content_id = k.content_id
        OFFSET 0
    ) AS q
),
locked AS MATERIALIZED (
    -- An upsert that waited for a row would deadlock with a deleting writer, and the writer would die.
    SELECT q.id
    FROM keyed k
    CROSS JOIN LATERAL (
        SELECT id FROM rowvec.embedding_queue
        WHERE content_type = k.content_type AND content_id = k.content_id
        FOR UPDATE SKIP LOCKED
    ) AS q
),
blocked AS MATERIALIZED (
    SELECT DISTINCT v.content_type, v.content_id
    FROM visible v
    WHERE v.id NOT IN (SELECT id FROM locked)
),
free AS MATERIALIZED (
    SELECT * FROM keyed
    WHERE (content_type, content_id) NOT IN (SELECT content_type, content_id FROM blocked)
),
upserted AS (
    INSERT INTO rowvec.embedding_queue AS q (content_type, content_id, model, priority, generation, scheduled_at)
    SELECT f.content_type, f.content_id, m.name, f.priority, nextval('rowvec.generation'), f.due_at
    FROM free f
    CROSS JOIN rowvec.model m
    WHERE m.active AND (f.models IS NULL OR m.name = ANY (f.models))
    ON CONFLICT (content_type, content_id, model) DO UPDATE SET
        -- Not EXCLUDED's: that number was drawn before the row was locked and can be the older one.
        generation = nextval('rowvec.generation'),
        status = CASE q.status WHEN 'processing' THEN 'processing' ELSE 'queued' END,
        priority = least(q.priority, excluded.priority),
        retry_count = 0,
        error_message = NULL,
        error_detail = NULL,
        -- What is dispatched keeps its deadline: its message brings the new text as well. Unless it can't wait.
        scheduled_at = CASE WHEN q.status = 'failed' THEN excluded.scheduled_at
                            WHEN q.status = 'queued' AND q.message_id IS NOT NULL AND excluded.priority > 2
                                THEN q.scheduled_at
                            ELSE least(q.scheduled_at, excluded.scheduled_at) END,
        message_id = CASE WHEN excluded.priority > 2 THEN q.message_id END,
        -- The age of a claim is that of its lease, however often its row changes meanwhile.
        updated_at = CASE WHEN q.status = 'processing' THEN q.updated_at ELSE now() END
    RETURNING q.model, q.lane, q.content_type
),
deleted AS (
    DELETE FROM rowvec.change
    WHERE (urgency, id) IN (
        SELECT urgency, id FROM taken
        WHERE (content_type, content_id) NOT IN (SELECT content_type, content_id FROM blocked))
    RETURNING id
),
slots AS MATERIALIZED (
    SELECT DISTINCT u.model, u.lane, u.content_type
    FROM upserted u JOIN rowvec.source s ON s.content_type = u.content_type AND s.paused_at IS NULL
),
removed AS MATERIALIZED (
    SELECT content_type, content_id FROM free WHERE removed
)
SELECT EXISTS (SELECT FROM taken) AS looked,
       ARRAY[coalesce((SELECT max(id) + 1 FROM removals), ($1::bigint[])[1]),
             coalesce((SELECT max(id) + 1 FROM immediate), ($1::bigint[])[2]),
             coalesce((SELECT max(id) + 1 FROM others), ($1::bigint[])[3])] AS floors,
       (SELECT count(*) FROM deleted) AS folded,
       ARRAY(SELECT content_type || ' ' || left(content_id, 40) FROM taken WHERE octet_length(content_id) > 1000)
           AS refused,
       ARRAY(SELECT content_type FROM removed ORDER BY content_type, content_id) AS removed_types,
       ARRAY(SELECT content_id FROM removed ORDER BY content_type, content_id) AS removed_ids,
       ARRAY(SELECT model FROM slots ORDER BY model, lane, content_type) AS models,
       ARRAY(SELECT lane FROM slots ORDER BY model, lane, content_type) AS lanes,
       ARRAY(SELECT content_type FROM slots ORDER BY model, lane, content_type) AS content_types
