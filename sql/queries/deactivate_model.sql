-- Takes a model's items away; false when it was not active.
-- $1 name: text
SELECT rowvec.deactivate_model($1::text) AS changed
