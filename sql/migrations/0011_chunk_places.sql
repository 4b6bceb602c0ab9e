-- migrate:up breaking:false
-- Where a chunk stands in its row's text, and under which headings. Neither is in an index, and both are metadata alone for
-- the vectors that are there: no table is rewritten.

-- The place is kept as the way to the next chunk, or each edit would move all chunks behind it: with 200 of them that
-- made a store five times slower and wrote eight times as much.
ALTER TABLE rowvec.vector ADD COLUMN chunk_step integer, ADD COLUMN heading text NOT NULL DEFAULT '';
COMMENT ON COLUMN rowvec.vector.chunk_step IS
    'How many characters after this chunk the next one of its row begins; of the last one, its length. NULL: not known.';
COMMENT ON COLUMN rowvec.vector.heading IS
    'The title and headings that the chunk stands under: the model was given them, an empty line and chunk_text.';

-- The chunks of all models, and where in its row's text each begins, in characters from 0. That is NULL where a chunk in
-- front was stored before places were kept: until the row is embedded again.
CREATE VIEW rowvec.chunk AS
SELECT substr(c.relname, length('vector_') + 1) AS model, v.content_type, v.content_id, v.chunk_index,
       CASE WHEN count(v.chunk_step) OVER ahead = count(*) OVER ahead
            THEN coalesce(sum(v.chunk_step) OVER ahead, 0)::integer END AS chunk_start,
       v.heading, v.chunk_text, v.owner
FROM rowvec.vector v
JOIN pg_class c ON c.oid = v.tableoid
WINDOW ahead AS (PARTITION BY v.tableoid, v.content_type, v.content_id ORDER BY v.chunk_index
                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);

-- What a role lacks of the rights of a daemon: all that its statements need stands here. Rows are locked by some
-- statements that change none: that takes the right to update one column.
CREATE OR REPLACE FUNCTION rowvec.missing_rights(role name) RETURNS TABLE (privilege text, object text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH tables (name, verbs, updated) AS (
        VALUES ('rowvec.schema_migration', ARRAY['SELECT'], NULL),
               ('rowvec.model', ARRAY['SELECT'], NULL),
               ('rowvec.unfilled', ARRAY['SELECT'], NULL),
               ('rowvec.source', ARRAY['SELECT'], ARRAY['updated_at']),
               ('rowvec.change', ARRAY['SELECT', 'DELETE'], NULL),
               ('rowvec.embedding_queue', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'], NULL),
               ('rowvec.daemon', ARRAY['SELECT', 'INSERT', 'DELETE'], ARRAY['beat_at', 'resting']),
               ('rowvec.vector', ARRAY['SELECT', 'DELETE'], ARRAY['updated_at'])
        UNION ALL
        SELECT format('rowvec.%I', c.relname), ARRAY['SELECT', 'INSERT', 'DELETE'],
               ARRAY['chunk_index', 'chunk_step', 'owner']
        FROM rowvec.model m
        JOIN pg_class c ON c.relname = 'vector_' || m.name AND c.relnamespace = 'rowvec'::regnamespace
    ),
    rights (privilege, object, held) AS (
        SELECT 'CONNECT', format('DATABASE %I', current_database()),
               has_database_privilege(role, current_database(), 'CONNECT')
        UNION ALL
        SELECT 'USAGE', format('SCHEMA %I', n.nspname), has_schema_privilege(role, n.oid, 'USAGE')
        FROM pg_namespace n
        WHERE n.nspname = 'rowvec' OR n.oid IN (SELECT e.extnamespace FROM pg_extension e WHERE e.extname = 'vector')
        UNION ALL
        SELECT verb, 'TABLE ' || t.name, has_table_privilege(role, t.name, verb)
        FROM tables t CROSS JOIN unnest(t.verbs) AS verb
        UNION ALL
        SELECT format('UPDATE (%s)', written), 'TABLE ' || t.name, has_column_privilege(role, t.name, written, 'UPDATE')
        FROM tables t CROSS JOIN unnest(t.updated) AS written
        UNION ALL
        SELECT s.verb, 'SEQUENCE ' || s.name, has_sequence_privilege(role, s.name, s.verb)
        FROM (VALUES ('rowvec.generation', 'USAGE'), ('rowvec.awake_until', 'UPDATE')) AS s (name, verb)
        UNION ALL
        SELECT 'EXECUTE', 'FUNCTION ' || p.oid::regprocedure, has_function_privilege(role, p.oid, 'EXECUTE')
        FROM pg_proc p
        WHERE p.pronamespace = 'rowvec'::regnamespace
          AND p.proname IN ('read_rows', 'append_backfill', 'reopen_sources', 'activate_model', 'missing_rights')
    )
    SELECT r.privilege, r.object FROM rights r WHERE NOT r.held ORDER BY r.object, r.privilege
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
