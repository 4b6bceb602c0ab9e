-- Removes all vectors of rows.
-- {table}: a model's table, or the parent of all; $1 content_types: text[], $2 content_ids: text[]
DELETE FROM {table} v
USING unnest($1::text[], $2::text[]) AS gone (content_type, content_id)
WHERE v.content_type = gone.content_type AND v.content_id = gone.content_id
