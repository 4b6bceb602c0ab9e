-- Gives a role the rights of a daemon; returns the statements that the session's role may not run itself.
-- $1 role: name
SELECT statement FROM rowvec.grant_daemon_rights($1::name) AS statement
