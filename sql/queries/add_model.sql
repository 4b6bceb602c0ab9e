-- Registers a model and makes its table.
-- $1 name: text, $2 dimensions: integer
SELECT rowvec.add_model($1::text, $2::integer)
