-- Takes a source's triggers away until it is resumed; false when it is paused already.
-- $1 content_type: text
SELECT rowvec.pause($1::text) AS changed
