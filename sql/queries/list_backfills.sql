-- How far the backfills are that have not come to their end: rows looked at, bulk items of the model that wait.
SELECT u.content_type, u.model, u.stopped, u.rows,
       (SELECT count(*) FROM rowvec.embedding_queue q
        WHERE q.status = 'queued' AND q.model = u.model AND q.lane = 'bulk' AND q.content_type = u.content_type) AS waiting
FROM rowvec.unfilled u
ORDER BY u.content_type, u.model
