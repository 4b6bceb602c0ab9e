-- migrate:up breaking:false
-- What is taken away while a command or a daemon looks at it, a watch that ends or a model that is dropped, is no error.

-- Does the next page of a source's work in the background, as before. NULL also when its model was dropped meanwhile. (A lock
-- on the model's row instead would be taken after that of the source: a drop and a page could wait in a circle.)
CREATE OR REPLACE FUNCTION rowvec.append_backfill(content_type text, model text) RETURNS integer
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
EXCEPTION WHEN foreign_key_violation THEN
    RETURN NULL;
END $$;

-- How many rows a source has, as before. NULL also when its watch ended or was paused meanwhile: its view is gone.
CREATE OR REPLACE FUNCTION rowvec.estimate_rows(watched rowvec.source) RETURNS bigint
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
EXCEPTION WHEN undefined_table THEN
    RETURN NULL;
END $$;
