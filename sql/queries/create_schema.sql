-- The schema and its book of migrations.
CREATE SCHEMA IF NOT EXISTS rowvec;
CREATE TABLE IF NOT EXISTS rowvec.schema_migration (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    breaking   boolean NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
