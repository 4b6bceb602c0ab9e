-- Says that this daemon lives.
-- $1 id: uuid, $2 host: text, $3 pid: integer, $4 version: text
INSERT INTO rowvec.daemon (id, host, pid, version) VALUES ($1::uuid, $2::text, $3::integer, $4::text)
ON CONFLICT (id) DO UPDATE SET beat_at = now()
