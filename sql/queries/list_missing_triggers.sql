-- Lists the triggers that are missing or disabled, of the sources that are not paused and have their view.
SELECT s.content_type, array_agg(missing) AS triggers
FROM rowvec.source s
CROSS JOIN LATERAL rowvec.missing_triggers(s) AS missing
WHERE s.paused_at IS NULL
  AND EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation)
  AND EXISTS (SELECT FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace
              WHERE n.nspname = 'rowvec' AND v.relname = 'rows_' || s.content_type)
GROUP BY s.content_type
ORDER BY s.content_type
