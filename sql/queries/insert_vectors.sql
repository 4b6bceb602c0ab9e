-- Stores new chunks with their embeddings.
-- {table}: the model's table; $1 content_type: text, $2 provider_revision: text, $3 prefix: text,
-- $4 content_ids: text[], $5 chunk_indexes: integer[], $6 chunk_texts: text[], $7 chunk_hashes: bytea[],
-- $8 repeats: integer[], $9 owners: text[], $10 embeddings: vector[]
INSERT INTO {table} (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat, owner,
                     provider_revision, prefix, embedding)
SELECT $1::text, n.content_id, n.chunk_index, n.chunk_text, n.chunk_hash, n.repeat, n.owner,
       $2::text, $3::text, n.embedding
FROM unnest($4::text[], $5::integer[], $6::text[], $7::bytea[], $8::integer[], $9::text[], $10::{vector}[])
    AS n (content_id, chunk_index, chunk_text, chunk_hash, repeat, owner, embedding)
