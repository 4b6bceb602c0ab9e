-- migrate:up breaking:false
-- Reading rows, queuing those that are there already, and looking for vectors whose rows are gone.

-- Raises when a source's table or one of its columns is gone.
CREATE FUNCTION rowvec.check_columns(watched rowvec.source) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = watched.relation) THEN
        RAISE EXCEPTION 'The table of the source "%" is gone.', watched.content_type
            USING ERRCODE = 'RV002', HINT = 'End its watch with `rowvec unwatch`.';
    END IF;
    IF EXISTS (SELECT FROM unnest(watched.key_columns || watched.text_columns || watched.owner_column) AS number
               WHERE number IS NOT NULL AND rowvec.column_name(watched.relation, number) IS NULL) THEN
        RAISE EXCEPTION 'A watched column of the source "%" is gone.', watched.content_type
            USING ERRCODE = 'RV002', HINT = 'Watch the table again, with the columns that it has.';
    END IF;
END $$;

-- Raises when a source can't be read, and says why. (DROP COLUMN ... CASCADE takes the view and triggers along.)
CREATE FUNCTION rowvec.check_readable(watched rowvec.source) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regclass(format('rowvec.%I', 'rows_' || watched.content_type)) IS NOT NULL THEN
        RETURN;
    END IF;
    IF watched.paused_at IS NOT NULL THEN
        RAISE EXCEPTION 'The source "%" is paused.', watched.content_type
            USING ERRCODE = 'RV002', HINT = format('Go on with `rowvec resume %s`.', watched.content_type);
    END IF;
    PERFORM rowvec.check_columns(watched);
    RAISE EXCEPTION 'The view rowvec.rows_% is gone.', watched.content_type
        USING ERRCODE = 'RV002', HINT = 'Watch the table again: the view, or a column that the condition or the text '
                                        'needs, was dropped.';
END $$;

-- An id's parts: itself, or the elements of its JSON array.
CREATE FUNCTION rowvec.split_id(content_id text, parts integer) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE parts WHEN 1 THEN ARRAY[content_id]
           ELSE ARRAY(SELECT jsonb_array_elements_text(content_id::jsonb)) END
$$;

