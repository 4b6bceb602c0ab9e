-- What the session's role lacks of the rights of a daemon.
SELECT m.privilege || ' on ' || m.object AS missing FROM rowvec.missing_rights(current_user::name) m
