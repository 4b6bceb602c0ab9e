-- Makes this transaction the only fold, and says whether there is anything to fold: of single rows, of whole types.
-- $1 floors: bigint[]
SELECT pg_try_advisory_xact_lock(1919907702, 1) AS locked,
       EXISTS (SELECT FROM rowvec.change WHERE urgency = 1 AND id >= ($1::bigint[])[1])
       OR EXISTS (SELECT FROM rowvec.change WHERE urgency = 2 AND id >= ($1::bigint[])[2])
       OR EXISTS (SELECT FROM rowvec.change WHERE urgency = 3 AND id >= ($1::bigint[])[3]) AS changes,
       EXISTS (SELECT FROM rowvec.change WHERE urgency = 0) AS whole
