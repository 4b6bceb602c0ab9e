-- The item that came last; NULL when none waits.
SELECT max(id) AS id FROM rowvec.embedding_queue
