-- Vectors that the model holds already for these chunks, in any row.
-- {table}: the model's table; $1 chunk_hashes: bytea[], $2 provider_revision: text, $3 prefix: text
SELECT wanted.chunk_hash, held.embedding
FROM unnest($1::bytea[]) AS wanted (chunk_hash)
CROSS JOIN LATERAL (
    SELECT embedding FROM {table} v
    WHERE v.chunk_hash = wanted.chunk_hash AND v.provider_revision = $2::text AND v.prefix = $3::text
    LIMIT 1
) AS held
