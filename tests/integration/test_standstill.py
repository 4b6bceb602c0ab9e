"""What stands still must not make the rest stand still: a frozen daemon, a locked table, a slow store, a big import."""

from __future__ import annotations

import asyncio
import functools
import random
import signal
from typing import Any

import asyncpg
import pytest

from daemons import GatedEmbedder, Process, eventually, finished, is_ready, process, running
from database import Connect
from rowvec.postgres import connections
from rowvec.postgres.connections import Session

OTHER = """
    CREATE TABLE other (id bigint PRIMARY KEY, body text);
    SELECT rowvec.watch('other', 'other', ARRAY['body'], 2, template => '{body}');
"""
HELD_UP = """
    SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                   WHERE l.locktype = 'advisory' AND l.granted AND l.objid = 1 AND a.datname = current_database()
                     AND a.wait_event_type = 'Lock')
"""
FOLDED = """
    SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                   WHERE l.locktype = 'advisory' AND l.granted AND l.objid = 1 AND a.datname = current_database()
                     AND a.state = 'idle in transaction')
"""


async def embedded(session: asyncpg.Connection, body: str) -> bool:
    return bool(await session.fetchval("SELECT EXISTS (SELECT FROM rowvec.vector_first WHERE chunk_text = $1)", body))


async def is_working(session: asyncpg.Connection) -> bool:
    return bool(
        await session.fetchval("SELECT EXISTS (SELECT FROM rowvec.daemon WHERE beat_at > now() - interval '3 s')")
    )


async def freeze_in_a_fold(session: asyncpg.Connection, other: asyncpg.Connection, daemon: Process) -> None:
    """Hold the fold's statement up, stop the daemon, and let the statement end: nobody is there to commit it."""
    hold_up = other.transaction()
    await hold_up.start()
    await other.execute("""
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation)
        VALUES ('post', '1', 'first', 2, nextval('rowvec.generation'))
    """)
    await session.execute("INSERT INTO post (body) VALUES ('folded')")
    await eventually(lambda: session.fetchval(HELD_UP))
    daemon.send(signal.SIGSTOP)
    await hold_up.rollback()
    await eventually(lambda: session.fetchval(FOLDED))


async def test_a_daemon_frozen_inside_a_fold_stops_nobody(post: asyncpg.Connection, dsn: str, connect: Connect) -> None:
    async with process(dsn) as frozen:
        await eventually(lambda: is_working(post))
        await freeze_in_a_fold(post, await connect(), frozen)
        async with process(dsn):
            await post.execute("INSERT INTO post (body) VALUES ('fresh')")
            await eventually(lambda: embedded(post, "fresh"))
        frozen.send(signal.SIGCONT)
        frozen.send(signal.SIGTERM)
        assert await frozen.wait() == 0


async def test_no_transaction_stops_to_parse(
    post: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[str] = []
    get_statement = vars(asyncpg.Connection)["_get_statement"]

    async def watched(self: Any, query: str, *arguments: object, **named: object) -> object:  # noqa: ANN401
        if isinstance(self, Session) and self.is_in_transaction() and query not in self._parsed:
            late.append(query)
        return await get_statement(self, query, *arguments, **named)

    monkeypatch.setattr(Session, "_get_statement", watched)
    async with running(dsn, GatedEmbedder()):
        for n in range(5):
            await post.execute("INSERT INTO post (body) VALUES ('one'), ('two')")
            await eventually(lambda: finished(post))
            await post.execute("UPDATE post SET body = body || $1::text", str(n))
            await eventually(lambda: finished(post))
            await post.execute("DELETE FROM post WHERE body LIKE 'one%'")
            await eventually(lambda: finished(post))
    assert late == []


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
        await eventually(lambda: embedded(post, "fresh"))
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
        await eventually(lambda: embedded(post, "fresh"))
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
        await eventually(lambda: embedded(app, "Post 8000"))


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
        await eventually(lambda: embedded(post, "straggler"))
        assert await post.fetchval("SELECT count(*) FROM rowvec.change") > 1000
