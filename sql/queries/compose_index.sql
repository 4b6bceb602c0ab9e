-- Composes the statements that build and remove the index of a model: in a function they can't be run.
-- $1 model: text, $2 m: integer, $3 ef_construction: integer
SELECT format('CREATE INDEX CONCURRENTLY %I ON rowvec.%I USING hnsw (embedding %I.%I) WITH (m = %s, ef_construction = %s)',
              'vector_' || m.name || '_hnsw', 'vector_' || m.name, n.nspname, m.storage || '_' || m.distance || '_ops',
              $2::integer, $3::integer) AS creation,
       format('DROP INDEX CONCURRENTLY IF EXISTS rowvec.%I', 'vector_' || m.name || '_hnsw') AS removal,
       to_regclass(format('rowvec.%I', 'vector_' || m.name || '_hnsw')) IS NOT NULL AS left_over
FROM rowvec.model m
JOIN pg_extension e ON e.extname = 'vector'
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE m.name = $1::text
