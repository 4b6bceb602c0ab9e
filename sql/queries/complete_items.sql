-- Ends items whose stored vectors are those of their last change.
-- $1 ids: bigint[], $2 token: uuid
DELETE FROM rowvec.embedding_queue WHERE id = ANY ($1::bigint[]) AND token = $2::uuid
