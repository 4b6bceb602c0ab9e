-- Books an applied migration.
-- $1 version: integer, $2 name: text, $3 checksum: text, $4 breaking: boolean
INSERT INTO rowvec.schema_migration (version, name, checksum, breaking)
VALUES ($1::integer, $2::text, $3::text, $4::boolean)
