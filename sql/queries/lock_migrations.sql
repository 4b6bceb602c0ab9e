-- Lets one runner migrate, or add models, at a time.
SELECT pg_advisory_xact_lock(1919907702, 2)
