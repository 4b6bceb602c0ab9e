-- Lists where sessions are set to fire no triggers: for a role, a database, or (both NULL) the whole server.
SELECT r.rolname::text AS role, d.datname::text AS database
FROM pg_db_role_setting s
LEFT JOIN pg_roles r ON r.oid = s.setrole
LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE 'session_replication_role=replica' = ANY (ARRAY(SELECT lower(unnest(s.setconfig))))
  AND (s.setdatabase = 0 OR d.datname = current_database())
UNION ALL
SELECT NULL, NULL
FROM pg_settings
WHERE name = 'session_replication_role' AND setting = 'replica' AND source NOT IN ('database', 'user', 'database user')
ORDER BY 1, 2
