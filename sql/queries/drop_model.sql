-- Removes a model with its items and vectors.
-- $1 name: text
SELECT rowvec.drop_model($1::text)
