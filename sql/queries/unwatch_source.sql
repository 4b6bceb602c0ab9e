-- Ends a watch and removes its items and vectors.
-- $1 content_type: text
SELECT rowvec.unwatch($1::text)
