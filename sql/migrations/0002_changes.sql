-- migrate:up breaking:false
-- What triggers call. Versioned: trigger bodies stay as they are when these improve.

-- Appends one change a key and wakes a daemon if all of them sleep.
CREATE FUNCTION rowvec.append_changes_v1(
    content_type text, content_ids text[], priority smallint, kind text, wake boolean, due_at timestamptz DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(content_ids) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO rowvec.change (content_type, content_id, priority, kind, due_at)
    SELECT append_changes_v1.content_type, given.content_id, append_changes_v1.priority,
           append_changes_v1.kind, append_changes_v1.due_at
    FROM unnest(content_ids) AS given (content_id);
    -- NOTIFY takes a database-wide lock at commit: only when nobody is awake to look anyway.
    IF wake AND (SELECT last_value FROM rowvec.awake_until) < extract(epoch FROM clock_timestamp()) * 1000000 THEN
        PERFORM pg_notify('rowvec', '');
    END IF;
END $$;

-- Takes rows out of search in the writer's own transaction: void, remove, append, in this order (each other
-- order leaves orphans when a store is under way). Above READ COMMITTED the locks would raise 40001 in the
-- writer; there the fold does the removal.
CREATE FUNCTION rowvec.remove_rows_v1(content_type text, content_ids text[], priority smallint, wake boolean)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- The writer's session keeps the plans of this body: none of them may be the scan that suits an empty table.
SET enable_seqscan = off AS $$
BEGIN
    IF cardinality(content_ids) = 0 THEN
        RETURN;
    END IF;
    IF current_setting('transaction_isolation') = 'read committed' THEN
        UPDATE rowvec.embedding_queue q
        SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL,
            generation = nextval('rowvec.generation'), updated_at = now()
        WHERE q.content_type = remove_rows_v1.content_type AND q.content_id = ANY (content_ids);
        DELETE FROM rowvec.vector v
        WHERE v.content_type = remove_rows_v1.content_type AND v.content_id = ANY (content_ids);
    END IF;
    PERFORM rowvec.append_changes_v1(content_type, content_ids, priority, 'remove', wake);
END $$;

-- The id as the key's own type writes it: '007' of an integer key is '7'.
CREATE FUNCTION rowvec.canonical_id(watched rowvec.source, content_id text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    type regtype;
    written text;
BEGIN
    SELECT a.atttypid INTO type FROM pg_attribute a
    WHERE a.attrelid = watched.relation AND a.attnum = watched.key_columns[1];
    EXECUTE format('SELECT $1::%s::text', coalesce(type, 'text')) INTO written USING content_id;
    RETURN written;
EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION '"%" is no key of "%": it is a %.', content_id, watched.content_type, type
        USING ERRCODE = 'RV001';
END $$;

-- Asks for a row of a watched table to be embedded (again), now or later. Of several requests for a row the
-- earliest counts.
CREATE FUNCTION rowvec.enqueue(
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
    IF content_id IS NULL OR octet_length(content_id) NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'The content id must have 1 to 1,000 bytes.' USING ERRCODE = 'RV001';
    END IF;
    IF priority NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'The priority must be 1 to 100, not %.', priority USING ERRCODE = 'RV001';
    END IF;
    PERFORM rowvec.append_changes_v1(
        content_type, ARRAY[rowvec.canonical_id(found, content_id)], coalesce(priority, found.priority)::smallint, 'write', found.notify, at);
END $$;

REVOKE ALL ON FUNCTION rowvec.append_changes_v1(text, text[], smallint, text, boolean, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION rowvec.remove_rows_v1(text, text[], smallint, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION rowvec.enqueue(text, text, integer, timestamptz) FROM PUBLIC;
