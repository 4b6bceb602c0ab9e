-- Sets the session for the build of an index: memory, processes, and no limits of time but that it ends with its client.
-- How many processes follows from these, not from the size of the table, which long vectors do not stand in.
-- $1 memory_kilobytes: bigint, $2 workers: integer
SELECT set_config(s.name, s.setting, false)
FROM (VALUES ('maintenance_work_mem', ($1::bigint)::text || 'kB'), ('max_parallel_maintenance_workers', ($2::integer)::text),
             ('min_parallel_table_scan_size', '0'), ('statement_timeout', '0'), ('lock_timeout', '0'),
             ('transaction_timeout', '0'), ('idle_session_timeout', '0'),
             ('client_connection_check_interval', '2s')) AS s (name, setting)
JOIN pg_settings known ON known.name = s.name
WHERE s.name <> 'client_connection_check_interval' OR version() LIKE '%linux%'
