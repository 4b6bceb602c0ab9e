-- Registers a model and makes its table.
-- $1 name: text, $2 dimensions: integer, $3 distance: text, $4 storage: text, $5 window_tokens: integer, $6 served: jsonb
SELECT rowvec.add_model($1::text, $2::integer, true, $3::text, $4::text, $5::integer, $6::jsonb)
