-- Goes on with the backfills that have not come to their end; where there are none, or `again`, begins them anew.
-- $1 content_type: text, $2 model: text, $3 again: boolean
SELECT rowvec.begin_backfill($1::text, $2::text, $3::boolean)
