-- Lists transactions so old that they keep vacuum from the dead rows of the queue; of sessions, those that may be seen.
-- $1 seconds: double precision
SELECT 'session' AS kind, a.pid::text AS name, a.usename::text AS role, a.application_name, coalesce(a.state, '') AS state,
       extract(epoch FROM now() - a.xact_start)::double precision AS seconds
FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
  AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL)
  AND a.xact_start < now() - make_interval(secs => $1::double precision)
UNION ALL
SELECT 'prepared', p.gid, p.owner::text, '', 'prepared',
       extract(epoch FROM now() - p.prepared)::double precision
FROM pg_prepared_xacts p
WHERE p.database = current_database() AND p.prepared < now() - make_interval(secs => $1::double precision)
ORDER BY seconds DESC
LIMIT 10
