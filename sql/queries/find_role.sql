-- Whether a role is there and the settings it carries; how it and the session's role are written in SQL.
-- $1 name: text
SELECT r.rolname IS NOT NULL AS found, coalesce(r.rolconfig, ARRAY[]::text[]) AS carried, quote_ident(asked.name) AS role,
       quote_ident(current_user) AS caller
FROM (VALUES ($1::text)) AS asked (name)
LEFT JOIN pg_roles r ON r.rolname = asked.name
