-- How many items are on their way in messages, and how many were ever sent. What is past its deadline is waited for no
-- longer: it may be of a model that nobody has.
SELECT (SELECT count(*) FROM rowvec.embedding_queue
        WHERE status = 'queued' AND message_id IS NOT NULL AND scheduled_at > now()) AS outstanding,
       (SELECT coalesce(sum(items), 0)::bigint FROM rowvec.sent) AS sent
