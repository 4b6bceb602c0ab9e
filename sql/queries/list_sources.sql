-- What is watched, with today's names of table and columns. Our own source of texts queued by hand is no news before there
-- is one.
SELECT s.content_type, s.relation::text AS relation, s.labels, s.template, s.priority, s.urgent_rows, s.notify,
       s.chunking, s.chunk_characters, s.chunk_overlap, s.condition, s.text_function::text AS text_function,
       s.depends_on::text AS depends_on, s.trigger_name, s.function_name, s.paused_at IS NOT NULL AS paused,
       s.swept AND NOT EXISTS (SELECT FROM rowvec.unfilled u WHERE u.content_type = s.content_type) AS backfilled,
       rowvec.column_names(s.relation, s.key_columns) AS key,
       rowvec.column_name(s.relation, s.owner_column) AS owner
FROM rowvec.source s
WHERE s.relation <> 'rowvec.document'::regclass OR EXISTS (SELECT FROM rowvec.document)
ORDER BY s.content_type
