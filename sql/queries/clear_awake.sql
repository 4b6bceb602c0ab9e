-- Tells writers that nobody is awake: the next commit notifies.
SELECT setval('rowvec.awake_until', 1)
