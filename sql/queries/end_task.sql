-- Says that a task is done.
-- $1 name: text, $2 daemon: uuid
UPDATE rowvec.task SET daemon = NULL WHERE name = $1::text AND daemon = $2::uuid
