-- Lists the models whose table is gone.
SELECT m.name
FROM rowvec.model m
WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = 'rowvec' AND c.relname = 'vector_' || m.name)
ORDER BY m.name
