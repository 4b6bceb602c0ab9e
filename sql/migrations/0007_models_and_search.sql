-- migrate:up breaking:false
-- Models and their tables, and search.

-- Registers a model and makes its table. An active one gets items for all rows.
CREATE FUNCTION rowvec.add_model(name text, dimensions integer, active boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    vectors text := 'vector_' || name;
BEGIN
    -- At once what activating needs: two that had a lesser lock would wait for each other.
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO rowvec.model (name, dimensions, active) VALUES (name, dimensions, false);
    -- Room for one more version of each row in its page: a chunk that only moves is then a HOT update.
    EXECUTE format('CREATE TABLE rowvec.%I (embedding vector(%s) NOT NULL) INHERITS (rowvec.vector) '
                   'WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)', vectors, dimensions);
    -- Not the chunk_index: it moves with every paragraph put in before.
    EXECUTE format('ALTER TABLE rowvec.%I ADD PRIMARY KEY (content_type, content_id, chunk_hash, repeat)', vectors);
    EXECUTE format('CREATE INDEX ON rowvec.%I (chunk_hash)', vectors);
    PERFORM rowvec.grant_daemon_rights(role) FROM rowvec.daemon_roles() AS role;
    PERFORM rowvec.activate_model(name) WHERE active;
END $$;

-- Gives a model items from now on. The first one is the default of search. All rows are queued for it: what it holds
-- already is not sent to it again. False when it was active before. SECURITY DEFINER: a daemon that has a provider for it
-- may say so.
CREATE FUNCTION rowvec.activate_model(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- One at a time, this and its opposite: each must see who is the default.
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    UPDATE rowvec.model m
    SET active = true, is_default = NOT EXISTS (SELECT FROM rowvec.model d WHERE d.is_default)
    WHERE m.name = activate_model.name AND NOT m.active;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM rowvec.backfill b WHERE b.model = activate_model.name;
    PERFORM pg_notify('rowvec', '');
    RETURN true;
END $$;

-- Takes a model's items away, until it is activated again. Its vectors stay: those of rows that change meanwhile become
-- old, so it is not searched. False when it was not active.
CREATE FUNCTION rowvec.deactivate_model(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- The fold is kept out, or it could make items for the model after we have looked.
    PERFORM pg_advisory_xact_lock(1919907702, 1);
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    UPDATE rowvec.model m SET active = false, is_default = false WHERE m.name = deactivate_model.name AND m.active;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM rowvec.embedding_queue q WHERE q.model = deactivate_model.name;
    DELETE FROM rowvec.backfill b WHERE b.model = deactivate_model.name;
    UPDATE rowvec.model m SET is_default = true
    WHERE NOT EXISTS (SELECT FROM rowvec.model d WHERE d.is_default)
      AND m.name = (SELECT a.name FROM rowvec.model a WHERE a.active ORDER BY a.created_at, a.name LIMIT 1);
    RETURN true;
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
    IF NOT chosen.active THEN
        RAISE EXCEPTION 'The model "%" is inactive: its vectors are no longer kept up to date.', chosen.name
            USING ERRCODE = 'RV001';
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
