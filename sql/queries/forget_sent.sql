-- Forgets how many messages were sent on days that are long over.
-- $1 days: integer
DELETE FROM rowvec.sent WHERE day < (now() AT TIME ZONE 'UTC')::date - $1::integer RETURNING day
