-- migrate:up breaking:false
-- Texts that are queued by hand: rows of a table of our own, watched as any other.

CREATE TABLE rowvec.document (
    content_type text NOT NULL CHECK (octet_length(content_type) BETWEEN 1 AND 100),
    content_id   text NOT NULL CHECK (octet_length(content_id) BETWEEN 1 AND 500),
    content_text text NOT NULL,
    content_hash text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (content_type, content_id)
);
COMMENT ON COLUMN rowvec.document.content_hash IS 'What its writer calls the text''s hash: kept and shown, never relied on.';

-- Least urgent: whoever queues a text names its priority, and the more urgent one counts.
SELECT rowvec.watch('rowvec.document', 'document', '{content_text}', priority => 100, template => '{content_text}',
                    chunking => 'characters');

-- Queues a text that is no row of a watched table, or replaces the one of the same name. It is found as a row of the
-- source `document`, whose id is the JSON array of content type and id, and removed by DELETE FROM rowvec.document.
CREATE FUNCTION rowvec.enqueue_text(
    content_type text, content_id text, text text, priority integer DEFAULT 5, content_hash text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (octet_length(content_type) BETWEEN 1 AND 100 AND octet_length(content_id) BETWEEN 1 AND 500) IS NOT TRUE THEN
        RAISE EXCEPTION 'A content type must have 1 to 100 bytes, a content id 1 to 500.' USING ERRCODE = 'RV001';
    END IF;
    IF (text ~ '\S') IS NOT TRUE THEN
        RAISE EXCEPTION 'There is no text to embed.' USING ERRCODE = 'RV001';
    END IF;
    INSERT INTO rowvec.document AS d (content_type, content_id, content_text, content_hash)
    VALUES (enqueue_text.content_type, enqueue_text.content_id, text, enqueue_text.content_hash)
    ON CONFLICT ON CONSTRAINT document_pkey DO UPDATE
    SET content_text = excluded.content_text, content_hash = excluded.content_hash, updated_at = now();
    -- Looked at last: the insert waits for a watch that is under way.
    IF EXISTS (SELECT FROM rowvec.source s WHERE s.content_type = enqueue_text.content_type) THEN
        RAISE EXCEPTION 'The text of "%" comes from its table.', content_type
            USING ERRCODE = 'RV001', HINT = 'Change the row, or ask for it again without a text: rowvec.enqueue().';
    END IF;
    PERFORM rowvec.enqueue('document', jsonb_build_array(content_type, content_id)::text, coalesce(priority, 5));
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rowvec FROM PUBLIC;
