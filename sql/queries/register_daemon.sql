-- Says that this daemon lives, which models it has, what they stand at, what it lets alone, and which way work goes.
-- $1 id: uuid, $2 host: text, $3 pid: integer, $4 version: text, $5 models: text[], $6 resting: text[], $7 load: text,
-- $8 carrier: text
INSERT INTO rowvec.daemon (id, host, pid, version, models, resting, load, carrier)
VALUES ($1::uuid, $2::text, $3::integer, $4::text, $5::text[], $6::text[], $7::text::jsonb, $8::text::jsonb)
ON CONFLICT (id) DO UPDATE SET beat_at = now(), models = EXCLUDED.models, resting = EXCLUDED.resting,
    load = EXCLUDED.load, carrier = EXCLUDED.carrier
