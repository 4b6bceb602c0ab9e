-- migrate:up breaking:false
-- Where a chunk stands in its row's text, and under which headings. Neither is in an index, and both are metadata alone for
-- the vectors that are there: no table is rewritten.

-- The place is kept as the way to the next chunk, or each edit would move all chunks behind it: with 200 of them that
-- made a store five times slower and wrote eight times as much.
ALTER TABLE rowvec.vector ADD COLUMN chunk_step integer, ADD COLUMN heading text NOT NULL DEFAULT '';
COMMENT ON COLUMN rowvec.vector.chunk_step IS
    'How many characters after this chunk the next one of its row begins; of the last one, its length. NULL: not known.';
COMMENT ON COLUMN rowvec.vector.heading IS
    'The title and headings that the chunk stands under: the model was given them, an empty line and chunk_text.';

-- The chunks of all models, and where in its row's text each begins, in characters from 0. That is NULL where a chunk in
-- front was stored before places were kept: until the row is embedded again.
CREATE VIEW rowvec.chunk AS
SELECT substr(c.relname, length('vector_') + 1) AS model, v.content_type, v.content_id, v.chunk_index,
       CASE WHEN count(v.chunk_step) OVER ahead = count(*) OVER ahead
            THEN coalesce(sum(v.chunk_step) OVER ahead, 0)::integer END AS chunk_start,
       v.heading, v.chunk_text, v.owner
FROM rowvec.vector v
JOIN pg_class c ON c.oid = v.tableoid
WINDOW ahead AS (PARTITION BY v.tableoid, v.content_type, v.content_id ORDER BY v.chunk_index
                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING);
