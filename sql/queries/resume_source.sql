-- Watches a paused source again and makes up for what nobody saw; false when it is not paused.
-- $1 content_type: text
SELECT rowvec.resume($1::text) AS changed
