-- Lists the chunks that a model holds for rows, each by its hash and how many times it stood in its row before.
-- {table}: the model's table; $1 content_types: text[], $2 content_ids: text[]
SELECT a.content_type, a.content_id, v.chunk_hash, v.repeat
FROM unnest($1::text[], $2::text[]) AS a (content_type, content_id)
CROSS JOIN LATERAL (
    SELECT chunk_hash, repeat FROM {table}
    WHERE content_type = a.content_type AND content_id = a.content_id
    OFFSET 0
) AS v
