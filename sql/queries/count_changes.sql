-- How many changes are not folded yet, by source and lane: they count as queued for every model. They bear no time.
SELECT content_type,
       CASE WHEN priority <= 2 THEN 'immediate' WHEN priority <= 4 THEN 'standard' ELSE 'bulk' END AS lane,
       count(*) AS unfolded
FROM rowvec.change
GROUP BY 1, 2
ORDER BY 1, 2
