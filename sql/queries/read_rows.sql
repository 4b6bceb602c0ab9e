-- The current text and owner of rows; rows that are gone are missing.
-- $1 content_type: text, $2 content_ids: text[]
SELECT content_id, owner, fields FROM rowvec.read_rows($1::text, $2::text[])
