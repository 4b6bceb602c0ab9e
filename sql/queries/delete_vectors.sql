-- Removes chunks that are no longer part of their rows.
-- {table}: the model's table; $1 content_type: text, $2 content_ids: text[], $3 chunk_hashes: bytea[],
-- $4 repeats: integer[]
DELETE FROM {table} v
USING unnest($2::text[], $3::bytea[], $4::integer[]) AS gone (content_id, chunk_hash, repeat)
WHERE v.content_type = $1::text AND v.content_id = gone.content_id
  AND v.chunk_hash = gone.chunk_hash AND v.repeat = gone.repeat
