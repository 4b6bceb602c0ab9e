-- When each task was last begun, and whether somebody is at it.
SELECT name, ran_at, daemon IS NOT NULL AS running FROM rowvec.task ORDER BY name
