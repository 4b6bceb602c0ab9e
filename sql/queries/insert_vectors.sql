-- Stores new chunks with their embeddings.
-- {table}: the model's table; $1 content_type: text, $2 provider_revision: text, $3 prefix: text,
-- $4 content_ids: text[], $5 chunk_indexes: integer[], $6 chunk_steps: integer[], $7 headings: text[],
-- $8 chunk_texts: text[], $9 chunk_hashes: bytea[], $10 repeats: integer[], $11 owners: text[], $12 embeddings: vector[]
INSERT INTO {table} (content_type, content_id, chunk_index, chunk_step, heading, chunk_text, chunk_hash, repeat, owner,
                     provider_revision, prefix, embedding)
SELECT $1::text, n.content_id, n.chunk_index, n.chunk_step, n.heading, n.chunk_text, n.chunk_hash, n.repeat, n.owner,
       $2::text, $3::text, n.embedding
FROM unnest($4::text[], $5::integer[], $6::integer[], $7::text[], $8::text[], $9::bytea[], $10::integer[], $11::text[],
            $12::{vector}[])
    AS n (content_id, chunk_index, chunk_step, heading, chunk_text, chunk_hash, repeat, owner, embedding)
