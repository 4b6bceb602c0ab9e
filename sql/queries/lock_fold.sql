-- Makes this transaction the only fold, and says whether there is anything to fold.
-- $1 floor: bigint
SELECT pg_try_advisory_xact_lock(1919907702, 1) AS locked,
       EXISTS (SELECT FROM rowvec.change WHERE id >= $1::bigint) AS changes
