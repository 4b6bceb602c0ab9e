-- About how many rows each source has; NULL where it can't be read.
-- $1 content_types: text[]
SELECT s.content_type, rowvec.estimate_rows(s) AS rows
FROM rowvec.source s
WHERE s.content_type = ANY ($1::text[])
ORDER BY s.content_type
