-- Lists what a model lacks to be searched in the place of another, by source.
-- $1 name: text
SELECT content_type, backfilled, missing, failed
FROM rowvec.model_gaps($1::text)
WHERE NOT backfilled OR missing > 0
ORDER BY content_type
