-- Cancels what a session does.
-- $1 pid: integer
SELECT pg_cancel_backend($1::integer) AS cancelled
