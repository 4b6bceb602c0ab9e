-- Tells writers that a daemon is awake for a while and needs no NOTIFY.
-- $1 seconds: double precision
SELECT setval('rowvec.awake_until', ((extract(epoch FROM clock_timestamp()) + $1::double precision) * 1000000)::bigint)
