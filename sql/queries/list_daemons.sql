-- The living daemons.
SELECT id, host, pid, version, started_at, models, resting, load, carrier,
       extract(epoch FROM now() - beat_at)::double precision AS silent_seconds
FROM rowvec.daemon
WHERE beat_at > now() - interval '3 s'
ORDER BY started_at
