-- Lists the tables of models: about how many vectors they have, their sizes, and their HNSW indexes with state and
-- parameters. Vectors are estimated as the planner does, by how many a page had when ANALYZE or VACUUM was there; before
-- that, by what was written. (Never by both: a session tells the statistics late, and ANALYZE can have counted its rows.) A
-- build that is under way holds a lock for its model, which every role sees; how far it is, not every one.
-- A table that a drop has hold of is waited for, and left out when it is gone.
SELECT m.name, pg_has_role(c.relowner, 'USAGE') AS owned,
       coalesce(nullif(greatest(c.reltuples, 0), 0) / nullif(c.relpages, 0) * pg_relation_size(c.oid)
                    / current_setting('block_size')::integer, pg_stat_get_live_tuples(c.oid))::bigint AS vectors,
       pg_table_size(c.oid) AS table_bytes, pg_indexes_size(c.oid) AS indexes_bytes,
       CASE WHEN h.oid IS NULL THEN 'none' WHEN h.indisvalid THEN 'ready' WHEN h.held THEN 'building' ELSE 'invalid' END
           AS index_state,
       h.relname::text AS index_name, coalesce(pg_relation_size(h.oid), 0) AS index_bytes, h.m, h.ef_construction,
       (SELECT p.blocks_done::double precision / nullif(p.blocks_total, 0)
        FROM pg_stat_progress_create_index p WHERE p.index_relid = h.oid AND p.phase LIKE 'building index%') AS built
FROM rowvec.model m
JOIN pg_class c ON c.relnamespace = 'rowvec'::regnamespace AND c.relname = 'vector_' || m.name
LEFT JOIN LATERAL (
    SELECT x.oid, x.relname, i.indisvalid,
           coalesce((SELECT o.option_value FROM pg_options_to_table(x.reloptions) o WHERE o.option_name = 'm'), '16')::integer
               AS m,
           coalesce((SELECT o.option_value FROM pg_options_to_table(x.reloptions) o WHERE o.option_name = 'ef_construction'),
                    '64')::integer AS ef_construction,
           EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = x.oid)
           OR EXISTS (
               SELECT FROM pg_locks l
               WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = 1919907703
                 AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                 AND l.objid = (hashtext(m.name)::bigint & 4294967295)::oid) AS held
    FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_am a ON a.oid = x.relam AND a.amname = 'hnsw'
    WHERE i.indrelid = c.oid AND (i.indisvalid OR x.relname = 'vector_' || m.name || '_hnsw')
    ORDER BY i.indisvalid DESC, x.relname
    LIMIT 1
) AS h ON true
WHERE pg_relation_size(to_regclass(format('rowvec.%I', 'vector_' || m.name))) IS NOT NULL
ORDER BY m.name
