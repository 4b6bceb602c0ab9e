-- migrate:up breaking:false
-- Watching a table: its key, its columns, its triggers.

-- A table by the name a person gives it, read as in any statement of theirs: no search_path is set here.
CREATE FUNCTION rowvec.find_table(name text) RETURNS regclass
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN name::regclass;
EXCEPTION WHEN undefined_table OR invalid_schema_name OR invalid_name OR syntax_error OR feature_not_supported THEN
    RAISE EXCEPTION 'There is no table %.', name
        USING ERRCODE = 'RV001', HINT = 'Give its schema too, and quote a name with capitals: public."Course".';
END $$;

-- The number of a column, or a clear refusal.
CREATE FUNCTION rowvec.column_number(relation regclass, column_name text) RETURNS smallint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number smallint;
BEGIN
    SELECT a.attnum INTO number FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped;
    IF number IS NULL THEN
        RAISE EXCEPTION 'The table % has no column "%".', relation, column_name USING ERRCODE = 'RV001';
    END IF;
    RETURN number;
END $$;

-- The name that a column has today.
CREATE FUNCTION rowvec.column_name(relation regclass, number smallint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.attname FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attnum = number AND NOT a.attisdropped
$$;

-- The single column of the primary key: an integer, a uuid or a text.
CREATE FUNCTION rowvec.key_column(relation regclass) RETURNS smallint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key smallint[];
    type regtype;
BEGIN
    SELECT c.conkey INTO key FROM pg_constraint c WHERE c.conrelid = relation AND c.contype = 'p';
    IF cardinality(key) IS DISTINCT FROM 1 THEN
        RAISE EXCEPTION 'The table % has no primary key of a single column.', relation
            USING ERRCODE = 'RV001', HINT = 'Give it one: rowvec finds a row again by its key.';
    END IF;
    SELECT a.atttypid INTO type FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum = key[1];
    IF type NOT IN ('smallint', 'integer', 'bigint', 'uuid', 'text', 'varchar') THEN
        RAISE EXCEPTION 'The key of % is a %.', relation, type
            USING ERRCODE = 'RV001', HINT = 'Keys can be integers, uuid, text or varchar.';
    END IF;
    RETURN key[1];
END $$;

-- Refuses what has no text worth embedding.
CREATE FUNCTION rowvec.check_text_column(relation regclass, number smallint) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    SELECT a.attname, a.atttypid::regtype AS type,
           coalesce(element.typcategory, t.typcategory) AS category,
           coalesce(element.oid, t.oid) IN ('json'::regtype, 'jsonb'::regtype) AS is_json INTO found
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_type element ON element.oid = t.typelem AND t.typcategory = 'A'
    WHERE a.attrelid = relation AND a.attnum = number;
    IF found.category NOT IN ('S', 'N') AND NOT found.is_json THEN
        RAISE EXCEPTION 'The column "%" of % is a %, which has no text to embed.',
            found.attname, relation, found.type
            USING ERRCODE = 'RV001', HINT = 'Columns can be text, varchar, numbers, json, jsonb and arrays.';
    END IF;
END $$;

-- The comparison of the UPDATE trigger. As text in the collation "C": json has no equality, and some types and
-- collations call different texts equal.
CREATE FUNCTION rowvec.differs(relation regclass, numbers smallint[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('OLD.%1$I::text COLLATE "C" IS DISTINCT FROM NEW.%1$I::text COLLATE "C"',
                             rowvec.column_name(relation, number)), ' OR ')
    FROM unnest(numbers) AS number
$$;

CREATE FUNCTION rowvec.drop_triggers(watched text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT t.tgname, t.tgrelid::regclass AS relation FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE p.pronamespace = 'rowvec'::regnamespace AND t.tgname IN (
            'rowvec_insert_' || watched, 'rowvec_update_' || watched, 'rowvec_move_' || watched,
            'rowvec_delete_' || watched)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', found.tgname, found.relation);
    END LOOP;
    EXECUTE format('DROP FUNCTION IF EXISTS rowvec.%I(), rowvec.%I(), rowvec.%I(), rowvec.%I()',
                   'on_insert_' || watched, 'on_update_' || watched, 'on_move_' || watched, 'on_delete_' || watched);
END $$;

-- One trigger function. SECURITY DEFINER: writers of the table need no right of ours.
CREATE FUNCTION rowvec.create_trigger_function(name text, body text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format(
        'CREATE FUNCTION rowvec.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
        'SET search_path = pg_catalog, pg_temp AS %L', name, format(E'BEGIN\n%s\nRETURN NULL;\nEND', body));
    EXECUTE format('REVOKE ALL ON FUNCTION rowvec.%I() FROM PUBLIC', name);
END $$;

-- The bodies name the key only, so that no change of another column can break a writer, and pass
-- keys as arrays: joining a transition table would cache the plan of a bulk statement for later single ones.
CREATE FUNCTION rowvec.create_triggers(watched rowvec.source) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    type text := watched.content_type;
    key text := rowvec.column_name(watched.relation, watched.key_columns[1]);
    moved text := rowvec.differs(watched.relation, array_remove(watched.key_columns || watched.owner_column, NULL));
    append text := format('PERFORM rowvec.append_changes_v1(%L, %%s, %s::smallint, ''write'', %L);',
                          type, watched.priority, watched.notify);
    remove text := format('PERFORM rowvec.remove_rows_v1(%L, %%s, %s::smallint, %L);',
                          type, watched.priority, watched.notify);
BEGIN
    PERFORM rowvec.create_trigger_function(
        'on_insert_' || type, format(append, format('ARRAY(SELECT n.%I::text FROM new_rows n)', key)));
    PERFORM rowvec.create_trigger_function(
        'on_delete_' || type, format(remove, format('ARRAY(SELECT o.%I::text FROM old_rows o)', key)));
    PERFORM rowvec.create_trigger_function('on_update_' || type, format(append, format('ARRAY[NEW.%I::text]', key)));
    -- A changed key or owner takes the old row out of search at once; the new one is embedded as any other.
    PERFORM rowvec.create_trigger_function('on_move_' || type, format(E'%s\n%s',
        format(remove, format('ARRAY[OLD.%I::text]', key)), format(append, format('ARRAY[NEW.%I::text]', key))));

    EXECUTE format('CREATE TRIGGER %I AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows '
                   'FOR EACH STATEMENT EXECUTE FUNCTION rowvec.%I()',
                   'rowvec_insert_' || type, watched.relation, 'on_insert_' || type);
    EXECUTE format('CREATE TRIGGER %I AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows '
                   'FOR EACH STATEMENT EXECUTE FUNCTION rowvec.%I()',
                   'rowvec_delete_' || type, watched.relation, 'on_delete_' || type);
    -- Not UPDATE OF: a column that a BEFORE trigger changes is not in the statement's list.
    EXECUTE format('CREATE TRIGGER %I AFTER UPDATE ON %s FOR EACH ROW WHEN (NOT (%s) AND (%s)) '
                   'EXECUTE FUNCTION rowvec.%I()', 'rowvec_update_' || type, watched.relation,
                   moved, rowvec.differs(watched.relation, watched.text_columns), 'on_update_' || type);
    EXECUTE format('CREATE TRIGGER %I AFTER UPDATE ON %s FOR EACH ROW WHEN (%s) '
                   'EXECUTE FUNCTION rowvec.%I()', 'rowvec_move_' || type, watched.relation, moved,
                   'on_move_' || type);
END $$;

-- Refuses a template that names a column that is not watched, or would make the same text of every row.
CREATE FUNCTION rowvec.check_template(template text, columns text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    IF regexp_replace(template, '\{[^{}]*\}', '', 'g') ~ '[{}]' THEN
        RAISE EXCEPTION 'The template has a brace without its partner.' USING ERRCODE = 'RV001';
    END IF;
    IF template !~ '\{[^{}]*\}' THEN
        RAISE EXCEPTION 'The template names no column: all rows would have the same text.'
            USING ERRCODE = 'RV001', HINT = 'Name columns in braces, such as {' || columns[1] || '}.';
    END IF;
    FOR name IN SELECT m[1] FROM regexp_matches(template, '\{([^{}]*)\}', 'g') AS m LOOP
        IF name <> ALL (columns) THEN
            RAISE EXCEPTION 'The template names {%}, which is not among the watched columns.', name
                USING ERRCODE = 'RV001', HINT = 'Watched are: ' || array_to_string(columns, ', ') || '.';
        END IF;
    END LOOP;
END $$;

-- Refuses settings that no source can have, before a constraint does it in its own words.
CREATE FUNCTION rowvec.check_settings(wanted rowvec.source) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (wanted.content_type ~ '^[a-z][a-z0-9_]{0,39}$') IS NOT TRUE THEN
        RAISE EXCEPTION 'The content type "%" can''t be used.', wanted.content_type
            USING ERRCODE = 'RV001', HINT = 'A small letter, then small letters, digits and _: at most 40 in all.';
    END IF;
    IF (wanted.chunking IN ('none', 'characters')) IS NOT TRUE THEN
        RAISE EXCEPTION 'There is no chunking "%".', wanted.chunking
            USING ERRCODE = 'RV001', HINT = 'It can be none or characters.';
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

-- Watches a table: creates its triggers and lets the daemon queue the rows that are already there, page by page,
-- at bulk priority. Watching again with the same settings does nothing; with others it replaces them.
CREATE FUNCTION rowvec.watch(
    relation regclass, content_type text, columns text[], priority integer DEFAULT 3, template text DEFAULT NULL,
    owner_column text DEFAULT NULL, chunking text DEFAULT 'none', chunk_characters integer DEFAULT 1500,
    chunk_overlap integer DEFAULT 0, notify boolean DEFAULT true
) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    plain boolean := (SELECT c.relkind = 'r' AND c.relpersistence <> 't' FROM pg_class c WHERE c.oid = relation);
    old rowvec.source;
    new rowvec.source;
BEGIN
    IF plain IS NOT TRUE OR EXISTS (SELECT FROM pg_inherits i WHERE relation IN (i.inhrelid, i.inhparent)) THEN
        RAISE EXCEPTION '% is not a plain table.', relation
            USING ERRCODE = 'RV001', HINT = 'Views, partitioned, inherited and temporary tables can''t be watched.';
    END IF;
    IF (priority BETWEEN 1 AND 100) IS NOT TRUE THEN
        RAISE EXCEPTION 'The priority must be 1 to 100, not %.', priority USING ERRCODE = 'RV001';
    END IF;
    IF cardinality(columns) IS NULL OR cardinality(columns) = 0 THEN
        RAISE EXCEPTION 'No columns to embed were given.' USING ERRCODE = 'RV001';
    END IF;
    IF cardinality(columns) > (SELECT count(*) FROM (SELECT DISTINCT unnest(columns)) AS different) THEN
        RAISE EXCEPTION 'A column was given twice.' USING ERRCODE = 'RV001';
    END IF;
    -- Locked first, so that a backfill passes the source over instead of meeting us at the table.
    SELECT * INTO old FROM rowvec.source s WHERE s.content_type = watch.content_type FOR UPDATE;
    IF old.relation <> watch.relation THEN
        RAISE EXCEPTION '"%" is already the content type of %.', content_type, old.relation
            USING ERRCODE = 'RV001', HINT = 'Choose another content type, or unwatch that table first.';
    END IF;

    new.content_type := content_type;
    new.relation := relation;
    new.key_columns := ARRAY[rowvec.key_column(relation)];
    new.text_columns := ARRAY(SELECT rowvec.column_number(relation, name) FROM unnest(columns) WITH ORDINALITY
                              AS given (name, position) ORDER BY position);
    new.labels := columns;
    new.owner_column := CASE WHEN owner_column IS NOT NULL THEN rowvec.column_number(relation, owner_column) END;
    new.template := template;
    new.priority := priority;
    new.chunking := chunking;
    new.chunk_characters := chunk_characters;
    new.chunk_overlap := chunk_overlap;
    new.notify := notify;
    new.backfilled := false;
    new.created_at := coalesce(old.created_at, now());
    new.updated_at := now();
    PERFORM rowvec.check_settings(new);
    PERFORM rowvec.check_text_column(relation, number) FROM unnest(new.text_columns) AS number;
    PERFORM rowvec.check_template(template, columns);
    IF (to_jsonb(old) - ARRAY['backfilled', 'backfill_after', 'updated_at'])
        = (to_jsonb(new) - ARRAY['backfilled', 'backfill_after', 'updated_at']) THEN
        RETURN false;
    END IF;

    DELETE FROM rowvec.source s WHERE s.content_type = watch.content_type;
    INSERT INTO rowvec.source SELECT new.*;
    PERFORM rowvec.drop_triggers(content_type);
    PERFORM rowvec.create_triggers(new);
    PERFORM pg_notify('rowvec', '');
    RETURN true;
END $$;

-- Ends a watch: its triggers, items and vectors go in one transaction. The fold is kept out while they go, or it
-- could make items of changes that it took before; not yet while the triggers wait for writers to end.
CREATE FUNCTION rowvec.unwatch(content_type text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM rowvec.source s WHERE s.content_type = unwatch.content_type;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'No source is watched as "%".', content_type
            USING ERRCODE = 'RV001', HINT = 'See `rowvec sources`.';
    END IF;
    PERFORM rowvec.drop_triggers(content_type);
    PERFORM pg_advisory_xact_lock(1919907702, 1);
    DELETE FROM rowvec.embedding_queue q WHERE q.content_type = unwatch.content_type;
    DELETE FROM rowvec.vector v WHERE v.content_type = unwatch.content_type;
    DELETE FROM rowvec.change c WHERE c.content_type = unwatch.content_type;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
