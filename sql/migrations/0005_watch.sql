-- migrate:up breaking:false
-- Watching a table: what is asked for, what that makes necessary, and how it ends.

-- Refuses settings that no source can have, before a constraint does it in its own words.
CREATE FUNCTION rowvec.check_settings(wanted rowvec.source) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (wanted.content_type ~ '^[a-z][a-z0-9_]{0,39}$') IS NOT TRUE THEN
        RAISE EXCEPTION 'The content type "%" can''t be used.', wanted.content_type
            USING ERRCODE = 'RV001', HINT = 'A small letter, then small letters, digits and _: at most 40 in all.';
    END IF;
    IF wanted.relation = to_regclass('rowvec.document') AND wanted.content_type <> 'document' THEN
        RAISE EXCEPTION '% is one of rowvec''s own tables.', wanted.relation USING ERRCODE = 'RV001';
    END IF;
    IF EXISTS (SELECT FROM rowvec.document d WHERE d.content_type = wanted.content_type) THEN
        RAISE EXCEPTION 'There are texts queued by hand as "%".', wanted.content_type
            USING ERRCODE = 'RV001', HINT = 'Choose another content type, or remove them: DELETE FROM rowvec.document.';
    END IF;
    IF (wanted.urgent_rows >= 1) IS NOT TRUE THEN
        RAISE EXCEPTION 'A transaction must be able to bring 1 urgent row at least, not %.', wanted.urgent_rows
            USING ERRCODE = 'RV001';
    END IF;
    IF (wanted.chunking IN ('none', 'characters', 'markdown')) IS NOT TRUE THEN
        RAISE EXCEPTION 'There is no chunking "%".', wanted.chunking
            USING ERRCODE = 'RV001', HINT = 'It can be none, characters or markdown.';
    END IF;
    IF (wanted.chunk_characters BETWEEN 50 AND 100000) IS NOT TRUE THEN
        RAISE EXCEPTION 'A chunk can have 50 to 100,000 characters, not %.', wanted.chunk_characters
            USING ERRCODE = 'RV001';
    END IF;
    IF (wanted.chunk_overlap BETWEEN 0 AND wanted.chunk_characters / 2) IS NOT TRUE THEN
        RAISE EXCEPTION 'Chunks of % characters can''t share %.', wanted.chunk_characters, wanted.chunk_overlap
            USING ERRCODE = 'RV001', HINT = 'The overlap can be half a chunk at most, and not negative.';
    END IF;
    IF wanted.notify IS NULL THEN
        RAISE EXCEPTION 'Whether writers may notify must be true or false.' USING ERRCODE = 'RV001';
    END IF;
END $$;

