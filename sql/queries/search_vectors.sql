-- The rows nearest to an embedding.
-- $1 query: text, $2 embedding: vector, $3 owner: text, $4 content_types: text[], $5 model: text, $6 limit: integer
SELECT content_type, content_id, chunk_index, chunk_text, score
FROM rowvec.search($1::text, $2::{vector}, $3::text, $4::text[], $5::text, $6::integer)
