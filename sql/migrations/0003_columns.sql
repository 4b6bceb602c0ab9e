-- migrate:up breaking:false
-- What a table must have to be watched: its key, columns with text, expressions over its rows.

-- A table by the name a person gives it, read as in any statement of theirs: no search_path is set here.
CREATE FUNCTION rowvec.find_table(name text) RETURNS regclass
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN name::regclass;
EXCEPTION WHEN undefined_table OR invalid_schema_name OR invalid_name OR syntax_error OR feature_not_supported THEN
    RAISE EXCEPTION 'There is no table %.', name
        USING ERRCODE = 'RV001', HINT = 'Give its schema too, and quote a name with capitals: public."Course".';
END $$;

-- A function by its name, read in the same way.
CREATE FUNCTION rowvec.find_function(name text) RETURNS regproc
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN name::regproc;
EXCEPTION WHEN undefined_function OR ambiguous_function OR invalid_name OR syntax_error OR invalid_schema_name THEN
    RAISE EXCEPTION 'There is no single function %.', name
        USING ERRCODE = 'RV001', HINT = 'Give its schema too; several functions of one name can''t be told apart.';
END $$;

-- Refuses what has no rows of its own to watch.
CREATE FUNCTION rowvec.check_table(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class c
                   WHERE c.oid = relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't') THEN
        RAISE EXCEPTION '% is no table that can be watched.', coalesce(relation::text, 'NULL')
            USING ERRCODE = 'RV001', HINT = 'Views, foreign and temporary tables can''t be watched.';
    END IF;
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = relation AND c.relnamespace = 'rowvec'::regnamespace
                                        AND c.relname <> 'document') THEN
        RAISE EXCEPTION '% is one of rowvec''s own tables.', relation USING ERRCODE = 'RV001';
    END IF;
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

CREATE FUNCTION rowvec.column_numbers(relation regclass, column_names text[]) RETURNS smallint[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT rowvec.column_number(relation, name)
                 FROM unnest(column_names) WITH ORDINALITY AS given (name, position) ORDER BY position)
$$;

-- The name that a column has today.
CREATE FUNCTION rowvec.column_name(relation regclass, number smallint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.attname FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attnum = number AND NOT a.attisdropped
$$;

CREATE FUNCTION rowvec.column_names(relation regclass, numbers smallint[]) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT rowvec.column_name(relation, number)
                 FROM unnest(numbers) WITH ORDINALITY AS given (number, position) ORDER BY position)
$$;

-- The keys by which rows can be told apart for good: unique, never NULL, over plain columns, checked at once.
CREATE FUNCTION rowvec.list_keys(relation regclass) RETURNS TABLE (columns smallint[], is_primary boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT unnest(i.indkey[0:i.indnkeyatts - 1])), i.indisprimary
    FROM pg_index i
    WHERE i.indrelid = relation AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
      AND NOT EXISTS (
          SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) AS number
          LEFT JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = number AND a.attnum > 0
          WHERE a.attnotnull IS NOT TRUE)
$$;

-- The columns of the key: those that are asked for, else the primary key, else the only other key there is.
CREATE FUNCTION rowvec.find_key(relation regclass, asked text[]) RETURNS smallint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted smallint[] := rowvec.column_numbers(relation, asked);
    keys smallint[];
    found integer;
BEGIN
    SELECT count(DISTINCT k.columns), min(k.columns) INTO found, keys FROM rowvec.list_keys(relation) k
    WHERE CASE WHEN asked IS NOT NULL THEN k.columns @> wanted AND k.columns <@ wanted
               ELSE k.is_primary OR NOT EXISTS (SELECT FROM rowvec.list_keys(relation) p WHERE p.is_primary) END;
    IF asked IS NOT NULL AND found > 0 THEN
        keys := wanted;
    ELSIF asked IS NOT NULL THEN
        RAISE EXCEPTION 'The columns (%) are no key of %.', array_to_string(asked, ', '), relation
            USING ERRCODE = 'RV001', HINT = 'A key is a unique index, not deferrable, over columns that are NOT NULL.';
    ELSIF found = 0 THEN
        RAISE EXCEPTION 'The table % has no key.', relation
            USING ERRCODE = 'RV001', HINT = 'Give it a primary key, or a unique index over columns that are NOT NULL '
                                            '(neither deferrable): rowvec finds a row again by its key.';
    ELSIF found > 1 THEN
        RAISE EXCEPTION 'The table % has no primary key but several others.', relation
            USING ERRCODE = 'RV001', HINT = 'Name the columns of the one to use.';
    END IF;
    PERFORM rowvec.check_key_column(relation, number) FROM unnest(keys) AS number;
    RETURN keys;
