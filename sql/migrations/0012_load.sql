-- migrate:up breaking:false
-- Which models a daemon has at the moment, and what they stand at: the heartbeat tells it for people.

ALTER TABLE rowvec.daemon ADD COLUMN load jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN rowvec.daemon.load IS
    'By model: breaker (closed, open, half-open), why, since, texts_per_second (last minute), requests_in_hand.';

-- As before, with the rights to tell it and to give a chunk its place.
CREATE OR REPLACE FUNCTION rowvec.missing_rights(role name) RETURNS TABLE (privilege text, object text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH tables (name, verbs, updated) AS (
        VALUES ('rowvec.schema_migration', ARRAY['SELECT'], NULL),
               ('rowvec.model', ARRAY['SELECT'], NULL),
               ('rowvec.unfilled', ARRAY['SELECT'], NULL),
               ('rowvec.source', ARRAY['SELECT'], ARRAY['updated_at']),
               ('rowvec.change', ARRAY['SELECT', 'DELETE'], NULL),
               ('rowvec.embedding_queue', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'], NULL),
               ('rowvec.daemon', ARRAY['SELECT', 'INSERT', 'DELETE'], ARRAY['beat_at', 'models', 'resting', 'load']),
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
