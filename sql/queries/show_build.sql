-- How far the build of an index is, and whose transaction it waits for, as far as that may be seen.
-- $1 pid: integer
SELECT p.phase, p.blocks_done, p.blocks_total, p.lockers_done, p.lockers_total, nullif(p.current_locker_pid, 0) AS holder,
       a.usename::text AS holder_role, a.application_name AS holder_name, a.state AS holder_state,
       extract(epoch FROM now() - a.xact_start)::double precision AS holder_seconds
FROM pg_stat_progress_create_index p
LEFT JOIN pg_stat_activity a ON a.pid = nullif(p.current_locker_pid, 0)
WHERE p.pid = $1::integer
