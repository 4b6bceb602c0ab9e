-- Makes this transaction the only fold, and says whether there is anything to fold: of single rows, of whole types.
-- $1 floor: bigint
SELECT pg_try_advisory_xact_lock(1919907702, 1) AS locked,
       EXISTS (SELECT FROM rowvec.change WHERE id >= $1::bigint) AS changes,
       EXISTS (SELECT FROM rowvec.change WHERE content_id IS NULL) AS whole
