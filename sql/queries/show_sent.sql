-- How many messages were sent today (UTC), and with how many items.
SELECT coalesce(sum(messages), 0)::bigint AS messages, coalesce(sum(items), 0)::bigint AS items
FROM rowvec.sent WHERE day = (now() AT TIME ZONE 'UTC')::date
