-- Lists the subscriptions that write into watched tables, their partitions and heirs, or what a text depends on.
WITH RECURSIVE watched (content_type, relation) AS (
    (
        SELECT s.content_type, s.relation::oid FROM rowvec.source s
        UNION ALL
        SELECT s.content_type, to_regclass(d.dependency ->> 'table')::oid
        FROM rowvec.source s CROSS JOIN jsonb_array_elements(s.depends_on) AS d (dependency)
    )
    UNION
    SELECT w.content_type, i.inhrelid FROM watched w JOIN pg_inherits i ON i.inhparent = w.relation
)
SELECT s.subname::text AS subscription, w.content_type,
       string_agg(DISTINCT r.srrelid::regclass::text, ', ') AS relations
FROM pg_subscription_rel r
JOIN pg_subscription s ON s.oid = r.srsubid
JOIN watched w ON w.relation = r.srrelid
GROUP BY s.subname, w.content_type
ORDER BY s.subname, w.content_type
