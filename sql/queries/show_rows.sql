-- Shows how rows stand: whether they are watched, what their items are at, whether a model holds vectors of them, and
-- whether a change of theirs is among the newest that wait to be folded.
-- $1 content_types: text[], $2 content_ids: text[]
WITH newest AS MATERIALIZED (
    SELECT c.content_type, c.content_id
    FROM (VALUES (1), (2), (3)) AS u (urgency)
    CROSS JOIN LATERAL (
        SELECT content_type, content_id FROM rowvec.change WHERE urgency = u.urgency ORDER BY id DESC LIMIT 1000
    ) AS c
    WHERE c.content_id IS NOT NULL
)
SELECT a.content_type, a.content_id,
       EXISTS (SELECT FROM rowvec.source s WHERE s.content_type = a.content_type) AS watched,
       ARRAY(SELECT q.status FROM rowvec.embedding_queue q
             WHERE q.content_type = a.content_type AND q.content_id = a.content_id) AS statuses,
       EXISTS (SELECT FROM rowvec.vector v
               WHERE v.content_type = a.content_type AND v.content_id = a.content_id) AS stored,
       (a.content_type, a.content_id) IN (SELECT content_type, content_id FROM newest) AS unfolded
FROM unnest($1::text[], $2::text[]) AS a (content_type, content_id)
