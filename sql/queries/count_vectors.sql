-- Counts the vectors of a model.
-- {table}: the model's.
SELECT count(*) AS vectors FROM {table}
