-- migrate:up breaking:false
-- The life of a model: added, watched, promoted and dropped while the application runs.

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

-- Refuses what is no model, before its table is made.
CREATE FUNCTION rowvec.check_model(name text, dimensions integer, distance text, storage text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (name ~ '^[a-z][a-z0-9_]{0,39}$') IS NOT TRUE THEN
        RAISE EXCEPTION '"%" is no name for a model: small letters, digits and _, at most 40.', name USING ERRCODE = 'RV001';
    END IF;
    IF EXISTS (SELECT FROM rowvec.model m WHERE m.name = check_model.name) THEN
        RAISE EXCEPTION 'There is a model "%" already.', name
            USING ERRCODE = 'RV001', HINT = 'Give the new one another name: searches go on with the old one meanwhile.';
    END IF;
    IF (dimensions BETWEEN 1 AND 16000) IS NOT TRUE THEN
        RAISE EXCEPTION 'A model has 1 to 16,000 dimensions, not %.', dimensions USING ERRCODE = 'RV001';
    END IF;
    IF (distance IN ('cosine', 'l2', 'ip')) IS NOT TRUE THEN
        RAISE EXCEPTION 'There is no distance "%".', distance USING ERRCODE = 'RV001', HINT = 'There are cosine, l2 and ip.';
    END IF;
    IF (storage IN ('vector', 'halfvec')) IS NOT TRUE THEN
        RAISE EXCEPTION 'Vectors can''t be stored as "%".', storage
            USING ERRCODE = 'RV001', HINT = 'As vector, with 32 bits a dimension, or as halfvec, with 16.';
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
BEGIN
    -- At once what activating needs: two that had a lesser lock would wait for each other.
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    PERFORM rowvec.check_model(name, dimensions, distance, storage);
    INSERT INTO rowvec.model (name, dimensions, active, distance, storage, window_tokens, served)
    VALUES (name, dimensions, false, distance, storage, window_tokens, served);
    -- Room for one more version of each row in its page: a chunk that only moves is then a HOT update.
    EXECUTE format('CREATE TABLE rowvec.%I (embedding %s(%s) NOT NULL) INHERITS (rowvec.vector) '
                   'WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)', vectors, storage, dimensions);
    -- Not the chunk_index: it moves with every paragraph put in before.
    EXECUTE format('ALTER TABLE rowvec.%I ADD PRIMARY KEY (content_type, content_id, chunk_hash, repeat)', vectors);
    EXECUTE format('CREATE INDEX ON rowvec.%I (chunk_hash)', vectors);
    PERFORM rowvec.grant_daemon_rights(role) FROM rowvec.daemon_roles() AS role;
    PERFORM rowvec.activate_model(name) WHERE active;
END $$;

-- What a model lacks to be searched in the place of another: rows not yet looked at or queued for it that have no
-- vector of it yet. What was written after the backfill came to its end counts only where it waits without one.
CREATE FUNCTION rowvec.model_gaps(name text) RETURNS TABLE (content_type text, backfilled boolean, missing bigint, failed bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.content_type, coalesce(b.done, false),
           (SELECT count(*) FROM rowvec.change c WHERE c.content_type = s.content_type AND c.model = model_gaps.name)
           + (SELECT count(*) FROM rowvec.embedding_queue q
              WHERE q.content_type = s.content_type AND q.model = model_gaps.name AND q.status <> 'failed'
                AND q.lane = 'bulk' AND q.created_at <= coalesce(b.updated_at, 'infinity')),
           (SELECT count(*) FROM rowvec.embedding_queue q
            WHERE q.content_type = s.content_type AND q.model = model_gaps.name AND q.status = 'failed')
    FROM rowvec.source s
    LEFT JOIN rowvec.backfill b ON b.content_type = s.content_type AND b.model = model_gaps.name
    WHERE s.paused_at IS NULL
$$;

-- Makes a model the default of search, at once. Refused while it lacks rows. False when it is the default already.
CREATE FUNCTION rowvec.promote_model(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen rowvec.model;
    gap record;
BEGIN
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO chosen FROM rowvec.model m WHERE m.name = promote_model.name;
    IF chosen.name IS NULL THEN
        RAISE EXCEPTION 'There is no model "%".', name USING ERRCODE = 'RV001', HINT = 'See `rowvec model list`.';
    END IF;
    IF NOT chosen.active THEN
        RAISE EXCEPTION 'The model "%" is inactive: its vectors are not kept up to date.', name USING ERRCODE = 'RV001';
    END IF;
    SELECT * INTO gap FROM rowvec.model_gaps(name) g WHERE NOT g.backfilled OR g.missing > 0 ORDER BY g.content_type LIMIT 1;
    IF gap.content_type IS NOT NULL THEN
        RAISE EXCEPTION 'The model "%" is not complete: of "%", % rows wait%.', name, gap.content_type, gap.missing,
            CASE WHEN gap.backfilled THEN '' ELSE ' and others are still to be queued' END
            USING ERRCODE = 'RV001', HINT = 'Searches would miss them. `rowvec backfill` shows how far it is.';
    END IF;
    IF chosen.is_default THEN
        RETURN false;
    END IF;
    UPDATE rowvec.model m SET is_default = false WHERE m.is_default;
    UPDATE rowvec.model m SET is_default = true WHERE m.name = promote_model.name;
    RETURN true;
END $$;

-- Removes a model with its items and vectors. The default one is refused while there is another to take its place.
CREATE FUNCTION rowvec.drop_model(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    others text;
BEGIN
    -- The fold is kept out, or it could make items for the model after we have looked.
    PERFORM pg_advisory_xact_lock(1919907702, 1);
    LOCK TABLE rowvec.model IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM rowvec.model m WHERE m.name = drop_model.name) THEN
        RAISE EXCEPTION 'There is no model "%".', name USING ERRCODE = 'RV001', HINT = 'See `rowvec model list`.';
    END IF;
    SELECT string_agg(m.name, ', ' ORDER BY m.name) INTO others FROM rowvec.model m
    WHERE m.active AND m.name <> drop_model.name AND EXISTS (
        SELECT FROM rowvec.model d WHERE d.name = drop_model.name AND d.is_default);
    IF others IS NOT NULL THEN
        RAISE EXCEPTION 'The model "%" is the one that is searched.', name
            USING ERRCODE = 'RV001', HINT = format('Promote another first: %s.', others);
    END IF;
    DELETE FROM rowvec.embedding_queue q WHERE q.model = drop_model.name;
    DELETE FROM rowvec.change c WHERE c.model = drop_model.name;
    DELETE FROM rowvec.model m WHERE m.name = drop_model.name;
    EXECUTE format('DROP TABLE rowvec.%I', 'vector_' || name);
    PERFORM pg_notify('rowvec', '');
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