-- Refuses columns, or a text function, that make no text.
CREATE FUNCTION rowvec.check_text(wanted rowvec.source, columns text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(columns) > (SELECT count(*) FROM (SELECT DISTINCT unnest(columns)) AS different) THEN
        RAISE EXCEPTION 'A column was given twice.' USING ERRCODE = 'RV001';
    END IF;
    IF wanted.text_function IS NOT NULL THEN
        PERFORM rowvec.check_text_function(wanted.relation, wanted.text_function);
        IF wanted.template IS NOT NULL THEN
            RAISE EXCEPTION 'A text function makes the whole text: there is no template beside it.'
                USING ERRCODE = 'RV001';
        END IF;
        RETURN;
    END IF;
    IF coalesce(cardinality(columns), 0) = 0 THEN
        RAISE EXCEPTION 'No columns to embed were given.' USING ERRCODE = 'RV001';
    END IF;
    IF jsonb_array_length(wanted.depends_on) > 0 THEN
        RAISE EXCEPTION 'Only the text of a text function can depend on other tables.' USING ERRCODE = 'RV001';
    END IF;
    PERFORM rowvec.check_text_column(wanted.relation, number) FROM unnest(wanted.text_columns) AS number;
    PERFORM rowvec.check_template(wanted.template, columns);
END $$;

-- One dependency as it is kept: the table with its schema, columns that exist, an expression for each part of the id.
CREATE FUNCTION rowvec.read_dependency(wanted rowvec.source, asked jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation regclass;
    columns text[];
    expressions text[];
    types regtype[];
    virtual text;
BEGIN
    IF jsonb_typeof(asked -> 'table') IS DISTINCT FROM 'string'
        OR jsonb_typeof(asked -> 'columns') IS DISTINCT FROM 'array'
        OR jsonb_typeof(asked -> 'content_id') IS NULL OR jsonb_typeof(asked -> 'content_id') NOT IN ('string', 'array') THEN
        RAISE EXCEPTION 'A dependency can''t be read: %.', asked USING ERRCODE = 'RV001',
            HINT = 'Its form is {"table": "public.comment", "columns": ["body"], "content_id": "post_id"}.';
    END IF;
    relation := rowvec.find_table(asked ->> 'table');
    columns := ARRAY(SELECT jsonb_array_elements_text(asked -> 'columns'));
    PERFORM rowvec.check_table(relation);
    PERFORM rowvec.column_numbers(relation, columns);
    SELECT array_agg(checked.written ORDER BY position), array_agg(checked.type ORDER BY position),
           string_agg(checked.virtual, ', ')
    INTO expressions, types, virtual
    FROM jsonb_array_elements_text(CASE jsonb_typeof(asked -> 'content_id') WHEN 'array' THEN asked -> 'content_id'
                                   ELSE jsonb_build_array(asked -> 'content_id') END)
        WITH ORDINALITY AS given (expression, position)
    CROSS JOIN LATERAL rowvec.check_expression(relation, expression, 'expression for the content id', '((%s))') AS checked;
    IF virtual IS NOT NULL THEN
        RAISE EXCEPTION 'The content id of % is made of %, which no trigger can see: a virtual column.', relation, virtual
            USING ERRCODE = 'RV001', HINT = 'Give the expression that generates it.';
    END IF;
    IF rowvec.written_forms(types) IS DISTINCT FROM rowvec.written_forms(wanted.key_types) THEN
        RAISE EXCEPTION 'The content id of % is (%), but the key of % is (%).', relation, array_to_string(types, ', '),
            wanted.relation, array_to_string(wanted.key_types, ', ')
            USING ERRCODE = 'RV001', HINT = 'Give an expression of the same type for each column of the key.';
    END IF;
    RETURN jsonb_build_object('table', relation::text, 'columns', columns, 'content_id', expressions);
END $$;

-- Calls the text function once, as it will be called: most mistakes show at the first row.
CREATE FUNCTION rowvec.try_text(watched rowvec.source) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fields text;
BEGIN
    EXECUTE format('SELECT fields FROM rowvec.%I LIMIT 1', 'rows_' || watched.content_type) INTO fields;
EXCEPTION WHEN syntax_error_or_access_rule_violation THEN
    RAISE EXCEPTION 'The function %() fails: %.', watched.text_function, SQLERRM
        USING ERRCODE = 'RV001', HINT = 'It is called with the search_path pg_catalog: give it one of its own '
                                        '(ALTER FUNCTION ... SET search_path = public), or name the schemas.';
END $$;

-- What a changed watch makes necessary: `none` of the rows, the `missing` ones that a new condition lets in, or `all`
-- once more.
CREATE FUNCTION rowvec.affected_rows(old rowvec.source, new rowvec.source) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN old.content_type IS NULL OR old.paused_at IS NOT NULL THEN 'all'
        WHEN (to_jsonb(old) - harmless) <> (to_jsonb(new) - harmless) THEN 'all'
        WHEN EXISTS (SELECT FROM rowvec.missing_triggers(old)) THEN 'all'
        WHEN old.condition IS DISTINCT FROM new.condition THEN 'missing'
        ELSE 'none' END
    FROM (SELECT ARRAY['priority', 'urgent_rows', 'notify', 'condition', 'trigger_name', 'function_name', 'paused_at',
                       'swept', 'sweep_after', 'created_at', 'updated_at']) AS given (harmless)
$$;

-- Has rows of a source queued again. What was about all rows stays so: only where it had come to its end, or had to do
-- with missing ones alone, the others have their vectors.
CREATE FUNCTION rowvec.restart_backfills(content_type text, affected text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM rowvec.backfill b WHERE b.content_type = restart_backfills.content_type AND affected = 'all';
    UPDATE rowvec.backfill b
    SET done = false, stopped = false, missing = b.missing OR b.done, after = NULL, rows = 0, began_at = now()
    WHERE b.content_type = restart_backfills.content_type AND affected = 'missing'
$$;

-- Refuses names for triggers and functions that can't be used; returns the function's with its schema.
CREATE FUNCTION rowvec.check_names(relation regclass, trigger_name text, function_name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts text[];
    name text;
BEGIN
    parts := parse_ident(function_name);
    IF cardinality(parts) = 1 THEN
        parts := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.oid = relation) || parts;
    END IF;
    IF parts IS NOT NULL AND (cardinality(parts) > 2 OR parts[1] IN ('rowvec', 'pg_catalog')
                              OR to_regnamespace(quote_ident(parts[1])) IS NULL) THEN
        RAISE EXCEPTION 'No function can be named %.', function_name
            USING ERRCODE = 'RV001', HINT = 'Give a name, or schema.name with a schema that exists.';
    END IF;
    -- What is added for the operation must find room: an identifier has 63 bytes.
    FOREACH name IN ARRAY array_remove(ARRAY[trigger_name, parts[2]], NULL) LOOP
        IF octet_length(name) NOT BETWEEN 1 AND 50 THEN
            RAISE EXCEPTION 'The name "%" must have 1 to 50 bytes.', name USING ERRCODE = 'RV001';
        END IF;
    END LOOP;
    RETURN format('%I.%I', parts[1], parts[2]) WHERE parts IS NOT NULL;
EXCEPTION WHEN invalid_parameter_value THEN
    RAISE EXCEPTION 'No function can be named %.', function_name
        USING ERRCODE = 'RV001', HINT = 'Give a name, or schema.name with a schema that exists.';
END $$;

-- Removes the items, changes and vectors of a source. The fold is kept out, or it could make items of changes that
-- it took before; the caller holds the table already, so nobody waits for the fold's lock behind a writer.
CREATE FUNCTION rowvec.forget_rows(content_type text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1919907702, 1);
    DELETE FROM rowvec.embedding_queue q WHERE q.content_type = forget_rows.content_type;
    DELETE FROM rowvec.vector v WHERE v.content_type = forget_rows.content_type;
    DELETE FROM rowvec.change c WHERE c.content_type = forget_rows.content_type;
END $$;

-- Watches a table: creates its view and triggers and lets the daemon queue the rows that are already there, page by
-- page, at bulk priority. Watching again with the same settings restores what is missing, else does nothing; with
-- others it queues what they affect.
CREATE FUNCTION rowvec.watch(
    relation regclass, content_type text, columns text[] DEFAULT NULL, priority integer DEFAULT 3,
    template text DEFAULT NULL, owner_column text DEFAULT NULL, chunking text DEFAULT 'none',
    chunk_characters integer DEFAULT 1500, chunk_overlap integer DEFAULT 0, notify boolean DEFAULT true,
    key text[] DEFAULT NULL, condition text DEFAULT NULL, text_function regproc DEFAULT NULL,
    depends_on jsonb DEFAULT '[]', urgent_rows integer DEFAULT 500, trigger_name text DEFAULT NULL,
    function_name text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bookkeeping text[] := ARRAY['swept', 'sweep_after', 'created_at', 'updated_at'];
    affected text;
    old rowvec.source;
    new rowvec.source;
BEGIN
    PERFORM rowvec.check_table(relation);
    IF (priority BETWEEN 1 AND 100) IS NOT TRUE THEN
        RAISE EXCEPTION 'The priority must be 1 to 100, not %.', priority USING ERRCODE = 'RV001';
    END IF;
    IF jsonb_typeof(depends_on) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'The dependencies are no JSON array: %.', depends_on USING ERRCODE = 'RV001';
    END IF;
    -- Locked first, so that a backfill passes the source over instead of meeting us at the table.
    SELECT * INTO old FROM rowvec.source s WHERE s.content_type = watch.content_type FOR UPDATE;
    old.condition := CASE WHEN old.content_type IS NOT NULL THEN rowvec.seen_condition(old) END;
    IF old.relation <> watch.relation AND EXISTS (SELECT FROM pg_class c WHERE c.oid = old.relation) THEN
        RAISE EXCEPTION '"%" is already the content type of %.', content_type, old.relation
            USING ERRCODE = 'RV001', HINT = 'Choose another content type, or unwatch that table first.';
    END IF;

    new.content_type := content_type;
    new.relation := relation;
    new.key_columns := rowvec.find_key(relation, key);
    new.key_types := rowvec.key_types(relation, new.key_columns);
    new.text_columns := rowvec.column_numbers(relation, columns);
    new.labels := CASE WHEN text_function IS NULL THEN columns ELSE ARRAY['text'] END;
    new.owner_column := CASE WHEN owner_column IS NOT NULL THEN rowvec.column_number(relation, owner_column) END;
    new.template := template;
    new.text_function := text_function;
    new.priority := priority;
    new.urgent_rows := urgent_rows;
    new.chunking := chunking;
    new.chunk_characters := chunk_characters;
    new.chunk_overlap := chunk_overlap;
    new.notify := notify;
    new.trigger_name := trigger_name;
    new.function_name := rowvec.check_names(relation, trigger_name, function_name);
    new.created_at := coalesce(old.created_at, now());
    new.updated_at := now();
    new.depends_on := (SELECT coalesce(jsonb_agg(rowvec.read_dependency(new, asked)), '[]')
                       FROM jsonb_array_elements(watch.depends_on) AS asked);
    IF old.content_type IS NULL THEN
        -- Until the end nobody queues a text by hand under this name; who has begun to is seen by the check.
        LOCK TABLE rowvec.document IN SHARE MODE;
    END IF;
    PERFORM rowvec.check_settings(new);
    PERFORM rowvec.check_text(new, columns);
    new.template := CASE WHEN text_function IS NULL THEN template ELSE '{text}' END;
    IF condition IS NOT NULL THEN
        new.condition := (rowvec.check_expression(relation, condition, 'condition', '((true)) WHERE (%s)')).written;
    END IF;

    IF (to_jsonb(old) - bookkeeping) = (to_jsonb(new) - bookkeeping)
        AND NOT EXISTS (SELECT FROM rowvec.missing_triggers(old))
        AND to_regclass(format('rowvec.%I', 'rows_' || content_type)) IS NOT NULL THEN
        RETURN false;
    END IF;
    affected := rowvec.affected_rows(old, new);
    new.swept := old.content_type IS NULL OR (old.swept AND affected = 'none');
    new.sweep_after := CASE WHEN affected = 'none' THEN old.sweep_after END;
    PERFORM rowvec.rewatch(old, new, affected);
    RETURN true;
END $$;

-- Puts a new description of a source in the place of the old one, and has the rows queued that this affects.
CREATE FUNCTION rowvec.rewatch(old rowvec.source, new rowvec.source, affected text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM rowvec.detach(old) WHERE old.content_type IS NOT NULL;
    -- In place: whoever waits for the row must find it.
    INSERT INTO rowvec.source SELECT new.* ON CONFLICT (content_type) DO UPDATE
    SET (relation, key_columns, key_types, text_columns, labels, owner_column, template, condition, text_function,
         depends_on, priority, urgent_rows, chunking, chunk_characters, chunk_overlap, notify, trigger_name, function_name,
         paused_at, swept, sweep_after, updated_at)
        = (excluded.relation, excluded.key_columns, excluded.key_types, excluded.text_columns, excluded.labels,
             excluded.owner_column, excluded.template, excluded.condition, excluded.text_function,
             excluded.depends_on, excluded.priority, excluded.urgent_rows, excluded.chunking,
             excluded.chunk_characters, excluded.chunk_overlap, excluded.notify, excluded.trigger_name,
             excluded.function_name, excluded.paused_at, excluded.swept, excluded.sweep_after, excluded.updated_at);
    PERFORM rowvec.restart_backfills(new.content_type, affected);
    PERFORM rowvec.attach(new);
    PERFORM rowvec.try_text(new) WHERE new.text_function IS NOT NULL;
    IF old.relation <> new.relation OR old.key_columns <> new.key_columns
        OR rowvec.written_forms(old.key_types) <> rowvec.written_forms(new.key_types) THEN
        -- Its rows have other ids from now on.
        PERFORM rowvec.forget_rows(new.content_type);
    ELSIF affected <> 'none' AND old.content_type IS NOT NULL THEN
        -- What is being worked on was read as the source was before.
        PERFORM rowvec.void_items(new.content_type);
    END IF;
    IF old.owner_column IS DISTINCT FROM new.owner_column AND old.content_type IS NOT NULL THEN
        -- Nobody's until they are read again: never the former owner's.
        UPDATE rowvec.vector v SET owner = NULL WHERE v.content_type = new.content_type AND v.owner IS NOT NULL;
    END IF;
    PERFORM pg_notify('rowvec', '');
END $$;

-- The row of a source, locked.
CREATE FUNCTION rowvec.find_source(content_type text) RETURNS rowvec.source
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found rowvec.source;
BEGIN
    SELECT * INTO found FROM rowvec.source s WHERE s.content_type = find_source.content_type FOR UPDATE;
    IF found.content_type IS NULL THEN
        RAISE EXCEPTION 'No source is watched as "%".', content_type
            USING ERRCODE = 'RV001', HINT = 'See `rowvec sources`, or watch the table first.';
    END IF;
    RETURN found;
END $$;

-- Ends a watch: its triggers, items and vectors go in one transaction.
CREATE FUNCTION rowvec.unwatch(content_type text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watched rowvec.source := rowvec.find_source(content_type);
BEGIN
    IF watched.relation = to_regclass('rowvec.document') THEN
        RAISE EXCEPTION '"%" is rowvec''s own source.', content_type
            USING ERRCODE = 'RV001', HINT = 'DELETE FROM rowvec.document removes texts that were queued by hand.';
    END IF;
    DELETE FROM rowvec.source s WHERE s.content_type = unwatch.content_type;
    PERFORM rowvec.detach(watched);
    PERFORM rowvec.forget_rows(content_type);
END $$;

-- Takes the triggers and the view away, so that the table can be altered in every way. Its vectors stay in search, its
-- items wait. False when it is paused already.
CREATE FUNCTION rowvec.pause(content_type text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watched rowvec.source := rowvec.find_source(content_type);
BEGIN
    IF watched.paused_at IS NOT NULL THEN
        RETURN false;
    END IF;
    watched.condition := rowvec.seen_condition(watched);
    PERFORM rowvec.check_numbers(watched);
    UPDATE rowvec.source s SET paused_at = now(), updated_at = now(), condition = watched.condition
    WHERE s.content_type = pause.content_type;
    PERFORM rowvec.detach(watched);
    RETURN true;
END $$;

-- Watches a paused source again, and makes up for what nobody saw: all rows are queued (what did not change is not
-- embedded again), and vectors are looked through for rows that are gone. False when it is not paused.
CREATE FUNCTION rowvec.resume(content_type text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    paused rowvec.source := rowvec.find_source(content_type);
    watched rowvec.source := paused;
BEGIN
    IF watched.paused_at IS NULL THEN
        RETURN false;
    END IF;
    PERFORM rowvec.check_columns(watched);
    PERFORM rowvec.check_names(watched.relation, watched.trigger_name, watched.function_name);
    PERFORM rowvec.find_key(watched.relation, rowvec.column_names(watched.relation, watched.key_columns));
    PERFORM rowvec.check_text_column(watched.relation, number)
    FROM unnest(watched.text_columns) AS number WHERE watched.text_function IS NULL;
    watched.key_types := rowvec.key_types(watched.relation, watched.key_columns);
    IF watched.condition IS NOT NULL THEN
        watched.condition := (rowvec.check_expression(watched.relation, watched.condition, 'condition',
                                                      '((true)) WHERE (%s)')).written;
    END IF;
    watched.paused_at := NULL;
    watched.swept := false;
    watched.sweep_after := NULL;
    watched.updated_at := now();
    PERFORM rowvec.rewatch(paused, watched, 'all');
    RETURN true;
END $$;

-- The id as the key's own types write it: '007' of an integer key is '7'.
CREATE FUNCTION rowvec.canonical_id(watched rowvec.source, content_id text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    types regtype[] := watched.key_types;
    parts text[];
    written text;
BEGIN
    parts := rowvec.split_id(content_id, cardinality(types));
    IF cardinality(parts) <> cardinality(types) THEN
        RAISE invalid_parameter_value;
    END IF;
    EXECUTE (SELECT format(CASE cardinality(types) WHEN 1 THEN 'SELECT (%s)::text'
                           ELSE 'SELECT jsonb_build_array(%s)::text' END,
                           string_agg(format('$1[%s]::%s', position, type), ', ' ORDER BY position))
             FROM unnest(types) WITH ORDINALITY AS given (type, position))
    INTO written USING parts;
    RETURN written;
EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION '"%" is no key of "%": it is %.', content_id, watched.content_type,
        CASE cardinality(types) WHEN 1 THEN format('a %s', types[1]) ELSE 'a JSON array of ' || array_to_string(types, ', ') END
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
        content_type, ARRAY[rowvec.canonical_id(found, content_id)], coalesce(priority, found.priority)::smallint,
        'write', found.notify, found.urgent_rows, at);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
