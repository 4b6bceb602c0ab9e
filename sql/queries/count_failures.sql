-- How many items were given up, by model and error.
SELECT model, coalesce(error_message, 'no reason was kept') AS error_message, count(*) AS failed
FROM rowvec.embedding_queue
WHERE status = 'failed'
GROUP BY 1, 2
ORDER BY 3 DESC, 1, 2
