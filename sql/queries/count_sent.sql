-- Adds to what was sent today.
-- $1 messages: bigint, $2 items: bigint
INSERT INTO rowvec.sent AS s (day, messages, items)
VALUES ((now() AT TIME ZONE 'UTC')::date, $1::bigint, $2::bigint)
ON CONFLICT (day) DO UPDATE SET messages = s.messages + EXCLUDED.messages, items = s.items + EXCLUDED.items
