-- The registered models.
SELECT name, dimensions, active, is_default, distance, storage, window_tokens, served FROM rowvec.model ORDER BY name
