-- Has all rows of some sources queued once more, and the vectors of others looked through for rows that are gone.
-- $1 asked: text[], $2 emptied: text[]
SELECT rowvec.reopen_sources($1::text[], $2::text[])
