"""A store, or a look, that comes after its model's table was dropped, or is another by now."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from commands import fill
from database import Connect
from rowvec.domain.errors import ModelGoneError, UsageError
from rowvec.domain.lanes import Lane
from rowvec.postgres.administration import administration
from rowvec.postgres.model_life import ModelLife
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


async def test_a_model_that_is_dropped_while_it_is_looked_at_is_there_no_more(
    app: asyncpg.Connection, connect: Connect, dsn: str
) -> None:
    other = await connect()
    async with administration(dsn) as database:
        async with app.transaction():
            await app.execute("SELECT rowvec.drop_model('second')")
            looking = asyncio.create_task(ModelLife(database).table("second"))
            while not await other.fetchval("SELECT count(*) FROM pg_locks, pg_sleep(0.001) WHERE NOT granted"):
                pass
        with pytest.raises(UsageError, match='There is no model "second"'):
            await looking


async def test_one_that_is_dropped_before_its_vectors_are_counted_is_told_as_such(
    app: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = ModelLife.tables

    async def looked_at_before_a_drop(life: ModelLife) -> list[dict[str, Any]]:
        found = await tables(life)
        await app.execute("SELECT rowvec.drop_model('second')")
        return found

    monkeypatch.setattr(ModelLife, "tables", looked_at_before_a_drop)
    async with administration(dsn) as database:
        with pytest.raises(UsageError, match='"second" was dropped meanwhile'):
            await ModelLife(database).table("second")


async def test_vectors_that_the_statistics_count_twice_are_told_once(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("SELECT pg_stat_force_next_flush()")
    await fill(app, "second", 50)
    await app.execute("ANALYZE rowvec.vector_second")
    await app.execute("SELECT pg_stat_force_next_flush()")
    assert await app.fetchval("SELECT pg_stat_get_live_tuples('rowvec.vector_second'::regclass)") == 100
    async with administration(dsn) as database:
        found = {row["name"]: row["vectors"] for row in await ModelLife(database).tables()}
    assert found == {"first": 0, "second": 50}
