-- Finds the id of some row of a source, if one is known.
-- $1 content_type: text
SELECT coalesce(
    (SELECT v.content_id FROM rowvec.vector v WHERE v.content_type = $1::text LIMIT 1),
    (SELECT q.content_id FROM rowvec.embedding_queue q WHERE q.content_type = $1::text LIMIT 1)) AS content_id
