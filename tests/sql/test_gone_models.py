"""A store that comes after its model's table was dropped, or is another by now."""

from __future__ import annotations

import asyncpg
import pytest

from rowvec.domain.errors import ModelGoneError
from rowvec.domain.lanes import Lane
from worker import TRAITS, Worker


@pytest.fixture
async def post(app: asyncpg.Connection) -> asyncpg.Connection:
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.watch('post', 'post', ARRAY['body'], 2)")
    await app.execute("INSERT INTO post SELECT n, 'Post ' || n FROM generate_series(1, 3) n")
    return app


async def test_a_dropped_model_is_told_from_a_database_that_was_not_migrated(
    post: asyncpg.Connection, dsn: str
) -> None:
    async with Worker.open(dsn) as worker:
        await worker.fold()
        claim = await worker.claim(Lane.IMMEDIATE, "post", "second")
        documents = await worker.read(claim)
        await post.execute("SELECT rowvec.drop_model('second')")
        with pytest.raises(ModelGoneError):
            await worker.store(claim, documents)
        with pytest.raises(ModelGoneError):
            await worker.store_.find("second", TRAITS, [b"hash"])


async def test_so_is_one_that_came_back_with_vectors_of_another_length(post: asyncpg.Connection, dsn: str) -> None:
    async with Worker.open(dsn) as worker:
        await post.execute("SELECT rowvec.drop_model('second'), rowvec.add_model('second', 16)")
        await post.execute("UPDATE post SET body = body || '!'")
        await worker.fold()
        claim = await worker.claim(Lane.IMMEDIATE, "post", "second")
        assert len(claim.items) == 3
        with pytest.raises(ModelGoneError):
            await worker.store(claim, await worker.read(claim))
        assert await post.fetchval("SELECT count(*) FROM rowvec.vector_second") == 0
