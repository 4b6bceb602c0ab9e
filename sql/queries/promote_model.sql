-- Makes a model the default of search, which is refused while it lacks rows; false when it is that already.
-- $1 name: text
SELECT rowvec.promote_model($1::text) AS changed
