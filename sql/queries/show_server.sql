-- What kind of database this is.
SELECT current_setting('server_version_num')::integer AS server_version,
       (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'vector') AS vector_version,
       (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector') AS vector_schema,
       EXISTS (SELECT FROM pg_available_extensions a WHERE a.name = 'vector') AS vector_available,
       pg_is_in_recovery() AS in_recovery,
       (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'rowvec' AND c.relname = 'schema_migration') IS NOT NULL AS migrated,
       current_user::text AS role
