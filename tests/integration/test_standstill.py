"""What stands still must not make the rest stand still: a frozen daemon, a locked table, a slow store, a big import."""

from __future__ import annotations

import asyncio
import functools
import random
import signal

import asyncpg
import pytest

from daemons import GatedEmbedder, Process, eventually, is_ready, process, running
from database import Connect
from rowvec.postgres import connections

OTHER = """
    CREATE TABLE other (id bigint PRIMARY KEY, body text);
    SELECT rowvec.watch('other', 'other', ARRAY['body'], 2, template => '{body}');
"""
FOLDING = """
    SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objid = 1 AND a.datname = current_database()
      AND a.state = 'idle in transaction'
"""


async def embedded(session: asyncpg.Connection, body: str) -> bool:
    return bool(await session.fetchval("SELECT EXISTS (SELECT FROM rowvec.vector_first WHERE chunk_text = $1)", body))


async def is_working(session: asyncpg.Connection) -> bool:
    return bool(
        await session.fetchval("SELECT EXISTS (SELECT FROM rowvec.daemon WHERE beat_at > now() - interval '3 s')")
    )


async def freeze_in_a_fold(session: asyncpg.Connection, writer: asyncpg.Connection, daemon: Process) -> None:
    """Stop the daemon at random moments until one of them is inside the fold's transaction."""
    for n in range(500):
        await writer.execute("INSERT INTO post (body) SELECT $1::text || g FROM generate_series(1, 200) g", f"{n}-")
        await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311 - any moment will do
        daemon.send(signal.SIGSTOP)
        if await session.fetchval(FOLDING):
            return
        daemon.send(signal.SIGCONT)
    pytest.skip("the daemon was never caught inside a fold")


async def test_a_daemon_frozen_inside_a_fold_stops_nobody(post: asyncpg.Connection, dsn: str, connect: Connect) -> None:
    async with process(dsn) as frozen:
        await eventually(lambda: is_working(post))
        await freeze_in_a_fold(post, await connect(), frozen)
        async with process(dsn):
            await post.execute("INSERT INTO post (body) VALUES ('fresh')")
            await eventually(lambda: embedded(post, "fresh"), within=20)
        frozen.send(signal.SIGCONT)
        frozen.send(signal.SIGTERM)
        assert await frozen.wait() == 0


async def test_a_locked_table_stops_no_other_source_and_costs_no_attempt(
    post: asyncpg.Connection, dsn: str, connect: Connect
) -> None:
    await post.execute(OTHER)
    locker = await connect()
    async with running(dsn, GatedEmbedder()) as daemon:
        await eventually(lambda: is_ready(daemon))
        await locker.execute("BEGIN; LOCK TABLE post IN ACCESS EXCLUSIVE MODE")
        await post.execute("SELECT rowvec.enqueue('post', g::text) FROM generate_series(1, 1000) g")
        await asyncio.sleep(1)
        await post.execute("INSERT INTO other VALUES (1, 'fresh')")
        await eventually(lambda: embedded(post, "fresh"), within=10)
        assert not await post.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE retry_count > 0")

        async def is_told() -> bool:
            return bool(await post.fetchval("SELECT resting FROM rowvec.daemon"))

        await eventually(is_told)
        await locker.execute("ROLLBACK")


async def test_a_watch_that_waits_for_its_table_stops_no_fold(
    post: asyncpg.Connection, dsn: str, connect: Connect
) -> None:
    await post.execute("CREATE TABLE other (id bigint PRIMARY KEY, body text)")
    idle, watching = await connect(), await connect()
    async with running(dsn, GatedEmbedder()) as daemon:
        await eventually(lambda: is_ready(daemon))
        await idle.execute("BEGIN; INSERT INTO other VALUES (1, 'open')")
        watch = asyncio.create_task(watching.execute("SELECT rowvec.watch('other', 'other', ARRAY['body'], 2)"))
        blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0"
        await eventually(functools.partial(post.fetchval, blocked, watching.get_server_pid()))
        await post.execute("INSERT INTO post (body) VALUES ('fresh')")
        await eventually(lambda: embedded(post, "fresh"), within=5)
        await idle.execute("ROLLBACK")
        await watch


async def test_a_key_too_long_for_any_index_is_left_out_alone(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("""
        CREATE TABLE page (id text PRIMARY KEY, body text);
        SELECT rowvec.watch('page', 'page', ARRAY['body'], 2, template => '{body}');
    """)
    key = "".join(random.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=2600))  # noqa: S311
    async with running(dsn, GatedEmbedder()) as daemon:
        await eventually(lambda: is_ready(daemon))
        await app.execute("INSERT INTO page VALUES ($1, 'long'), ('short', 'short')", key)
        await eventually(lambda: embedded(app, "short"))
        assert not await app.fetchval("SELECT count(*) FROM rowvec.change")
        assert not await embedded(app, "long")


async def test_a_backfill_goes_on_while_the_second_model_is_away(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("""
        CREATE TABLE post (id bigint PRIMARY KEY, body text);
        INSERT INTO post SELECT g, 'Post ' || g FROM generate_series(1, 8000) g;
        SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}');
    """)
    async with running(dsn, GatedEmbedder(), ROWVEC_BATCH_ITEMS=500):
        await eventually(lambda: embedded(app, "Post 8000"), within=60)


async def test_a_store_too_slow_for_a_batch_is_done_in_parts_and_nothing_is_sent_twice(
    post: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.BOUNDS, "statement_timeout", "500ms")
    await post.execute("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON rowvec.vector_first FOR EACH ROW EXECUTE FUNCTION slow();
        INSERT INTO post (body) SELECT 'Post ' || g FROM generate_series(1, 100) g;
    """)
    embedder = GatedEmbedder()
    async with running(dsn, embedder):

        async def all_stored() -> bool:
            return bool(await post.fetchval("SELECT count(*) = 100 FROM rowvec.vector_first"))

        await eventually(all_stored)
    assert len(embedder.texts) == 100


async def test_a_big_import_puts_off_neither_stragglers_nor_what_has_become_due(
    post: asyncpg.Connection, dsn: str, connect: Connect
) -> None:
    await post.execute(OTHER)
    await post.execute("CREATE TABLE log (id bigint PRIMARY KEY, line text)")
    await post.execute("SELECT rowvec.watch('log', 'log', ARRAY['line'], 9)")
    early = await connect()
    async with running(dsn, GatedEmbedder()) as daemon:
        await eventually(lambda: is_ready(daemon))
        await early.execute("BEGIN; INSERT INTO other VALUES (1, 'straggler')")
        await post.execute("INSERT INTO log SELECT g, 'Line ' || g FROM generate_series(1, 60000) g")
        await early.execute("COMMIT")
        await eventually(lambda: embedded(post, "straggler"), within=10)
        assert await post.fetchval("SELECT count(*) FROM rowvec.change") > 1000
