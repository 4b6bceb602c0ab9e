-- Shows what has become of every source's table, columns, key and view.
SELECT s.content_type, s.paused_at,
       c.oid IS NOT NULL AS has_table,
       c.oid::regclass::text AS relation,
       ARRAY(
           SELECT used.name
           FROM (
               SELECT t.number, format('"%s"', s.labels[t.position]) AS name
               FROM unnest(s.text_columns) WITH ORDINALITY AS t (number, position)
               UNION ALL
               SELECT number, 'one of the key' FROM unnest(s.key_columns) AS number
               UNION ALL
               SELECT s.owner_column, 'that of the owner' WHERE s.owner_column IS NOT NULL
           ) AS used
           WHERE NOT EXISTS (SELECT FROM pg_attribute a
                             WHERE a.attrelid = s.relation AND a.attnum = used.number AND NOT a.attisdropped)
       ) AS lost_columns,
       EXISTS (SELECT FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace
               WHERE n.nspname = 'rowvec' AND v.relname = 'rows_' || s.content_type) AS has_view,
       EXISTS (
           SELECT FROM pg_index i
           CROSS JOIN LATERAL (SELECT ARRAY(SELECT unnest(i.indkey[0:i.indnkeyatts - 1])) AS columns) AS k
           WHERE i.indrelid = s.relation AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
             AND k.columns @> s.key_columns AND k.columns <@ s.key_columns
             AND NOT EXISTS (SELECT FROM pg_attribute a
                             WHERE a.attrelid = s.relation AND a.attnum = ANY (s.key_columns) AND NOT a.attnotnull)
       ) AS has_key
FROM rowvec.source s
LEFT JOIN pg_class c ON c.oid = s.relation
ORDER BY s.content_type
