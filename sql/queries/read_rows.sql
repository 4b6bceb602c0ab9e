-- How a source's rows become text, and the current columns and owners of those that exist, in one snapshot.
-- $1 content_type: text, $2 content_ids: text[]
SELECT s.content_type, s.labels, s.template, s.chunking, s.chunk_characters, s.chunk_overlap, s.urgent_rows,
       rows.content_ids, rows.owners, rows.fields
FROM rowvec.source s
CROSS JOIN LATERAL (
    SELECT array_agg(r.content_id) AS content_ids, array_agg(r.owner) AS owners, array_agg(r.fields) AS fields
    FROM rowvec.read_rows(s.content_type, $2::text[]) AS r
) AS rows
WHERE s.content_type = $1::text
