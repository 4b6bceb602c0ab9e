-- Locks the vectors of rows and shows them; `locked` is false where another transaction is changing one.
-- {table}: a model's table, or the parent of all; $1 content_types: text[], $2 content_ids: text[]
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[]) AS g (content_type, content_id)
),
visible AS MATERIALIZED (
    SELECT v.*
    FROM given g
    CROSS JOIN LATERAL (
        SELECT content_type, content_id, chunk_hash, repeat, chunk_index, chunk_step, heading, owner,
               provider_revision, prefix, tableoid, ctid
        FROM {table}
        WHERE content_type = g.content_type AND content_id = g.content_id
        OFFSET 0
    ) AS v
),
locked AS MATERIALIZED (
    SELECT v.*
    FROM given g
    CROSS JOIN LATERAL (
        SELECT tableoid, ctid
        FROM {table}
        WHERE content_type = g.content_type AND content_id = g.content_id
        FOR UPDATE SKIP LOCKED
    ) AS v
)
SELECT content_type, content_id, chunk_hash, repeat, chunk_index, chunk_step, heading, owner, provider_revision, prefix,
       (tableoid, ctid) IN (SELECT tableoid, ctid FROM locked) AS locked
FROM visible
