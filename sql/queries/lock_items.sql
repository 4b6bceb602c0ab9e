-- Locks the items that this claim still holds; those of another token or locked by a writer are missing.
-- $1 ids: bigint[], $2 token: uuid
SELECT id, generation FROM rowvec.embedding_queue
WHERE id = ANY ($1::bigint[]) AND token = $2::uuid
FOR UPDATE SKIP LOCKED
