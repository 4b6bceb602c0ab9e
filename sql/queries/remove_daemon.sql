-- Says that this daemon has ended in good order.
-- $1 id: uuid
DELETE FROM rowvec.daemon WHERE id = $1::uuid
