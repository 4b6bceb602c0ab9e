-- Gives a model items from now on; false when it was active before.
-- $1 name: text
SELECT rowvec.activate_model($1::text) AS changed
