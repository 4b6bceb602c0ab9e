-- migrate:up breaking:false
-- What the role of a daemon may do: run the statements that keep vectors true, and nothing else.

-- Queues all rows of some sources once more, and has the vectors of others looked through. SECURITY DEFINER: a
-- backfill runs what stands in the source as the schema's owner, so a daemon's role must not be able to write it.
CREATE FUNCTION rowvec.reopen_sources(asked text[], emptied text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE rowvec.source s
    SET swept = s.swept AND NOT s.content_type = ANY (emptied),
        sweep_after = CASE WHEN s.content_type = ANY (emptied) THEN NULL ELSE s.sweep_after END
    WHERE s.content_type = ANY (asked || emptied);
    SELECT rowvec.restart_backfills(content_type, 'all') FROM unnest(asked) AS content_type
$$;

-- What a role lacks of the rights of a daemon: all that its statements need stands here. Rows are locked by some
-- statements that change none: that takes the right to update one column.
CREATE FUNCTION rowvec.missing_rights(role name) RETURNS TABLE (privilege text, object text)
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
        SELECT format('rowvec.%I', c.relname), ARRAY['SELECT', 'INSERT', 'DELETE'], ARRAY['chunk_index', 'owner']
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

-- Gives a role what it lacks of the rights of a daemon. Returns the statements for somebody with more rights, where
-- the caller may not give one: the database or pgvector's schema can be another's.
CREATE FUNCTION rowvec.grant_daemon_rights(role name) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
DECLARE
    missing record;
BEGIN
    FOR missing IN SELECT * FROM rowvec.missing_rights(role) LOOP
        BEGIN
            EXECUTE format('GRANT %s ON %s TO %I', missing.privilege, missing.object, role);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END LOOP;
    RETURN QUERY SELECT format('GRANT %s ON %s TO %I;', m.privilege, m.object, role) FROM rowvec.missing_rights(role) m;
END $$;

-- The roles that were given the rights of a daemon.
CREATE FUNCTION rowvec.daemon_roles() RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.rolname
    FROM pg_class c
    CROSS JOIN LATERAL aclexplode(c.relacl) AS given
    JOIN pg_roles r ON r.oid = given.grantee
    WHERE c.oid = 'rowvec.daemon'::regclass AND given.privilege_type = 'INSERT' AND given.grantee <> c.relowner
    ORDER BY r.rolname
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
