-- migrate:up breaking:false
-- The tables of the way of the data: change -> embedding_queue -> vector_<model>.

-- What is watched. Columns are kept by number, so renaming one breaks nothing; `labels` are their names on the
-- day they were watched, so renaming one does not change the embedded text either.
CREATE TABLE rowvec.source (
    content_type     text PRIMARY KEY CHECK (content_type ~ '^[a-z][a-z0-9_]{0,39}$'),
    relation         regclass NOT NULL,
    key_columns      smallint[] NOT NULL,
    key_types        regtype[] NOT NULL,
    text_columns     smallint[] NOT NULL,
    labels           text[] NOT NULL,
    owner_column     smallint,
    template         text,
    condition        text,
    text_function    regproc,
    depends_on       jsonb NOT NULL,
    priority         smallint NOT NULL CHECK (priority BETWEEN 1 AND 100),
    urgent_rows      integer NOT NULL CHECK (urgent_rows >= 1),
    chunking         text NOT NULL CHECK (chunking IN ('none', 'characters', 'markdown')),
    chunk_characters integer NOT NULL CHECK (chunk_characters BETWEEN 50 AND 100000),
    chunk_overlap    integer NOT NULL CHECK (chunk_overlap BETWEEN 0 AND chunk_characters / 2),
    notify           boolean NOT NULL,
    trigger_name     text,
    function_name    text,
    paused_at        timestamptz,
    swept            boolean NOT NULL,
    sweep_after      text,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
);
COMMENT ON COLUMN rowvec.source.condition IS 'Which rows are embedded, in SQL over their own columns; NULL for all.';
COMMENT ON COLUMN rowvec.source.depends_on IS 'Other tables that the text is made of: [{table, columns, content_id}].';
COMMENT ON COLUMN rowvec.source.urgent_rows IS
    'How many rows one transaction may bring at the source''s priority; the rest goes in as bulk.';
COMMENT ON COLUMN rowvec.source.trigger_name IS 'What its triggers'' names begin with; NULL for names of ours.';
COMMENT ON COLUMN rowvec.source.function_name IS
    'What the names of its trigger functions begin with, after their schema; NULL for names of ours.';
COMMENT ON COLUMN rowvec.source.swept IS 'Whether no vector can be left of a row whose removal no trigger has seen.';

-- What embeds. `active` models get items at every fold.
CREATE TABLE rowvec.model (
    name       text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,39}$'),
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 16000),
    active     boolean NOT NULL DEFAULT true,
    is_default boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX model_default ON rowvec.model (is_default) WHERE is_default;

-- How far the rows that are there have been queued for a model. A source and an active model without a row here have all
-- of it before them: so neither a new source nor a new model can be forgotten, in whatever order they commit.
CREATE TABLE rowvec.backfill (
    content_type text NOT NULL REFERENCES rowvec.source ON DELETE CASCADE,
    model        text NOT NULL REFERENCES rowvec.model ON DELETE CASCADE,
    done         boolean NOT NULL DEFAULT false,
    stopped      boolean NOT NULL DEFAULT false,
    missing      boolean NOT NULL DEFAULT false,
    after        text,
    rows         bigint NOT NULL DEFAULT 0,
    began_at     timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (content_type, model)
) WITH (fillfactor = 50);
COMMENT ON COLUMN rowvec.backfill.stopped IS 'Whether a person has stopped it for a while.';
COMMENT ON COLUMN rowvec.backfill.missing IS 'Whether it is about rows without vectors of the model only.';
COMMENT ON COLUMN rowvec.backfill.after IS 'The last key whose change was appended; NULL before the first page.';
COMMENT ON COLUMN rowvec.backfill.rows IS 'How many rows it has looked at.';

-- What is not filled: the backfills that are under way, stopped or still to begin.
CREATE VIEW rowvec.unfilled AS
SELECT s.content_type, m.name AS model, coalesce(b.stopped, false) AS stopped, coalesce(b.rows, 0) AS rows
FROM rowvec.source s
CROSS JOIN rowvec.model m
LEFT JOIN rowvec.backfill b ON b.content_type = s.content_type AND b.model = m.name
WHERE m.active AND b.done IS NOT TRUE;

-- Who works. One row a living daemon, renewed every second in place (HOT: nothing indexed changes). `models` are those it
-- has; `resting` says which models and sources it lets alone for a while, and why.
CREATE TABLE rowvec.daemon (
    id         uuid PRIMARY KEY,
    host       text NOT NULL,
    pid        integer NOT NULL,
    version    text NOT NULL,
    models     text[] NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now(),
    beat_at    timestamptz NOT NULL DEFAULT now(),
    resting    text[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- What was written. Append-only and short-lived: one index that holds for all, no constraint to be evaluated, no
-- models, no foreign key, or the application's writes slow down several times. `urgency` is the order of the fold:
-- 0 a whole type, 1 a removal, 2 an immediate write, 3 any other.
CREATE TYPE rowvec.change_kind AS ENUM ('write', 'remove');
CREATE TABLE rowvec.change (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    urgency      smallint NOT NULL,
    content_type text NOT NULL,
    content_id   text,
    priority     smallint NOT NULL,
    kind         rowvec.change_kind NOT NULL,
    due_at       timestamptz,
    model        text,
    PRIMARY KEY (urgency, id)
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_threshold = 50000);
COMMENT ON COLUMN rowvec.change.content_id IS 'NULL: the whole type.';
COMMENT ON COLUMN rowvec.change.model IS 'The model that it concerns, where a backfill asks; NULL: all of them.';

CREATE SEQUENCE rowvec.generation;

-- Until when a daemon is awake, in microseconds since the epoch. A sequence, because every isolation level sees
-- it at once and it leaves no dead versions; unlogged, because after a crash nobody is awake.
CREATE UNLOGGED SEQUENCE rowvec.awake_until;

CREATE TABLE rowvec.embedding_queue (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content_type     text NOT NULL,
    content_id       text NOT NULL,
    model            text NOT NULL,
    priority         smallint NOT NULL,
    lane             text NOT NULL GENERATED ALWAYS AS (
        CASE WHEN priority <= 2 THEN 'immediate' WHEN priority <= 4 THEN 'standard' ELSE 'bulk' END) STORED,
    status           text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'processing', 'failed')),
    generation       bigint NOT NULL,
    retry_count      integer NOT NULL DEFAULT 0,
    error_message    text,
    error_detail     text,
    scheduled_at     timestamptz NOT NULL DEFAULT now(),
    token            uuid,
    daemon           uuid,
    lease_expires_at timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (content_type, content_id, model),
    CHECK ((status = 'processing') = (token IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 50000);
-- The claim: its cost does not depend on the backlog, of this source or of any other.
CREATE INDEX embedding_queue_due ON rowvec.embedding_queue (model, lane, content_type, scheduled_at, id)
    WHERE status = 'queued';
CREATE INDEX embedding_queue_leased ON rowvec.embedding_queue (daemon) WHERE status = 'processing';
CREATE INDEX embedding_queue_failed ON rowvec.embedding_queue (updated_at) WHERE status = 'failed';

-- Parent of every model's table: triggers and folds remove through it and never name a model.
CREATE TABLE rowvec.vector (
    content_type      text NOT NULL,
    content_id        text NOT NULL,
    chunk_index       integer NOT NULL,
    chunk_text        text NOT NULL,
    chunk_hash        bytea NOT NULL,
    repeat            integer NOT NULL,
    owner             text,
    provider_revision text NOT NULL,
    prefix            text NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN rowvec.vector.repeat IS
    'How many times the same chunk stood in this row before: with it a chunk is known without its position.';
