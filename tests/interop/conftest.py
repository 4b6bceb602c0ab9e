from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from interop.infinity import ENVIRONMENT, MODELS, PROGRAM, Infinity, bundled_model, serving
from rowvec.postgres.administration import migrate_database

PREPARE = """
    CREATE TABLE post (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
    SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}');

    -- Whatever is finished leaves the queue: so the counted attempts are written down as they are counted.
    CREATE TABLE counted (content_id text, model text, why text);
    CREATE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.counted VALUES (NEW.content_id, NEW.model, NEW.error_message);
        RETURN NULL;
    END $$;
    CREATE TRIGGER count_attempt AFTER UPDATE ON rowvec.embedding_queue FOR EACH ROW
    WHEN (NEW.retry_count > OLD.retry_count OR NEW.status = 'failed') EXECUTE FUNCTION count_attempt();
"""


@pytest.fixture(scope="session")
def infinity() -> Iterator[Infinity]:
    if not PROGRAM.exists() or bundled_model() is None:
        pytest.skip(f"infinity and its model are not installed in {ENVIRONMENT.name}: `make interop` does that")
    with serving() as server:
        yield server


@pytest.fixture
async def post(infinity: Infinity, empty_dsn: str) -> AsyncIterator[asyncpg.Connection]:  # noqa: ARG001 - skips early
    """A session beside a watched, empty table `post`, in a database with the models of the server."""
    await migrate_database(empty_dsn, MODELS)
    session = await asyncpg.connect(empty_dsn)
    await session.execute(PREPARE)
    yield session
    session.terminate()
