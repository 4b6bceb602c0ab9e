-- migrate:up breaking:false
-- Models and their tables, reading rows, and search.

-- Registers a model and makes its table. The first one is the default of search. All sources are queued again:
-- models that already hold a row's text are not asked again.
CREATE FUNCTION rowvec.add_model(name text, dimensions integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    vectors text := 'vector_' || name;
BEGIN
    INSERT INTO rowvec.model (name, dimensions, is_default)
    VALUES (name, dimensions, NOT EXISTS (SELECT FROM rowvec.model));
    -- Room for one more version of each row in its page: a chunk that only moves is then a HOT update.
    EXECUTE format('CREATE TABLE rowvec.%I (embedding vector(%s) NOT NULL) INHERITS (rowvec.vector) '
                   'WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)', vectors, dimensions);
    -- Not the chunk_index: it moves with every paragraph put in before.
    EXECUTE format('ALTER TABLE rowvec.%I ADD PRIMARY KEY (content_type, content_id, chunk_hash, repeat)', vectors);
    EXECUTE format('CREATE INDEX ON rowvec.%I (chunk_hash)', vectors);
    UPDATE rowvec.source SET backfilled = false, backfill_after = NULL;
    PERFORM pg_notify('rowvec', '');
END $$;

-- Raises when a source's table or one of its columns is gone. (DROP COLUMN ... CASCADE takes the triggers along.)
CREATE FUNCTION rowvec.check_readable(watched rowvec.source) RETURNS void
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

-- The current text of rows, as JSON arrays of the watched columns in their order. Rows that are gone are missing
-- from the answer. Names are looked up at each call, so a renamed column or table is read on; SECURITY DEFINER,
-- so the daemon needs no right on the table; row security off, so that a policy raises instead of hiding rows,
-- which would be taken for deletions.
CREATE FUNCTION rowvec.read_rows(content_type text, content_ids text[])
RETURNS TABLE (content_id text, owner text, fields text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    watched rowvec.source;
BEGIN
    SELECT * INTO watched FROM rowvec.source s WHERE s.content_type = read_rows.content_type;
    PERFORM rowvec.check_readable(watched);
    RETURN QUERY EXECUTE (
        SELECT format(
            'SELECT %1$I::text, %2$s, json_build_array(%3$s)::text FROM %4$s WHERE %1$I = ANY ($1::%5$s[])',
            key.attname, coalesce(quote_ident(rowvec.column_name(watched.relation, watched.owner_column)) || '::text',
                                  'NULL::text'),
            (SELECT string_agg(format(
                CASE WHEN t.typcategory = 'A' OR a.atttypid IN ('json'::regtype, 'jsonb'::regtype)
                     THEN 'to_json(%I)' ELSE 'to_json(%I::text)' END, a.attname), ', ' ORDER BY given.position)
             FROM unnest(watched.text_columns) WITH ORDINALITY AS given (number, position)
             JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attnum = given.number
             JOIN pg_type t ON t.oid = a.atttypid),
            watched.relation, key.atttypid::regtype)
        FROM pg_attribute key WHERE key.attrelid = watched.relation AND key.attnum = watched.key_columns[1])
    USING content_ids;
END $$;

-- Appends the changes of the next page of rows that were there before the watch, at bulk priority, and moves the
-- cursor, in one transaction. Returns how many; NULL when another daemon is at it or nothing is left to do.
CREATE FUNCTION rowvec.append_backfill(content_type text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    watched rowvec.source;
    keys text[];
BEGIN
    SELECT * INTO watched FROM rowvec.source s
    WHERE s.content_type = append_backfill.content_type AND NOT s.backfilled FOR UPDATE SKIP LOCKED;
    IF watched.content_type IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM rowvec.check_readable(watched);
    -- The page's size stands in the text: as a parameter it would be estimated at a tenth of the table and the
    -- plan would sort it whole for every page.
    EXECUTE (
        SELECT format(
            'SELECT array_agg(page.key::text) FROM (SELECT %1$I AS key FROM %2$s %3$s ORDER BY %1$I LIMIT 1000) AS page',
            key.attname, watched.relation,
            CASE WHEN watched.backfill_after IS NOT NULL
                 THEN format('WHERE %I > $1::%s', key.attname, key.atttypid::regtype) END)
        FROM pg_attribute key WHERE key.attrelid = watched.relation AND key.attnum = watched.key_columns[1])
    INTO keys USING watched.backfill_after;
    IF keys IS NULL THEN
        UPDATE rowvec.source s SET backfilled = true, updated_at = now()
        WHERE s.content_type = append_backfill.content_type;
        RETURN 0;
    END IF;
    PERFORM rowvec.append_changes_v1(
        content_type, keys, greatest(watched.priority, 5)::smallint, 'write', false);
    UPDATE rowvec.source s SET backfill_after = keys[cardinality(keys)], updated_at = now()
    WHERE s.content_type = append_backfill.content_type;
    RETURN cardinality(keys);
END $$;

-- The nearest chunks by meaning. `owner` must be named: NULL searches the rows of everybody. A row is answered
-- once, by its nearest chunk. `score` is the cosine similarity, 1 for the same direction.
CREATE FUNCTION rowvec.search(
    query text, embedding vector, owner text, content_types text[] DEFAULT NULL, model text DEFAULT NULL,
    max_results integer DEFAULT 10
) RETURNS TABLE (content_type text, content_id text, chunk_index integer, chunk_text text, score double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    chosen rowvec.model;
BEGIN
    SELECT * INTO chosen FROM rowvec.model m
    WHERE CASE WHEN search.model IS NULL THEN m.is_default ELSE m.name = search.model END;
    IF chosen.name IS NULL THEN
        RAISE EXCEPTION 'There is no model "%".', coalesce(model, '(default)') USING ERRCODE = 'RV001';
    END IF;
    IF embedding IS NULL THEN
        RAISE EXCEPTION 'A search needs the embedding of its query.'
            USING ERRCODE = 'RV001', HINT = 'The command `rowvec search` embeds the text first.';
    END IF;
    IF vector_dims(embedding) <> chosen.dimensions THEN
        RAISE EXCEPTION 'The model "%" has % dimensions, the given embedding has %.',
            chosen.name, chosen.dimensions, vector_dims(embedding) USING ERRCODE = 'RV001';
    END IF;
    -- Rows first, then the chunk of each: however many chunks a row has near, it hides no other.
    RETURN QUERY EXECUTE format($q$
        WITH nearest AS (
            SELECT w.content_type, w.content_id, min(w.embedding <=> $1) AS distance
            FROM rowvec.%1$I AS w
            WHERE ($2 IS NULL OR w.owner = $2) AND ($3 IS NULL OR w.content_type = ANY ($3))
            GROUP BY w.content_type, w.content_id
            ORDER BY distance, w.content_type, w.content_id
            LIMIT $4
        )
        SELECT n.content_type, n.content_id, c.chunk_index, c.chunk_text, 1 - n.distance
        FROM nearest n
        CROSS JOIN LATERAL (
            SELECT w.chunk_index, w.chunk_text
            FROM rowvec.%1$I AS w
            WHERE w.content_type = n.content_type AND w.content_id = n.content_id
            ORDER BY w.embedding <=> $1, w.chunk_index
            LIMIT 1
        ) AS c
        ORDER BY n.distance, n.content_type, n.content_id
    $q$, 'vector_' || chosen.name) USING embedding, owner, content_types, max_results;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
