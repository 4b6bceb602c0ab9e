-- Whether the session has these settings from its role or the server, and not by its own start.
-- $1 names: text[], $2 values: text[]
SELECT count(p.name) = cardinality($1::text[]) AS carried
FROM unnest($1::text[], $2::text[]) AS wanted (name, value)
JOIN pg_settings p ON p.name = wanted.name
 AND current_setting(p.name) = wanted.value AND p.source NOT IN ('client', 'session')
