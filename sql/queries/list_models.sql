-- The registered models.
SELECT name, dimensions, active, is_default FROM rowvec.model ORDER BY name
