-- migrate:up breaking:false
-- What triggers call. Versioned: trigger bodies stay as they are when these improve. None pins a search_path of its
-- own: each is called from a function that does, and pinning costs time for every row.

-- Appends one change a key (NULL: the whole type) and wakes a daemon if all of them sleep. What a transaction brings
-- beyond `urgent_rows` goes in as bulk, so that a mass edit starves nobody; the count is a setting of the transaction,
-- which a rollback to a savepoint takes back too. Assignments where PERFORM would do: they spare the executor, a good part
-- of the cost.
CREATE FUNCTION rowvec.append_changes_v1(
    content_type text, content_ids text[], priority smallint, kind rowvec.change_kind, wake boolean,
    urgent_rows integer DEFAULT NULL, due_at timestamptz DEFAULT NULL
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    arriving integer := cardinality(content_ids);
    before integer := 0;
    urgency smallint := CASE WHEN kind = 'remove' THEN 1 WHEN priority <= 2 THEN 2 ELSE 3 END;
    counted text;
BEGIN
    IF arriving = 0 THEN
        RETURN 0;
    END IF;
    IF priority < 5 AND urgent_rows IS NOT NULL THEN
        before := greatest(coalesce(nullif(current_setting('rowvec.changes', true), ''), '0')::integer, 0);
        counted := set_config('rowvec.changes', (before + arriving)::text, true);
        IF before >= urgent_rows THEN
            priority := 5;
            urgency := CASE WHEN kind = 'remove' THEN 1 ELSE 3 END;
        END IF;
    END IF;
    IF arriving = 1 THEN
        INSERT INTO rowvec.change (urgency, content_type, content_id, priority, kind, due_at)
        VALUES (CASE WHEN content_ids[1] IS NULL THEN 0 ELSE urgency END, append_changes_v1.content_type,
                content_ids[1], priority, kind, append_changes_v1.due_at);
    ELSIF before + arriving <= urgent_rows OR priority >= 5 OR urgent_rows IS NULL THEN
        INSERT INTO rowvec.change (urgency, content_type, content_id, priority, kind, due_at)
        SELECT urgency, append_changes_v1.content_type, given.content_id, priority, kind, append_changes_v1.due_at
        FROM unnest(content_ids) AS given (content_id);
    ELSE
        arriving := rowvec.append_changes_v1(
            content_type, content_ids[:urgent_rows - before], priority, kind, false, NULL, due_at);
        RETURN arriving + rowvec.append_changes_v1(
            content_type, content_ids[urgent_rows - before + 1:], 5::smallint, kind, wake, NULL, due_at);
    END IF;
    -- NOTIFY takes a database-wide lock at commit: only when nobody is awake to look anyway.
    IF wake AND to_timestamp(coalesce(pg_sequence_last_value('rowvec.awake_until'), 0)::double precision / 1000000)
        < clock_timestamp() THEN
        PERFORM pg_notify('rowvec', '');
    END IF;
    RETURN arriving;
END $$;

-- Takes rows out of search in the writer's own transaction: void, remove, append, in this order (each other
-- order leaves orphans when a store is under way). Above READ COMMITTED the locks would raise 40001 in the
-- writer; there the fold does the removal.
CREATE FUNCTION rowvec.remove_rows_v1(
    content_type text, content_ids text[], priority smallint, wake boolean, urgent_rows integer
) RETURNS integer LANGUAGE plpgsql
-- The writer's session keeps the plans of this body, from its first call on, since making them takes longer than
-- executing them: none may be the scan that suits an empty table.
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF cardinality(content_ids) = 0 THEN
        RETURN 0;
    END IF;
    IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        UPDATE rowvec.embedding_queue q
        SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL,
            generation = nextval('rowvec.generation'), updated_at = now()
        WHERE q.content_type = remove_rows_v1.content_type AND q.content_id = ANY (content_ids);
        DELETE FROM rowvec.vector v
        WHERE v.content_type = remove_rows_v1.content_type AND v.content_id = ANY (content_ids);
    END IF;
    RETURN rowvec.append_changes_v1(content_type, content_ids, priority, 'remove', wake, urgent_rows);
END $$;

-- The same for all rows of a type (TRUNCATE). Only leased items need be voided: whoever leases one later reads the
-- table, and that waits for the end of this transaction.
CREATE FUNCTION rowvec.remove_all_v1(content_type text, priority smallint, wake boolean) RETURNS integer
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        PERFORM rowvec.void_items(content_type);
        DELETE FROM rowvec.vector v WHERE v.content_type = remove_all_v1.content_type;
    END IF;
    RETURN rowvec.append_changes_v1(content_type, ARRAY[NULL]::text[], priority, 'remove', wake);
END $$;

-- Takes the token from all leased items of a type: what is being worked on at this moment will not be stored.
CREATE FUNCTION rowvec.void_items(content_type text) RETURNS void LANGUAGE sql AS $$
    UPDATE rowvec.embedding_queue q
    SET status = 'queued', token = NULL, daemon = NULL, lease_expires_at = NULL,
        generation = nextval('rowvec.generation'), updated_at = now()
    WHERE q.status = 'processing' AND q.content_type = void_items.content_type
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
