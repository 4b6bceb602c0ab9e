-- migrate:up breaking:false
-- What triggers call. Versioned: trigger bodies stay as they are when these improve. None pins a search_path of its
-- own: each is called from a function that does, and pinning costs time for every row.

-- Appends one change a key and wakes a daemon if all of them sleep. What a transaction brings beyond `urgent_rows`
-- goes in as bulk, so that a mass edit starves nobody; the count is a setting of the transaction, which a rollback to a
-- savepoint takes back too.
CREATE FUNCTION rowvec.append_changes_v1(
    content_type text, content_ids text[], priority smallint, kind text, wake boolean, urgent_rows integer DEFAULT NULL,
    due_at timestamptz DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before integer := 0;
BEGIN
    IF cardinality(content_ids) = 0 THEN
        RETURN;
    END IF;
    IF priority < 5 AND urgent_rows IS NOT NULL THEN
        before := coalesce(nullif(current_setting('rowvec.changes', true), ''), '0');
        PERFORM set_config('rowvec.changes', (before + cardinality(content_ids))::text, true);
    END IF;
    INSERT INTO rowvec.change (content_type, content_id, priority, kind, due_at)
    SELECT append_changes_v1.content_type, given.content_id,
           CASE WHEN before + given.position > urgent_rows AND priority < 5 THEN 5 ELSE append_changes_v1.priority END,
           append_changes_v1.kind, append_changes_v1.due_at
    FROM unnest(content_ids) WITH ORDINALITY AS given (content_id, position);
    -- NOTIFY takes a database-wide lock at commit: only when nobody is awake to look anyway.
    IF wake AND (SELECT last_value FROM rowvec.awake_until) < extract(epoch FROM clock_timestamp()) * 1000000 THEN
        PERFORM pg_notify('rowvec', '');
    END IF;
END $$;

-- Takes rows out of search in the writer's own transaction: void, remove, append, in this order (each other
-- order leaves orphans when a store is under way). Above READ COMMITTED the locks would raise 40001 in the
-- writer; there the fold does the removal.
CREATE FUNCTION rowvec.remove_rows_v1(
    content_type text, content_ids text[], priority smallint, wake boolean, urgent_rows integer
) RETURNS void LANGUAGE plpgsql
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
    PERFORM rowvec.append_changes_v1(content_type, content_ids, priority, 'remove', wake, urgent_rows);
END $$;

-- The same for all rows of a type (TRUNCATE). Only leased items need be voided: whoever leases one later reads the
-- table, and that waits for the end of this transaction.
CREATE FUNCTION rowvec.remove_all_v1(content_type text, priority smallint, wake boolean) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        PERFORM rowvec.void_items(content_type);
        DELETE FROM rowvec.vector v WHERE v.content_type = remove_all_v1.content_type;
    END IF;
    PERFORM rowvec.append_changes_v1(content_type, ARRAY[NULL]::text[], priority, 'remove', wake);
END $$;

-- Takes the token from all leased items of a type: what is being worked on at this moment will not be stored.
CREATE FUNCTION rowvec.void_items(content_type text) RETURNS void LANGUAGE sql AS $$
    UPDATE rowvec.embedding_queue q
    SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL,
        generation = nextval('rowvec.generation'), updated_at = now()
    WHERE q.status = 'processing' AND q.content_type = void_items.content_type
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
