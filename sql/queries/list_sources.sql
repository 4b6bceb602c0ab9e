-- What is watched, with today's names of table and columns.
SELECT s.content_type, s.relation::text AS relation, s.labels, s.template, s.priority, s.urgent_rows, s.notify,
       s.chunking, s.chunk_characters, s.chunk_overlap, s.condition, s.text_function::text AS text_function,
       s.depends_on::text AS depends_on, s.backfilled AND s.swept AS backfilled, s.paused_at IS NOT NULL AS paused,
       rowvec.column_names(s.relation, s.key_columns) AS key,
       rowvec.column_name(s.relation, s.owner_column) AS owner
FROM rowvec.source s
ORDER BY s.content_type
