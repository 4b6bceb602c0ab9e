-- What is watched, with today's names of table and columns.
SELECT s.content_type, s.relation::text AS relation, s.labels, s.template, s.priority, s.notify,
       s.chunking, s.chunk_characters, s.chunk_overlap, s.backfilled,
       rowvec.column_name(s.relation, s.key_columns[1]) AS key,
       rowvec.column_name(s.relation, s.owner_column) AS owner
FROM rowvec.source s
ORDER BY s.content_type
