-- How a source's rows become text.
-- $1 content_type: text
SELECT content_type, labels, template, chunking, chunk_characters, chunk_overlap
FROM rowvec.source
WHERE content_type = $1::text
