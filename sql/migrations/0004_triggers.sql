-- migrate:up breaking:false
-- The view that a source's rows are read through, and the triggers that see them change.

-- The tables whose triggers together see every write: a partitioned table hands its own down, an inherited one does not.
CREATE FUNCTION rowvec.watched_tables(relation regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tree (member) AS (
        SELECT relation
        UNION
        SELECT i.inhrelid::regclass FROM tree t
        JOIN pg_class c ON c.oid = t.member AND c.relkind = 'r'
        JOIN pg_inherits i ON i.inhparent = t.member
    )
    SELECT t.member FROM tree t ORDER BY t.member
$$;

-- Whether triggers must be those of rows: statements that name another table of the tree fire no others.
CREATE FUNCTION rowvec.fires_by_row(relation regclass) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
    FROM pg_class c WHERE c.oid = relation
$$;

-- The name of the trigger for an operation. Of the names that were asked for, the insert's is the given one itself.
CREATE FUNCTION rowvec.trigger_name(watched rowvec.source, operation text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN watched.trigger_name IS NULL THEN format('rowvec_%s_%s', operation, watched.content_type)
                ELSE watched.trigger_name || CASE operation WHEN 'insert' THEN '' ELSE '_' || operation END END
$$;

-- The function that it calls, with its schema, quoted.
CREATE FUNCTION rowvec.function_name(watched rowvec.source, operation text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN watched.function_name IS NULL THEN format('rowvec.%I', format('on_%s_%s', operation, watched.content_type))
                ELSE format('%I.%I', parts[1], parts[2] || CASE operation WHEN 'insert' THEN '' ELSE '_' || operation END) END
    FROM (SELECT parse_ident(coalesce(watched.function_name, 'rowvec'))) AS given (parts)
$$;

-- Every trigger function of a source, of its own table and of its dependencies. Known by how it begins, not by its name: it
-- may have been renamed since, or its schema, and another source's may begin with the same name. One that a stranger has
-- written alike is none of ours to drop.
CREATE FUNCTION rowvec.trigger_functions(watched rowvec.source) RETURNS SETOF regprocedure
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.oid::regprocedure
    FROM pg_proc p
    WHERE p.prorettype = 'trigger'::regtype AND rowvec.strange_function(p.oid) IS NULL
      AND p.prosrc ~ format(E'^DECLARE\nappended integer;\nBEGIN\nappended := rowvec\\.[a-z0-9_]+\\(''%s'', ', watched.content_type)
$$;

-- Takes a source's view and triggers away; in this order, for readers lock the view and then the table.
CREATE FUNCTION rowvec.detach(watched rowvec.source) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    called regprocedure;
BEGIN
    EXECUTE format('DROP VIEW IF EXISTS rowvec.%I', 'rows_' || watched.content_type);
    FOR called IN SELECT * FROM rowvec.trigger_functions(watched) LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', called);
    END LOOP;
END $$;

-- The view that the rows are read through. Postgres keeps it right when tables and columns are renamed, and in a dump.
CREATE FUNCTION rowvec.view_query(watched rowvec.source) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation regclass := watched.relation;
    owner text := 'new.' || quote_ident(rowvec.column_name(relation, watched.owner_column)) || '::text';
    keys text;
    fields text;
BEGIN
    SELECT string_agg(format('new.%I AS key_%s', rowvec.column_name(relation, number), position), ', ' ORDER BY position)
    INTO keys FROM unnest(watched.key_columns) WITH ORDINALITY AS given (number, position);
    SELECT string_agg(format(
        CASE WHEN t.typcategory = 'A' OR t.oid IN ('json'::regtype, 'jsonb'::regtype)
             THEN 'to_json(new.%I)' ELSE 'to_json(new.%I::text)' END, a.attname), ', ' ORDER BY given.position)
    INTO fields FROM unnest(watched.text_columns) WITH ORDINALITY AS given (number, position)
    JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = given.number
    JOIN pg_type t ON t.oid = rowvec.base_type(a.atttypid);
    IF watched.text_function IS NOT NULL THEN
        fields := format('%s(new.*)', watched.text_function);
    END IF;
    RETURN format('SELECT %s, %s AS content_id, %s AS owner, json_build_array(%s)::text AS fields '
                  'FROM %s AS new WHERE %s', keys,
                  rowvec.content_id(relation, watched.key_columns, 'new'), coalesce(owner, 'NULL::text'), fields, relation,
                  coalesce(watched.condition, 'true'));
END $$;

CREATE FUNCTION rowvec.create_view(watched rowvec.source) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE VIEW rowvec.%I AS %s', 'rows_' || watched.content_type, rowvec.view_query(watched));
END $$;

-- The condition as the view has it: with today's names of the columns.
CREATE FUNCTION rowvec.seen_condition(watched rowvec.source) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN watched.condition IS NOT NULL AND seen IS NOT NULL
                THEN substring(pg_get_viewdef(seen) FROM '\n  WHERE (.*);$') ELSE watched.condition END
    FROM to_regclass(format('rowvec.%I', 'rows_' || watched.content_type)) AS seen
$$;

-- Refuses a source whose columns have other numbers than it knows, while its view, which goes by name, is right: a dump
-- leaves out dropped columns.
CREATE FUNCTION rowvec.check_numbers(watched rowvec.source) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    view regclass := to_regclass(format('rowvec.%I', 'rows_' || watched.content_type));
    same boolean;
BEGIN
    IF view IS NULL THEN
        RETURN;
    END IF;
    BEGIN
        EXECUTE 'CREATE TEMPORARY VIEW rowvec_view AS ' || rowvec.view_query(watched);
        same := pg_get_viewdef('pg_temp.rowvec_view'::regclass) = pg_get_viewdef(view);
        DROP VIEW pg_temp.rowvec_view;
    EXCEPTION WHEN syntax_error_or_access_rule_violation OR null_value_not_allowed THEN
        same := false;
    END;
    IF NOT same THEN
        RAISE EXCEPTION 'The columns of the source "%" have other numbers than when it was watched.', watched.content_type
            USING ERRCODE = 'RV001', HINT = 'Was the database restored from a dump? Watch the table again first.';
    END IF;
END $$;


-- One trigger function and its triggers. SECURITY DEFINER: writers of the table need no right of ours.
CREATE FUNCTION rowvec.create_trigger(
    watched rowvec.source, operation text, event text, tables regclass[], granularity text, body text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := rowvec.trigger_name(watched, operation);
    called text := rowvec.function_name(watched, operation);
    relation regclass;
    other text;
BEGIN
    -- How it begins is what `trigger_functions` knows it by.
    EXECUTE format(
        'CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
        'SET search_path = pg_catalog, pg_temp AS %L', called,
        format(E'DECLARE\nappended integer;\nBEGIN\n%s\nRETURN NULL;\nEND', body));
    -- Whatever default privileges give away: a trigger on a table of their own would remove our vectors.
    FOR other IN
        SELECT DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END
        FROM pg_proc p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g
        WHERE p.oid = to_regprocedure(called || '()') AND g.grantee <> p.proowner
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s() FROM %s', called, other);
    END LOOP;
    FOREACH relation IN ARRAY tables LOOP
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s %s EXECUTE FUNCTION %s()',
                       name, event, relation, granularity, called);
    END LOOP;
EXCEPTION
    WHEN duplicate_function THEN
        RAISE EXCEPTION 'There is a function %() already, which is not rowvec''s.', called
            USING ERRCODE = 'RV001', HINT = 'Drop it if the watch is to take its place, or give another name.';
    WHEN duplicate_object THEN
        RAISE EXCEPTION 'The table % has a trigger "%" already, which is not rowvec''s.', relation, name
            USING ERRCODE = 'RV001', HINT = 'Drop it if the watch is to take its place, or give another name.';
END $$;

-- The triggers of a source. The bodies name key columns only, so that no change of another column can break a
-- writer, and pass keys as arrays: joining a transition table would cache the plan of a bulk statement for later
-- single ones.
CREATE FUNCTION rowvec.create_triggers(watched rowvec.source) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    type text := watched.content_type;
    relation regclass := watched.relation;
    tables regclass[] := ARRAY(SELECT rowvec.watched_tables(relation));
    by_row boolean := rowvec.fires_by_row(relation);
    append text := format('appended := rowvec.append_changes_v1(%L, %%s, %s::smallint, ''write'', %L, %s);',
                          type, watched.priority, watched.notify, watched.urgent_rows);
    remove text := format('appended := rowvec.remove_rows_v1(%L, %%s, %s::smallint, %L, %s);',
                          type, watched.priority, watched.notify, watched.urgent_rows);
    old_id text := rowvec.content_id(relation, watched.key_columns, 'OLD');
    new_id text := rowvec.content_id(relation, watched.key_columns, 'NEW');
    row_id text := rowvec.content_id(relation, watched.key_columns, 'r');
    held text := coalesce(rowvec.over_row(relation, watched.condition, 'old') || ' IS TRUE', 'true');
    holds text := coalesce(rowvec.over_row(relation, watched.condition, 'new') || ' IS TRUE', 'true');
    moves text := rowvec.differs(relation, watched.key_columns || watched.owner_column);
    changes text := rowvec.differs(relation, watched.text_columns);
BEGIN
    -- A statement's trigger has no WHEN over columns: it appends all, and the reader applies the condition.
    IF by_row THEN
        PERFORM rowvec.create_trigger(watched, 'insert', 'INSERT', tables, format('FOR EACH ROW WHEN (%s)', holds),
                                      format(append, format('ARRAY[%s]', new_id)));
        PERFORM rowvec.create_trigger(watched, 'delete', 'DELETE', tables, format('FOR EACH ROW WHEN (%s)', held),
                                      format(remove, format('ARRAY[%s]', old_id)));
    ELSE
        PERFORM rowvec.create_trigger(
            watched, 'insert', 'INSERT', tables, 'REFERENCING NEW TABLE AS rows FOR EACH STATEMENT',
            format(append, format('ARRAY(SELECT %s FROM rows r)', row_id)));
        PERFORM rowvec.create_trigger(
            watched, 'delete', 'DELETE', tables, 'REFERENCING OLD TABLE AS rows FOR EACH STATEMENT',
            format(remove, format('ARRAY(SELECT %s FROM rows r)', row_id)));
    END IF;
    -- Not UPDATE OF: a column that a BEFORE trigger changes is not in the statement's list.
    PERFORM rowvec.create_trigger(
        watched, 'update', 'UPDATE', tables,
        format('FOR EACH ROW WHEN (NOT (%s) AND (%s OR NOT (%s)) AND %s)', moves, changes, held, holds),
        format(append, format('ARRAY[%s]', new_id)));
    -- A changed key or owner takes the old row out of search at once; the new one is embedded as any other.
    PERFORM rowvec.create_trigger(
        watched, 'move', 'UPDATE', tables, format('FOR EACH ROW WHEN ((%s) AND (%s OR %s))', moves, held, holds),
        format(remove, format('ARRAY[%s]', old_id)) || E'\n' || format(append, format('ARRAY[%s]', new_id)));
    IF watched.condition IS NOT NULL THEN
        PERFORM rowvec.create_trigger(
            watched, 'lose', 'UPDATE', tables, format('FOR EACH ROW WHEN (NOT (%s) AND %s AND NOT (%s))', moves, held, holds),
            format(remove, format('ARRAY[%s]', old_id)));
    END IF;
    -- Where it takes only one of several tables, what the others hold is asked for again: a change without an id.
    PERFORM rowvec.create_trigger(
        watched, 'truncate', 'TRUNCATE', tables, 'FOR EACH STATEMENT',
        format('appended := rowvec.remove_all_v1(%L, %s::smallint, %L);', type, watched.priority, watched.notify)
        || CASE WHEN cardinality(tables) > 1 THEN E'\n' || format(append, 'ARRAY[NULL]::text[]') ELSE '' END);
END $$;

-- The id that a row of another table names; NULL when a part of it is.
CREATE FUNCTION rowvec.expressed_id(relation regclass, expressions text[], alias text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts text[] := ARRAY(SELECT rowvec.over_row(relation, expression, alias)
                          FROM unnest(expressions) WITH ORDINALITY AS given (expression, position) ORDER BY position);
BEGIN
    IF cardinality(parts) = 1 THEN
        RETURN parts[1] || '::text';
    END IF;
    RETURN format('CASE WHEN %s THEN jsonb_build_array(%s)::text END',
                  array_to_string(parts, ' IS NOT NULL AND ') || ' IS NOT NULL', array_to_string(parts, ', '));
END $$;

-- The triggers on a table that a source's text is made of as well: they ask for the rows that it concerns.
CREATE FUNCTION rowvec.create_dependency_triggers(watched rowvec.source, number integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dependency jsonb := watched.depends_on -> (number - 1);
    relation regclass := dependency ->> 'table';
    expressions text[] := ARRAY(SELECT jsonb_array_elements_text(dependency -> 'content_id'));
    tables regclass[] := ARRAY(SELECT rowvec.watched_tables(relation));
    by_row boolean := rowvec.fires_by_row(relation);
    prefix text := 'd' || number || '_';
    append text := format('appended := rowvec.append_changes_v1(%L, array_remove(%%s, NULL), %s::smallint, ''write'', %L, %s);',
                          watched.content_type, watched.priority, watched.notify, watched.urgent_rows);
    old_id text := rowvec.expressed_id(relation, expressions, 'old');
    new_id text := rowvec.expressed_id(relation, expressions, 'new');
    row_ids text := format('ARRAY(SELECT DISTINCT %s FROM rows AS r)', rowvec.expressed_id(relation, expressions, 'r'));
BEGIN
    PERFORM rowvec.create_trigger(
        watched, prefix || 'insert', 'INSERT', tables,
        CASE WHEN by_row THEN 'FOR EACH ROW' ELSE 'REFERENCING NEW TABLE AS rows FOR EACH STATEMENT' END,
        format(append, CASE WHEN by_row THEN format('ARRAY[%s]', new_id) ELSE row_ids END));
    PERFORM rowvec.create_trigger(
        watched, prefix || 'delete', 'DELETE', tables,
        CASE WHEN by_row THEN 'FOR EACH ROW' ELSE 'REFERENCING OLD TABLE AS rows FOR EACH STATEMENT' END,
        format(append, CASE WHEN by_row THEN format('ARRAY[%s]', old_id) ELSE row_ids END));
    PERFORM rowvec.create_trigger(
        watched, prefix || 'update', 'UPDATE', tables,
        format('FOR EACH ROW WHEN (%s IS DISTINCT FROM %s OR %s)', old_id, new_id, rowvec.differs(
            relation, rowvec.column_numbers(relation, ARRAY(SELECT jsonb_array_elements_text(dependency -> 'columns'))))),
        format(append, format('ARRAY(SELECT DISTINCT unnest(ARRAY[%s, %s]))', old_id, new_id)));
    -- A change without an id asks for all rows.
    PERFORM rowvec.create_trigger(
        watched, prefix || 'truncate', 'TRUNCATE', tables, 'FOR EACH STATEMENT',
        format('appended := rowvec.append_changes_v1(%L, ARRAY[NULL]::text[], %s::smallint, ''write'', %L);',
               watched.content_type, watched.priority, watched.notify));
END $$;

CREATE FUNCTION rowvec.attach(watched rowvec.source) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM rowvec.create_view(watched);
    PERFORM rowvec.create_triggers(watched);
    PERFORM rowvec.create_dependency_triggers(watched, number)
    FROM generate_series(1, jsonb_array_length(watched.depends_on)) AS number;
END $$;

-- Which of a source's triggers are not there, or sleep: somebody removed or disabled them, or a table has joined the
-- tree since.
CREATE FUNCTION rowvec.missing_triggers(watched rowvec.source) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH expected (relation, operation) AS (
        SELECT t.member, operation
        FROM rowvec.watched_tables(watched.relation) AS t (member)
        CROSS JOIN unnest(ARRAY['insert', 'update', 'move', 'delete', 'truncate']
                          || CASE WHEN watched.condition IS NOT NULL THEN 'lose' END) AS operation
        WHERE operation IS NOT NULL
        UNION ALL
        SELECT t.member, format('d%s_%s', d.number, operation)
        FROM jsonb_array_elements(watched.depends_on) WITH ORDINALITY AS d (dependency, number)
        CROSS JOIN LATERAL rowvec.watched_tables(to_regclass(d.dependency ->> 'table')) AS t (member)
        CROSS JOIN unnest(ARRAY['insert', 'update', 'delete', 'truncate']) AS operation
    )
    SELECT format('%I on %s', rowvec.trigger_name(watched, e.operation), e.relation)
    FROM expected e
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger t
        -- A dependency that was renamed is known by its trigger only.
        WHERE t.tgrelid = coalesce(e.relation, t.tgrelid) AND t.tgenabled IN ('O', 'A')
          AND t.tgfoid = to_regprocedure(rowvec.function_name(watched, e.operation) || '()'))
    ORDER BY 1
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
