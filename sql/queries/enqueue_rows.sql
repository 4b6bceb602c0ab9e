-- Asks for rows to be embedded again, each with its priority or its source's own. Whoever asked is told so, therefore it
-- must be on the disk, unlike most of what daemons write.
-- $1 content_types: text[], $2 content_ids: text[], $3 priorities: integer[]
SELECT rowvec.enqueue(a.content_type, a.content_id, a.priority)
FROM set_config('synchronous_commit', 'on', true) AS durable
CROSS JOIN unnest($1::text[], $2::text[], $3::integer[]) AS a (content_type, content_id, priority)
