-- The models that have items, and how they are reached.
SELECT name, dimensions, served FROM rowvec.model WHERE active ORDER BY name
