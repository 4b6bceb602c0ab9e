-- migrate:up breaking:false
-- The life of a model: added, watched, promoted and dropped while the application runs; and search by what it is.
--
-- Locks come in one order everywhere, so that nobody waits in a circle: rowvec.model, rowvec.backfill, the fold's own,
-- rowvec.embedding_queue, a table of vectors. Writers begin with the queue: behind us they wait, before us they are waited
-- for.

ALTER TABLE rowvec.model
    ADD COLUMN distance      text NOT NULL DEFAULT 'cosine' CHECK (distance IN ('cosine', 'l2', 'ip')),
    ADD COLUMN storage       text NOT NULL DEFAULT 'vector' CHECK (storage IN ('vector', 'halfvec')),
    ADD COLUMN window_tokens integer CHECK (window_tokens >= 1),
    ADD COLUMN served        jsonb CHECK (jsonb_typeof(served) = 'object' AND NOT served ? 'api_key');
COMMENT ON COLUMN rowvec.model.distance IS 'By which its vectors are compared.';
COMMENT ON COLUMN rowvec.model.storage IS 'The type of its vectors: halfvec has 16 bits a dimension, vector 32.';
COMMENT ON COLUMN rowvec.model.window_tokens IS 'The longest text that it takes whole; NULL: nobody has said.';
COMMENT ON COLUMN rowvec.model.served IS
    'How daemons reach it that have no settings of their own for it: provider, url and the like, never a key. NULL: they '
    'must have them.';

-- 1. Adding.

-- The table of a model's vectors; NULL where it is gone.
CREATE FUNCTION rowvec.model_table(name text) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_regclass(format('rowvec.%I', 'vector_' || name))
$$;

-- Refuses what is no model, before its table is made.
CREATE FUNCTION rowvec.check_model(wanted rowvec.model) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (wanted.name ~ '^[a-z][a-z0-9_]{0,39}$') IS NOT TRUE THEN
        RAISE EXCEPTION '"%" is no name for a model.', wanted.name
            USING ERRCODE = 'RV001', HINT = 'A small letter, then small letters, digits and _: at most 40 in all.';
    END IF;
    IF EXISTS (SELECT FROM rowvec.model m WHERE m.name = wanted.name) THEN
        RAISE EXCEPTION 'There is a model "%" already.', wanted.name
            USING ERRCODE = 'RV001', HINT = 'Give the new one another name: searches go on with the old one meanwhile.';
    END IF;
    IF rowvec.model_table(wanted.name) IS NOT NULL THEN
        RAISE EXCEPTION 'There is a table % already, of no model.', rowvec.model_table(wanted.name)
            USING ERRCODE = 'RV001', HINT = 'Drop it, or give the model another name.';
    END IF;
    IF (wanted.dimensions BETWEEN 1 AND 16000) IS NOT TRUE THEN
        RAISE EXCEPTION 'A model has 1 to 16,000 dimensions, not %.', wanted.dimensions USING ERRCODE = 'RV001';
    END IF;
    IF (wanted.distance IN ('cosine', 'l2', 'ip')) IS NOT TRUE THEN
        RAISE EXCEPTION 'There is no distance "%".', wanted.distance
            USING ERRCODE = 'RV001', HINT = 'There are cosine, l2 and ip.';
    END IF;
    IF (wanted.storage IN ('vector', 'halfvec')) IS NOT TRUE THEN
        RAISE EXCEPTION 'Vectors can''t be stored as "%".', wanted.storage
            USING ERRCODE = 'RV001', HINT = 'As vector, with 32 bits a dimension, or as halfvec, with 16.';
    END IF;
    IF wanted.window_tokens < 1 THEN
        RAISE EXCEPTION 'A model takes texts of 1 token at least, not %.', wanted.window_tokens USING ERRCODE = 'RV001';
    END IF;
END $$;