END $$;

-- Refuses keys that have more than one way to be written.
CREATE FUNCTION rowvec.check_key_column(relation regclass, number smallint) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    SELECT a.attname, a.atttypid::regtype AS type, coalesce(b.oid, t.oid)::regtype AS base, t.typtype INTO found
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_type b ON b.oid = rowvec.base_type(a.atttypid)
    WHERE a.attrelid = relation AND a.attnum = number;
    IF found.typtype <> 'e' AND found.base NOT IN ('smallint', 'integer', 'bigint', 'uuid', 'text', 'varchar') THEN
        RAISE EXCEPTION 'The key column "%" of % is a %.', found.attname, relation, found.type
            USING ERRCODE = 'RV001', HINT = 'Keys can be integers, uuid, text, varchar and enums.';
    END IF;
END $$;

-- The type below a domain.
CREATE FUNCTION rowvec.base_type(type oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE under (type, base) AS (
        SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = type
        UNION ALL
        SELECT t.oid, t.typbasetype FROM under u JOIN pg_type t ON t.oid = u.base
    )
    SELECT u.type FROM under u WHERE u.base = 0
$$;

CREATE FUNCTION rowvec.key_types(relation regclass, keys smallint[]) RETURNS regtype[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT a.atttypid::regtype FROM unnest(keys) WITH ORDINALITY AS given (number, position)
                 JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = number ORDER BY position)
$$;

-- In what form types write their values: all integers in one, text and varchar in one.
CREATE FUNCTION rowvec.written_forms(types regtype[]) RETURNS regtype[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT CASE WHEN base IN ('smallint'::regtype, 'integer', 'bigint') THEN 'bigint'
                             WHEN base = 'varchar'::regtype THEN 'text' ELSE base END
                 FROM unnest(types) WITH ORDINALITY AS given (type, position)
                 CROSS JOIN LATERAL (SELECT rowvec.base_type(type)::regtype) AS below (base) ORDER BY position)
$$;

-- Refuses what has no text worth embedding.
CREATE FUNCTION rowvec.check_text_column(relation regclass, number smallint) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
BEGIN
    SELECT a.attname, a.atttypid::regtype AS type,
           coalesce(element.typcategory, t.typcategory) AS category,
           coalesce(element.oid, t.oid) IN ('json'::regtype, 'jsonb'::regtype) AS is_json INTO found
    FROM pg_attribute a JOIN pg_type t ON t.oid = rowvec.base_type(a.atttypid)
    LEFT JOIN pg_type element ON element.oid = rowvec.base_type(t.typelem) AND t.typcategory = 'A'
    WHERE a.attrelid = relation AND a.attnum = number;
    IF found.category NOT IN ('S', 'N', 'E') AND NOT found.is_json THEN
        RAISE EXCEPTION 'The column "%" of % is a %, which has no text to embed.',
            found.attname, relation, found.type
            USING ERRCODE = 'RV001', HINT = 'Columns can be text, varchar, enums, numbers, json, jsonb and arrays.';
    END IF;
END $$;

-- An expression over a table's row as Postgres writes it, names qualified. It must depend on nothing but the row: it
-- is tried as a part of an index, which asks just that. Whoever writes to the table evaluates it, so everybody
-- must be allowed to call its functions.
CREATE FUNCTION rowvec.check_expression(
    relation regclass, expression text, what text, index_form text,
    OUT written text, OUT type regtype, OUT virtual text
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    refused text;
    strange text;
BEGIN
    EXECUTE format('CREATE TEMPORARY TABLE rowvec_probe (LIKE %s)', relation);
    BEGIN
        EXECUTE format('CREATE INDEX rowvec_probe_index ON pg_temp.rowvec_probe ' || index_form, expression);
    EXCEPTION WHEN syntax_error_or_access_rule_violation OR feature_not_supported OR data_exception THEN
        RAISE EXCEPTION 'The % can''t be used: %.', what, SQLERRM
            USING ERRCODE = 'RV001', HINT = 'It may depend on the columns of its own row only, and not on the time; '
                                            'functions and types outside pg_catalog need their schema.';
    END;
    SELECT coalesce(pg_get_expr(i.indpred, i.indrelid), pg_get_expr(i.indexprs, i.indrelid),
                    quote_ident(rowvec.column_name(i.indrelid, i.indkey[0]))), a.atttypid
    INTO written, type
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indexrelid
    WHERE i.indexrelid = 'pg_temp.rowvec_probe_index'::regclass;
    SELECT min(p.oid::regprocedure::text) FILTER (WHERE NOT has_function_privilege('public', p.oid, 'EXECUTE')),
           min(rowvec.strange_function(p.oid))
    INTO refused, strange
    FROM pg_depend d
    LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
    JOIN pg_proc p ON p.oid = CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
    WHERE d.classid = 'pg_class'::regclass AND d.objid = 'pg_temp.rowvec_probe_index'::regclass;
    SELECT string_agg(a.attname, ', ') INTO virtual
    FROM pg_depend d
    JOIN pg_attribute probe ON probe.attrelid = d.refobjid AND probe.attnum = d.refobjsubid
    JOIN pg_attribute a ON a.attrelid = relation AND a.attname = probe.attname AND a.attgenerated = 'v'
    WHERE d.classid = 'pg_class'::regclass AND d.objid = 'pg_temp.rowvec_probe_index'::regclass
      AND d.refclassid = 'pg_class'::regclass;
    DROP TABLE pg_temp.rowvec_probe;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'The % calls %, which not everybody may execute.', what, refused
            USING ERRCODE = 'RV001', HINT = 'Whoever writes to the table calls it: GRANT EXECUTE ON FUNCTION '
                                            || refused || ' TO PUBLIC.';
    END IF;
    PERFORM rowvec.refuse_strange(strange);
END $$;

-- A function that somebody else could change: it runs with the rights of whoever owns the schema rowvec.
CREATE FUNCTION rowvec.strange_function(called oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner
    WHERE p.oid = called AND NOT r.rolsuper AND r.rolname <> current_user
      AND p.proowner <> (SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = 'rowvec')
$$;

CREATE FUNCTION rowvec.refuse_strange(called text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF called IS NOT NULL THEN
        RAISE EXCEPTION 'The function % belongs to another role.', called
            USING ERRCODE = 'RV001', HINT = 'It would run with the rights of the owner of the schema rowvec, and its '
                                            'owner could change it: ALTER FUNCTION ... OWNER TO CURRENT_USER.';
    END IF;
END $$;

-- An expression with each column behind an alias: Postgres itself writes it so when there is more than one table.
CREATE FUNCTION rowvec.over_row(relation regclass, expression text, alias text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    written text;
BEGIN
    IF expression IS NULL THEN
        RETURN NULL;
    END IF;
    -- A name that no column has: of a column alone, Postgres would leave its own name out.
    EXECUTE format('CREATE TEMPORARY VIEW rowvec_expression AS SELECT (%s) AS "rowvec value" FROM %s AS %I '
                   'CROSS JOIN (SELECT) AS alone', expression, relation, alias);
    written := pg_get_viewdef('pg_temp.rowvec_expression'::regclass);
    DROP VIEW pg_temp.rowvec_expression;
    written := substring(written FROM '^ SELECT (.*) AS "rowvec value"\n   FROM ');
    IF written IS NULL THEN
        RAISE EXCEPTION 'The expression can''t be used: %.', expression USING ERRCODE = 'RV001';
    END IF;
    RETURN '(' || written || ')';
END $$;

-- The id of a row behind an alias: the key as text, of several columns as the text of a JSON array.
CREATE FUNCTION rowvec.content_id(relation regclass, keys smallint[], alias text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE cardinality(keys) WHEN 1 THEN min(format('%s.%I::text', alias, name))
           ELSE format('jsonb_build_array(%s)::text', string_agg(format('%s.%I', alias, name), ', ' ORDER BY position)) END
    FROM unnest(rowvec.column_names(relation, keys)) WITH ORDINALITY AS given (name, position)
$$;

-- Whether columns differ between OLD and NEW. As text in the collation "C": json has no equality, and some types and
-- collations call different texts equal.
CREATE FUNCTION rowvec.differs(relation regclass, numbers smallint[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(string_agg(format('OLD.%1$I::text COLLATE "C" IS DISTINCT FROM NEW.%1$I::text COLLATE "C"',
                                      rowvec.column_name(relation, number)), ' OR '), 'false')
    FROM unnest(numbers) AS number
    WHERE number IS NOT NULL
$$;

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

-- Refuses a text function that does not make a text of a row of the table.
CREATE FUNCTION rowvec.check_text_function(relation regclass, called regproc) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_proc p JOIN pg_class c ON c.oid = relation
        WHERE p.oid = called AND p.prokind = 'f' AND NOT p.proretset AND p.pronargs = 1
          AND p.proargtypes[0] = c.reltype AND p.prorettype IN ('text'::regtype, 'varchar'::regtype)) THEN
        RAISE EXCEPTION '%() does not make a text of a row of %.', called, relation
            USING ERRCODE = 'RV001', HINT = format('Its form is %s(%s) RETURNS text.', called, relation);
    END IF;
    PERFORM rowvec.refuse_strange(rowvec.strange_function(called));
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
