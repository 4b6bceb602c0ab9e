-- Gives chunks that stayed the same their new position and owner; their embedding and its index entry stay.
-- {table}: the model's table; $1 content_type: text, $2 content_ids: text[], $3 chunk_hashes: bytea[],
-- $4 repeats: integer[], $5 chunk_indexes: integer[], $6 chunk_steps: integer[], $7 owners: text[]
UPDATE {table} v
SET chunk_index = moved.chunk_index, chunk_step = moved.chunk_step, owner = moved.owner
FROM unnest($2::text[], $3::bytea[], $4::integer[], $5::integer[], $6::integer[], $7::text[])
    AS moved (content_id, chunk_hash, repeat, chunk_index, chunk_step, owner)
WHERE v.content_type = $1::text AND v.content_id = moved.content_id
  AND v.chunk_hash = moved.chunk_hash AND v.repeat = moved.repeat
