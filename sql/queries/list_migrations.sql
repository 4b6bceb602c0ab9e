-- The migrations that were applied to this database.
SELECT version, name, checksum, breaking FROM rowvec.schema_migration ORDER BY version
