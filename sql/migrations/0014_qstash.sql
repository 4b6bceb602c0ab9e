-- migrate:up breaking:false
-- QStash carries ids of items; the items stay here, due at the time at which the daemons take them back.

ALTER TABLE rowvec.embedding_queue ADD COLUMN message_id uuid;
COMMENT ON COLUMN rowvec.embedding_queue.message_id IS
    'The message that carries it, by a name of ours: queued with one, it goes into no other, and is due here at its '
    'deadline. All zeros: a message has brought it, and it came back undone.';
CREATE INDEX embedding_queue_dispatched ON rowvec.embedding_queue (scheduled_at)
    WHERE status = 'queued' AND message_id IS NOT NULL;

ALTER TABLE rowvec.daemon ADD COLUMN carrier jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN rowvec.daemon.carrier IS
    'Which way the work goes: strategy, state of the circuit (closed, open, half-open), why, since.';

CREATE TABLE rowvec.task (
    name text PRIMARY KEY,
    ran_at timestamptz NOT NULL,
    daemon uuid
);
COMMENT ON TABLE rowvec.task IS 'When the tasks of all daemons together were last begun, each by one of them.';
COMMENT ON COLUMN rowvec.task.daemon IS 'Who is at it; NULL when it is done.';

CREATE TABLE rowvec.sent (
    day date PRIMARY KEY,
    messages bigint NOT NULL DEFAULT 0,
    items bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE rowvec.sent IS 'How many messages were sent to QStash on a day (UTC), and how many items were dispatched with them.';

-- As before, with what is new here.
CREATE OR REPLACE FUNCTION rowvec.missing_rights(role name) RETURNS TABLE (privilege text, object text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH tables (name, verbs, updated) AS (
        VALUES ('rowvec.schema_migration', ARRAY['SELECT'], NULL),
               ('rowvec.model', ARRAY['SELECT'], NULL),
               ('rowvec.unfilled', ARRAY['SELECT'], NULL),
               ('rowvec.source', ARRAY['SELECT'], ARRAY['updated_at']),
               ('rowvec.change', ARRAY['SELECT', 'DELETE'], NULL),
               ('rowvec.embedding_queue', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'], NULL),
               ('rowvec.daemon', ARRAY['SELECT', 'INSERT', 'DELETE'],
                ARRAY['beat_at', 'models', 'resting', 'load', 'carrier']),
               ('rowvec.task', ARRAY['SELECT', 'INSERT'], ARRAY['ran_at', 'daemon']),
               ('rowvec.sent', ARRAY['SELECT', 'INSERT', 'DELETE'], ARRAY['messages', 'items']),
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
          AND p.proname IN ('read_rows', 'append_backfill', 'reopen_sources', 'activate_model', 'missing_rights',
                            'enqueue')
    )
    SELECT r.privilege, r.object FROM rights r WHERE NOT r.held ORDER BY r.object, r.privilege
$$;

-- As before, but a text key may be empty: what was queued by its trigger can be asked for too.
CREATE OR REPLACE FUNCTION rowvec.enqueue(
    content_type text, content_id text, priority integer DEFAULT NULL, at timestamptz DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found rowvec.source;
BEGIN
    SELECT * INTO found FROM rowvec.source s WHERE s.content_type = enqueue.content_type;
    IF found.content_type IS NULL THEN
        RAISE EXCEPTION 'No source is watched as "%".', content_type
            USING ERRCODE = 'RV001', HINT = 'See `rowvec sources`, or watch the table first.';
    END IF;
    IF content_id IS NULL OR octet_length(content_id) > 1000 THEN
        RAISE EXCEPTION 'The content id must not be NULL, and have at most 1,000 bytes.'
            USING ERRCODE = 'RV001';
    END IF;
    IF priority NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'The priority must be 1 to 100, not %.', priority USING ERRCODE = 'RV001';
    END IF;
    PERFORM rowvec.append_changes_v1(
        content_type, ARRAY[rowvec.canonical_id(found, content_id)], coalesce(priority, found.priority)::smallint,
        'write', found.notify, found.urgent_rows, at);
END $$;
