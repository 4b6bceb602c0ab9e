-- Forgets daemons that have been silent for an hour.
DELETE FROM rowvec.daemon WHERE beat_at < now() - interval '1 hour'
