-- Takes a task whose time has come: whoever moves `ran_at` past that time first does it. One that was begun is taken
-- again by the same daemon, or by another when that one is silent. Only a living daemon takes any. A task that was never
-- heard of waits for its next time. A daemon whose clock is days ahead of Postgres's takes none, and what such a clock has
-- written holds nobody up.
-- $1 name: text, $2 due_at: timestamptz, $3 daemon: uuid
WITH known AS (
    INSERT INTO rowvec.task (name, ran_at) VALUES ($1::text, now()) ON CONFLICT (name) DO NOTHING
),
living AS MATERIALIZED (
    SELECT id FROM rowvec.daemon WHERE beat_at > now() - interval '3 s'
)
UPDATE rowvec.task
SET ran_at = greatest(now(), $2::timestamptz), daemon = $3::uuid
WHERE name = $1::text AND $3::uuid IN (SELECT id FROM living) AND $2::timestamptz <= now() + interval '1 day'
  AND (ran_at < $2::timestamptz OR ran_at > now() + interval '1 day'
       OR daemon = $3::uuid OR daemon <> ALL (ARRAY(SELECT id FROM living)))
RETURNING name
