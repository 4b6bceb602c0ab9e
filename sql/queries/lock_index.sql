-- Lets one session at a time build the index of a model, until it ends or lets go; false when another does.
-- $1 model: text
SELECT pg_try_advisory_lock(1919907703, hashtext($1::text)) AS locked
