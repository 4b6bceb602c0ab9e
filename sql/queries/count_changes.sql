-- Changes that are not folded yet: they count as queued, for every model.
SELECT count(*) AS changes FROM rowvec.change