-- Refuses a source whose chunks a model would not take whole: Latin text has about four characters a token, others fewer.
CREATE FUNCTION rowvec.check_window(watched rowvec.source, embedding rowvec.model) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF watched.chunking <> 'none' AND watched.chunk_characters / 4.0 > embedding.window_tokens THEN
        RAISE EXCEPTION 'Chunks of % characters are about % tokens; the model "%" takes %.',
            to_char(watched.chunk_characters, 'FM999,999'), to_char(ceil(watched.chunk_characters / 4.0), 'FM999,999'),
            embedding.name, to_char(embedding.window_tokens, 'FM999,999')
            USING ERRCODE = 'RV001', HINT = format('Watch "%s" with chunk_characters => %s or fewer.',
                                                   watched.content_type, 4 * embedding.window_tokens);
    END IF;
END $$;

-- Registers a model and makes its table. An active one gets items for all rows.
DROP FUNCTION rowvec.add_model(text, integer, boolean);
CREATE FUNCTION rowvec.add_model(
    name text, dimensions integer, active boolean DEFAULT true, distance text DEFAULT 'cosine',
    storage text DEFAULT 'vector', window_tokens integer DEFAULT NULL, served jsonb DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    vectors text := 'vector_' || name;
    wanted rowvec.model;
BEGIN
    -- At once what activating needs: two that had a lesser lock would wait for each other.
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    wanted := (name, dimensions, false, false, now(), distance, storage, window_tokens, served);
    PERFORM rowvec.check_model(wanted);
    -- Not where a daemon's start activates it: by then there are rows that only it can embed.
    PERFORM rowvec.check_window(s, wanted) FROM rowvec.source s
    WHERE add_model.active AND s.chunking <> 'none' ORDER BY s.chunk_characters DESC, s.content_type LIMIT 1;
    INSERT INTO rowvec.model SELECT wanted.*;
    -- Room for one more version of each row in its page: a chunk that only moves is then a HOT update.
    EXECUTE format('CREATE TABLE rowvec.%I (embedding %s(%s) NOT NULL) INHERITS (rowvec.vector) '
                   'WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)', vectors, storage, dimensions);
    -- Not the chunk_index: it moves with every paragraph put in before.
    EXECUTE format('ALTER TABLE rowvec.%I ADD PRIMARY KEY (content_type, content_id, chunk_hash, repeat)', vectors);
    EXECUTE format('CREATE INDEX ON rowvec.%I (chunk_hash)', vectors);
    PERFORM rowvec.grant_daemon_rights(role) FROM rowvec.daemon_roles() AS role;
    PERFORM rowvec.activate_model(name) WHERE add_model.active;
END $$;

-- The check of a watch's settings, as before, and that active models take its chunks. A source that has its chunks already
-- keeps them: watching it again must always be possible.
ALTER FUNCTION rowvec.check_settings(rowvec.source) RENAME TO check_values;
CREATE FUNCTION rowvec.check_settings(wanted rowvec.source) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM rowvec.check_values(wanted);
    PERFORM rowvec.check_window(wanted, m) FROM rowvec.model m
    WHERE m.active AND NOT EXISTS (
        SELECT FROM rowvec.source s
        WHERE s.content_type = wanted.content_type AND s.chunking = wanted.chunking
          AND s.chunk_characters = wanted.chunk_characters)
    ORDER BY m.window_tokens LIMIT 1;
END $$;

-- 2. Promoting.

-- By source, what search would miss with this model in the place of the default one. `missing`: rows of its backfill that
-- are not folded yet; rows that wait, of which the default model holds vectors and this one none. A row that was written
-- since the backfill came to its end, less than five minutes ago (the longest that a lane takes), is about to come and
-- counts for nothing, or a table that is written all the time would never be complete; neither does an update of a row
-- that this model holds. Vectors from before the backfill are those of a model that slept: they count as held only for a
-- fresh item. A paused source is looked at as it stands: nobody fills it.
CREATE FUNCTION rowvec.model_gaps(name text) RETURNS TABLE (
    content_type text, backfilled boolean, missing bigint, failed bigint, paused boolean, stopped boolean
) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH tables AS (
        SELECT rowvec.model_table(model_gaps.name) AS own,
               (SELECT rowvec.model_table(d.name) FROM rowvec.model d WHERE d.is_default AND d.name <> model_gaps.name) AS other
    ),
    sources AS (
        SELECT s.content_type, s.paused_at IS NOT NULL AS paused, coalesce(b.done, false) AS done,
               coalesce(b.stopped, false) AS stopped, b.began_at,
               CASE WHEN b.done THEN greatest(b.updated_at, now() - interval '5 minutes') ELSE 'infinity' END AS fresh_after
        FROM rowvec.source s
        LEFT JOIN rowvec.backfill b ON b.content_type = s.content_type AND b.model = model_gaps.name
    ),
    -- OFFSET 0: a look into the index for each item, never a join with all vectors.
    counted AS (
        SELECT s.*,
               (SELECT count(*) FROM rowvec.change c
                WHERE c.content_type = s.content_type AND c.model = model_gaps.name)
               + (SELECT count(*) FROM rowvec.embedding_queue q
                  WHERE q.content_type = s.content_type AND q.model = model_gaps.name AND q.status <> 'failed'
                    AND NOT EXISTS (
                        SELECT FROM rowvec.vector v
                        WHERE v.tableoid = t.own AND v.content_type = q.content_type AND v.content_id = q.content_id
                          AND (v.updated_at >= s.began_at OR q.created_at > s.fresh_after) OFFSET 0)
                    AND (t.other IS NULL OR EXISTS (
                        SELECT FROM rowvec.vector v
                        WHERE v.tableoid = t.other AND v.content_type = q.content_type AND v.content_id = q.content_id
                          AND v.updated_at <= s.fresh_after OFFSET 0))) AS waiting,
               CASE WHEN s.paused AND NOT s.done THEN (
                   SELECT count(DISTINCT o.content_id) FROM rowvec.vector o
                   WHERE o.tableoid = t.other AND o.content_type = s.content_type AND NOT EXISTS (
                       SELECT FROM rowvec.vector v
                       WHERE v.tableoid = t.own AND v.content_type = o.content_type AND v.content_id = o.content_id)) END
                   AS unseen,
               (SELECT count(*) FROM rowvec.embedding_queue q
                WHERE q.content_type = s.content_type AND q.model = model_gaps.name AND q.status = 'failed') AS failed
        FROM sources s CROSS JOIN tables t
    )
    SELECT c.content_type, c.done OR coalesce(c.unseen = 0, false), greatest(c.waiting, c.unseen), c.failed, c.paused, c.stopped
    FROM counted c
    ORDER BY c.content_type
$$;

-- Whether search would miss nothing with it.
CREATE FUNCTION rowvec.is_complete(name text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT rowvec.model_table(name) IS NOT NULL
           AND NOT EXISTS (SELECT FROM rowvec.model_gaps(name) g WHERE NOT g.backfilled OR g.missing > 0)
$$;

-- Refuses a model that search would miss rows with, in figures. Failed items stand in nobody's way: they are told elsewhere.
CREATE FUNCTION rowvec.check_complete(name text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gaps text;
    hint text;
BEGIN
    IF rowvec.model_table(name) IS NULL THEN
        RAISE EXCEPTION 'The table of the model "%" is gone.', name
            USING ERRCODE = 'RV001', HINT = 'Drop the model and add it again.';
    END IF;
    SELECT string_agg(format(CASE
                          WHEN g.backfilled OR g.paused THEN '%2$s rows of "%1$s"'
                          WHEN g.missing = 0 THEN 'the rows of "%1$s" that are still to be queued'
                          ELSE '%2$s rows of "%1$s" and those that are still to be queued' END,
                          g.content_type, to_char(g.missing, 'FM999,999,999,999')), ', ' ORDER BY g.content_type),
           CASE WHEN bool_or(g.paused) THEN format('Paused sources are not filled (%s): resume or unwatch them.',
                                                   string_agg(g.content_type, ', ' ORDER BY g.content_type) FILTER (WHERE g.paused))
                WHEN bool_or(g.stopped AND NOT g.backfilled) THEN 'Its backfill was stopped: `rowvec backfill` goes on with it.'
                ELSE 'Searches would miss them. `rowvec backfill` shows how far it is.' END
    INTO gaps, hint
    FROM rowvec.model_gaps(name) g WHERE NOT g.backfilled OR g.missing > 0;
    IF gaps IS NOT NULL THEN
        RAISE EXCEPTION 'The model "%" is not complete, it lacks %.', name, gaps USING ERRCODE = 'RV001', HINT = hint;
    END IF;
END $$;

-- The model of that name.
CREATE FUNCTION rowvec.find_model(name text) RETURNS rowvec.model
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found rowvec.model;
BEGIN
    SELECT * INTO found FROM rowvec.model m WHERE m.name = find_model.name;
    IF found.name IS NULL THEN
        RAISE EXCEPTION 'There is no model "%".', name USING ERRCODE = 'RV001', HINT = 'See `rowvec model list`.';
    END IF;
    RETURN found;
END $$;

-- Makes a model the default of search, at once. Refused while it lacks rows. False when it is the default already.
CREATE FUNCTION rowvec.promote_model(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen rowvec.model;
BEGIN
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    chosen := rowvec.find_model(name);
    IF chosen.is_default THEN
        RETURN false;
    END IF;
    IF NOT chosen.active THEN
        RAISE EXCEPTION 'The model "%" is inactive: its vectors are not kept up to date.', name
            USING ERRCODE = 'RV001', HINT = 'A daemon that has a provider for it makes it active.';
    END IF;
    PERFORM rowvec.check_complete(name);
    UPDATE rowvec.model m SET is_default = false WHERE m.is_default;
    UPDATE rowvec.model m SET is_default = true WHERE m.name = promote_model.name;
    RETURN true;
END $$;

-- 3. Ending.

-- Keeps out whoever makes, takes or removes items, until the end of this transaction. Rows' locks would not do: a writer
-- can hold one of them and wait for another.
CREATE FUNCTION rowvec.lock_items() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    LOCK TABLE rowvec.backfill IN EXCLUSIVE MODE;
    -- The fold: it could make items for a model after we have looked.
    PERFORM pg_advisory_xact_lock(1919907702, 1);
    LOCK TABLE rowvec.embedding_queue IN EXCLUSIVE MODE;
END $$;

-- Takes a model's items away, until it is activated again. Its vectors stay: those of rows that change meanwhile become
-- old, so it is not searched; another one is, a complete one if there is. False when it was not active.
CREATE OR REPLACE FUNCTION rowvec.deactivate_model(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    next text;
BEGIN
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM rowvec.model m WHERE m.name = deactivate_model.name AND m.active) THEN
        RETURN false;
    END IF;
    SELECT m.name INTO next FROM rowvec.model m
    WHERE m.active AND m.name <> deactivate_model.name
      AND NOT EXISTS (SELECT FROM rowvec.model d WHERE d.is_default AND d.name <> deactivate_model.name)
    ORDER BY rowvec.is_complete(m.name) DESC, m.created_at, m.name LIMIT 1;
    PERFORM rowvec.lock_items();
    UPDATE rowvec.model m SET active = false, is_default = false WHERE m.name = deactivate_model.name;
    UPDATE rowvec.model m SET is_default = true WHERE m.name = next;
    DELETE FROM rowvec.embedding_queue q WHERE q.model = deactivate_model.name;
    DELETE FROM rowvec.backfill b WHERE b.model = deactivate_model.name;
    RETURN true;
END $$;

-- Refuses to drop a model that others need. The one that is searched gives way to another first: dropped together with all
-- vectors it would leave searches without an answer. The only model of all may go: there is no other to promote, and
-- whoever has got its name or dimensions wrong must be able to begin again.
CREATE FUNCTION rowvec.check_unneeded(chosen rowvec.model) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    others text;
    views text;
BEGIN
    SELECT string_agg(m.name, ', ' ORDER BY m.name) INTO others
    FROM rowvec.model m
    WHERE m.name <> chosen.name AND (m.active OR NOT EXISTS (SELECT FROM rowvec.model a WHERE a.active AND a.name <> chosen.name));
    IF chosen.is_default AND others IS NOT NULL THEN
        RAISE EXCEPTION 'The model "%" is the one that is searched.', chosen.name
            USING ERRCODE = 'RV001', HINT = format('Promote another first: %s.', others);
    END IF;
    WITH RECURSIVE seen (relation) AS (
        SELECT rowvec.model_table(chosen.name)::oid
        UNION
        SELECT r.ev_class
        FROM seen s
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.relation
        JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    )
    SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname) INTO views
    FROM seen s JOIN pg_class c ON c.oid = s.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid <> rowvec.model_table(chosen.name);
    IF views IS NOT NULL THEN
        RAISE EXCEPTION 'The vectors of the model "%" are shown by %.', chosen.name, views
            USING ERRCODE = 'RV001', HINT = format('If nobody needs that any more, drop it first: DROP VIEW %s.', views);
    END IF;
END $$;

-- Removes a model with its items and vectors.
CREATE FUNCTION rowvec.drop_model(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
BEGIN
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    PERFORM rowvec.check_unneeded(rowvec.find_model(name));
    PERFORM rowvec.lock_items();
    -- First what is waited for: searches, stores and writers under way. The table can be gone already.
    EXECUTE format('DROP TABLE IF EXISTS rowvec.%I', 'vector_' || name);
    DELETE FROM rowvec.embedding_queue q WHERE q.model = drop_model.name;
    DELETE FROM rowvec.change c WHERE c.model = drop_model.name;
    DELETE FROM rowvec.model m WHERE m.name = drop_model.name;
    PERFORM pg_notify('rowvec', '');
EXCEPTION WHEN dependent_objects_still_exist THEN
    RAISE EXCEPTION 'Something still needs the table of the model "%": %.', name, SQLERRM
        USING ERRCODE = 'RV001', HINT = 'Drop that first.';
END $$;

-- 4. Search.

-- How two vectors of a model are compared: the operator, whose nearest have the least, and the score that is made of it.
CREATE FUNCTION rowvec.measure(distance text, OUT operator text, OUT score text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.operator, m.score
    FROM (VALUES ('cosine', '<=>', '1 - %s'), ('l2', '<->', '1 / (1 + %s)'), ('ip', '<#>', '- %s')) AS m (distance, operator, score)
    WHERE m.distance = measure.distance
$$;

-- Whether searches can go through an index: a whole, valid HNSW index whose operators are those of the model.
CREATE FUNCTION rowvec.has_search_index(chosen rowvec.model) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am a ON a.oid = c.relam
        JOIN pg_opclass o ON o.oid = i.indclass[0]
        JOIN pg_attribute e ON e.attrelid = i.indrelid AND e.attnum = i.indkey[0]
        WHERE i.indrelid = rowvec.model_table(chosen.name) AND i.indisvalid AND i.indisready AND i.indpred IS NULL
          AND a.amname = 'hnsw' AND e.attname = 'embedding'
          AND o.opcname = format('%s_%s_ops', chosen.storage, chosen.distance))
$$;

-- The nearest rows by looking at every vector. Rows first, then the chunk of each: however many chunks a row has near,
-- it hides no other.
CREATE FUNCTION rowvec.search_all(
    chosen rowvec.model, embedding vector, owner text, content_types text[], max_results integer
) RETURNS TABLE (content_type text, content_id text, chunk_index integer, chunk_text text, score double precision)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    measure record := rowvec.measure(chosen.distance);
    compared text := format('w.embedding %s $1::%s', measure.operator, chosen.storage);
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH nearest AS (
            SELECT w.content_type, w.content_id, min(%2$s) AS distance
            FROM rowvec.%1$I AS w
            WHERE ($2 IS NULL OR w.owner = $2) AND ($3 IS NULL OR w.content_type = ANY ($3))
            GROUP BY w.content_type, w.content_id
            ORDER BY distance, w.content_type, w.content_id
            LIMIT $4
        )
        SELECT n.content_type, n.content_id, c.chunk_index, c.chunk_text, %3$s
        FROM nearest n
        CROSS JOIN LATERAL (
            SELECT w.chunk_index, w.chunk_text
            FROM rowvec.%1$I AS w
            WHERE w.content_type = n.content_type AND w.content_id = n.content_id
            ORDER BY %2$s, w.chunk_index
            LIMIT 1
        ) AS c
        ORDER BY n.distance, n.content_type, n.content_id
    $q$, 'vector_' || chosen.name, compared, format(measure.score, 'n.distance'))
    USING embedding, owner, content_types, max_results;
END $$;

-- The rows of the nearest chunks, `reach` of them, by the plan that is cheapest: through the index or, under a filter that
-- leaves little, not. `chunks`: how many there were; fewer than `reach` when the index came to its end, or gave up.
CREATE FUNCTION rowvec.search_near(
    chosen rowvec.model, embedding vector, owner text, content_types text[], reach integer,
    OUT types text[], OUT ids text[], OUT indexes integer[], OUT texts text[], OUT scores double precision[], OUT chunks bigint
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    measure record := rowvec.measure(chosen.distance);
    compared text := format('w.embedding %s $1::%s', measure.operator, chosen.storage);
BEGIN
    -- A filter that is not there must not stand in the plan: with it, it would be estimated.
    EXECUTE format($q$
        WITH near AS MATERIALIZED (
            SELECT w.content_type, w.content_id, w.chunk_index, w.chunk_text, %2$s AS distance
            FROM rowvec.%1$I AS w
            WHERE %4$s AND %5$s
            ORDER BY %2$s
            LIMIT $4
        ),
        nearest AS (
            SELECT DISTINCT ON (n.content_type, n.content_id) n.*
            FROM near n
            ORDER BY n.content_type, n.content_id, n.distance, n.chunk_index
        )
        SELECT array_agg(n.content_type), array_agg(n.content_id), array_agg(n.chunk_index), array_agg(n.chunk_text),
               array_agg(%3$s), (SELECT count(*) FROM near)
        FROM (SELECT * FROM nearest ORDER BY distance, content_type, content_id) AS n
    $q$, 'vector_' || chosen.name, compared, format(measure.score, 'n.distance'),
         CASE WHEN owner IS NULL THEN 'true' ELSE 'w.owner = $2' END,
         CASE WHEN content_types IS NULL THEN 'true' ELSE 'w.content_type = ANY ($3)' END)
    INTO types, ids, indexes, texts, scores, chunks USING embedding, owner, content_types, reach;
END $$;

-- The nearest rows through the index; none where that would be too few. As many chunks are fetched as it takes to have
-- different rows enough.
CREATE FUNCTION rowvec.search_index(
    chosen rowvec.model, embedding vector, owner text, content_types text[], max_results integer
) RETURNS TABLE (content_type text, content_id text, chunk_index integer, chunk_text text, score double precision)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- Not by the function's own SET clause: a role that is no superuser could then restore no dump of it before pgvector
    -- is loaded. Relaxed: it is sorted afterwards anyway, and the strict order leaves out what it finds late.
    settings jsonb := jsonb_build_object(
        'hnsw.iterative_scan', 'relaxed_order',
        'hnsw.ef_search', least(greatest(4 * max_results, 100, current_setting('hnsw.ef_search')::integer), 1000),
        -- Without a filter always through the index: the planner takes vectors outside of their table for free.
        'enable_sort', CASE WHEN owner IS NULL AND content_types IS NULL THEN 'off' ELSE current_setting('enable_sort') END);
    before jsonb := (SELECT jsonb_object_agg(key, current_setting(key)) FROM jsonb_object_keys(settings) AS key);
    reach integer := greatest(4 * max_results, 40);
    near record;
BEGIN
    PERFORM set_config(key, value, true) FROM jsonb_each_text(settings);
    LOOP
        near := rowvec.search_near(chosen, embedding, owner, content_types, reach);
        EXIT WHEN cardinality(near.ids) >= max_results OR near.chunks < reach OR reach >= 10000;
        reach := least(reach * 8, 10000);
    END LOOP;
    PERFORM set_config(key, value, true) FROM jsonb_each_text(before);
    IF cardinality(near.ids) >= max_results THEN
        RETURN QUERY SELECT * FROM unnest(near.types, near.ids, near.indexes, near.texts, near.scores) LIMIT max_results;
    END IF;
END $$;

-- The model to be searched with, and that it can be. NULL: the default one. VOLATILE, so that it sees what was committed
-- since the statement began.
CREATE FUNCTION rowvec.choose_model(name text, embedding vector) RETURNS rowvec.model
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    chosen rowvec.model;
BEGIN
    SELECT * INTO chosen FROM rowvec.model m
    WHERE CASE WHEN choose_model.name IS NULL THEN m.is_default ELSE m.name = choose_model.name END;
    IF chosen.name IS NULL THEN
        RAISE EXCEPTION 'There is no model "%".', coalesce(name, '(default)') USING ERRCODE = 'RV001';
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
    RETURN chosen;
END $$;

-- The nearest chunks by meaning. `owner` must be named: NULL searches the rows of everybody. A row is answered
-- once, by its nearest chunk. `score` is higher for what is nearer: of a model with the distance cosine, the cosine
-- similarity, 1 for the same direction; with l2, 1 / (1 + distance), 1 for the same vector; with ip, the inner product.
-- Through an HNSW index it is as exact as that index; a filter never makes it answer less than there is.
-- It looks twice: a model can be dropped, and another be the default, while it waits for the table.
CREATE OR REPLACE FUNCTION rowvec.search(
    query text, embedding vector, owner text, content_types text[] DEFAULT NULL, model text DEFAULT NULL,
    max_results integer DEFAULT 10
) RETURNS TABLE (content_type text, content_id text, chunk_index integer, chunk_text text, score double precision)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    chosen rowvec.model;
    lost text;
BEGIN
    LOOP
        chosen := rowvec.choose_model(model, embedding);
        BEGIN
            IF max_results BETWEEN 1 AND 1000 AND rowvec.has_search_index(chosen) THEN
                RETURN QUERY SELECT * FROM rowvec.search_index(chosen, embedding, owner, content_types, max_results);
            END IF;
            -- Neither an index, nor rows enough through it.
            IF NOT FOUND THEN
                RETURN QUERY SELECT * FROM rowvec.search_all(chosen, embedding, owner, content_types, max_results);
            END IF;
            RETURN;
        EXCEPTION WHEN undefined_table THEN
            IF chosen.name = lost THEN
                RAISE EXCEPTION 'The table of the model "%" is gone.', lost
                    USING ERRCODE = 'RV001', HINT = '`rowvec doctor` shows what else is wrong.';
            END IF;
            lost := chosen.name;
        END;
    END LOOP;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