-- Whether a text can be an id of the source.
CREATE FUNCTION rowvec.is_key(watched rowvec.source, content_id text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM rowvec.canonical_id(watched, content_id);
    RETURN true;
EXCEPTION WHEN SQLSTATE 'RV001' OR integrity_constraint_violation THEN
    RETURN false;
END $$;

-- The statement that looks rows up by their ids ($1). They are cast to the key's types, not the key to text: that
-- would be a scan.
CREATE FUNCTION rowvec.rows_query(watched rowvec.source, columns text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE cardinality(watched.key_types)
        WHEN 1 THEN format('SELECT %s FROM rowvec.%I v WHERE v.key_1 = ANY ($1::%s[])', columns,
                           'rows_' || watched.content_type, watched.key_types[1])
        ELSE format('SELECT %s FROM (SELECT %s FROM unnest($1) AS i OFFSET 0) AS k JOIN rowvec.%I v USING (%s)', columns,
                    string_agg(format('(rowvec.split_id(i, %s))[%s]::%s AS key_%s', cardinality(watched.key_types),
                                      position, type, position), ', ' ORDER BY position),
                    'rows_' || watched.content_type, string_agg('key_' || position, ', ' ORDER BY position)) END
    FROM unnest(watched.key_types) WITH ORDINALITY AS given (type, position)
$$;

-- The current text of rows, as JSON arrays of what makes it. Rows that are gone, or that the condition leaves out, are
-- missing from the answer. SECURITY DEFINER, so the daemon needs no right on the table; row security off, so that
-- a policy raises instead of hiding rows, which would be taken for deletions. RV003: an id is no key.
CREATE FUNCTION rowvec.read_rows(content_type text, content_ids text[])
RETURNS TABLE (content_id text, owner text, fields text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    watched rowvec.source;
    stranger text;
BEGIN
    SELECT * INTO watched FROM rowvec.source s WHERE s.content_type = read_rows.content_type;
    PERFORM rowvec.check_readable(watched);
    RETURN QUERY EXECUTE rowvec.rows_query(watched, 'v.content_id, v.owner, v.fields') USING content_ids;
EXCEPTION
    WHEN undefined_table THEN
        RAISE EXCEPTION 'The source "%" is being changed.', content_type
            USING ERRCODE = 'RV002', HINT = 'It is tried again in a moment; see `rowvec doctor` if it stays so.';
    WHEN data_exception OR integrity_constraint_violation THEN
        SELECT i INTO stranger FROM unnest(content_ids) AS i WHERE NOT rowvec.is_key(watched, i) LIMIT 1;
        IF stranger IS NULL THEN
            RAISE;
        END IF;
        RAISE EXCEPTION '"%" is no key of "%"', stranger, content_type USING ERRCODE = 'RV003';
END $$;

-- A page of the ids after one of them, in the key's order.
CREATE FUNCTION rowvec.list_page(watched rowvec.source, last_id text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    keys text;
    after text;
    ids text[];
BEGIN
    SELECT string_agg('v.key_' || position, ', ' ORDER BY position),
           string_agg(format('$1[%s]::%s', position, type), ', ' ORDER BY position)
    INTO keys, after FROM unnest(watched.key_types) WITH ORDINALITY AS given (type, position);
    -- The page's size stands in the text: as a parameter it would be estimated at a tenth of the table and the
    -- plan would sort it whole for every page.
    EXECUTE format(
        'SELECT array_agg(page.content_id) FROM (SELECT v.content_id FROM rowvec.%I AS v WHERE %s ORDER BY %s LIMIT 1000) '
        'AS page', 'rows_' || watched.content_type,
        CASE WHEN last_id IS NULL THEN 'true' ELSE format('(%s) > (%s)', keys, after) END, keys)
    INTO ids USING rowvec.split_id(last_id, cardinality(watched.key_types));
    RETURN ids;
END $$;

-- Appends the changes of the next page of rows that are there, for one model and at bulk priority, and moves the cursor.
-- Returns how many rows it looked at.
CREATE FUNCTION rowvec.append_page(watched rowvec.source, model text) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    begun rowvec.backfill;
    ids text[];
BEGIN
    -- Locked: whoever restarts it waits for us, or our cursor would come after.
    SELECT * INTO begun FROM rowvec.backfill b
    WHERE b.content_type = watched.content_type AND b.model = append_page.model FOR UPDATE;
    ids := rowvec.list_page(watched, begun.after);
    INSERT INTO rowvec.change (urgency, content_type, content_id, priority, kind, model)
    SELECT 3, watched.content_type, i, greatest(watched.priority, 5), 'write', append_page.model
    FROM unnest(ids) AS i
    WHERE begun.missing IS NOT TRUE OR NOT EXISTS (
        SELECT FROM rowvec.vector v
        WHERE v.tableoid = to_regclass(format('rowvec.%I', 'vector_' || append_page.model))
          AND v.content_type = watched.content_type AND v.content_id = i);
    INSERT INTO rowvec.backfill AS b (content_type, model, done, after, rows)
    VALUES (watched.content_type, append_page.model, ids IS NULL, ids[cardinality(ids)], coalesce(cardinality(ids), 0))
    ON CONFLICT ON CONSTRAINT backfill_pkey DO UPDATE
    SET done = excluded.done, after = coalesce(excluded.after, b.after), rows = b.rows + excluded.rows, updated_at = now();
    RETURN coalesce(cardinality(ids), 0);
END $$;

-- Looks at the next page of rows that have vectors, and appends the removal of those that are gone. Returns how many
-- it looked at.
CREATE FUNCTION rowvec.sweep_page(watched rowvec.source) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    ids text[];
    keys text[];
    held text[];
BEGIN
    SELECT array_agg(page.content_id) INTO ids FROM (
        SELECT DISTINCT v.content_id FROM rowvec.vector v
        WHERE v.content_type = watched.content_type
          AND (watched.sweep_after IS NULL OR v.content_id > watched.sweep_after)
        ORDER BY v.content_id LIMIT 1000) AS page;
    -- The key may have another type since: what can be no id of it has no row.
    keys := ARRAY(SELECT i FROM unnest(ids) AS i WHERE rowvec.is_key(watched, i));
    EXECUTE format('SELECT ARRAY(%s)', rowvec.rows_query(watched, 'v.content_id')) INTO held USING keys;
    PERFORM rowvec.append_changes_v1(
        watched.content_type, ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(held)), watched.priority, 'remove', false);
    UPDATE rowvec.source s
    SET swept = ids IS NULL, sweep_after = coalesce(ids[cardinality(ids)], s.sweep_after), updated_at = now()
    WHERE s.content_type = watched.content_type;
    RETURN coalesce(cardinality(ids), 0);
END $$;

-- Does the next page of a source's work in the background: queues rows for a model or, without one, looks for vectors whose
-- rows are gone. NULL when another daemon is at it or nothing is left to do.
CREATE FUNCTION rowvec.append_backfill(content_type text, model text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watched rowvec.source;
BEGIN
    SELECT * INTO watched FROM rowvec.source s
    WHERE s.content_type = append_backfill.content_type
      AND CASE WHEN append_backfill.model IS NULL THEN NOT s.swept
               ELSE EXISTS (SELECT FROM rowvec.unfilled u
                            WHERE u.content_type = s.content_type AND u.model = append_backfill.model AND NOT u.stopped) END
    FOR UPDATE SKIP LOCKED;
    IF watched.content_type IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM rowvec.check_readable(watched);
    RETURN CASE WHEN model IS NULL THEN rowvec.sweep_page(watched) ELSE rowvec.append_page(watched, model) END;
END $$;

-- How many rows a source has: as the last ANALYZE knew, counted where that was never or the table is small.
CREATE FUNCTION rowvec.estimate_rows(watched rowvec.source) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    estimated bigint;
BEGIN
    SELECT sum(c.reltuples) INTO estimated
    FROM rowvec.watched_tables(watched.relation) AS t (member) JOIN pg_class c ON c.oid = t.member
    HAVING min(c.reltuples) > 0 AND sum(c.reltuples) > 100000;
    IF estimated IS NULL AND to_regclass(format('rowvec.%I', 'rows_' || watched.content_type)) IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM rowvec.%I', 'rows_' || watched.content_type) INTO estimated;
    END IF;
    RETURN estimated;
END $$;

-- Begins backfills of one source or all, for one model or all that are active; where some of them have not come to their
-- end, goes on with those instead. With `again` all begin anew.
CREATE FUNCTION rowvec.begin_backfill(content_type text, model text, again boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM rowvec.source s
    WHERE s.content_type = begin_backfill.content_type OR begin_backfill.content_type IS NULL ORDER BY s.content_type FOR UPDATE;
    IF again OR NOT EXISTS (
        SELECT FROM rowvec.unfilled u
        WHERE (u.content_type = begin_backfill.content_type OR begin_backfill.content_type IS NULL)
          AND (u.model = begin_backfill.model OR begin_backfill.model IS NULL)) THEN
        DELETE FROM rowvec.backfill b
        WHERE (b.content_type = begin_backfill.content_type OR begin_backfill.content_type IS NULL)
          AND (b.model = begin_backfill.model OR begin_backfill.model IS NULL);
    ELSE
        UPDATE rowvec.backfill b SET stopped = false
        WHERE (b.content_type = begin_backfill.content_type OR begin_backfill.content_type IS NULL)
          AND (b.model = begin_backfill.model OR begin_backfill.model IS NULL) AND b.stopped;
    END IF;
    PERFORM pg_notify('rowvec', '');
END $$;

-- Stops backfills until somebody goes on with them; what they have queued stays queued.
CREATE FUNCTION rowvec.stop_backfill(content_type text, model text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO rowvec.backfill (content_type, model, stopped)
    SELECT u.content_type, u.model, true FROM rowvec.unfilled u
    WHERE (u.content_type = stop_backfill.content_type OR stop_backfill.content_type IS NULL)
      AND (u.model = stop_backfill.model OR stop_backfill.model IS NULL)
    ON CONFLICT ON CONSTRAINT backfill_pkey DO UPDATE SET stopped = true, updated_at = now()
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
