-- The roles that were given the rights of a daemon.
SELECT role FROM rowvec.daemon_roles() AS role
