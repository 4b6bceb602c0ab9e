"""Real processes: killed, frozen and stopped in the middle of their work; a Postgres that comes late or goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import asyncpg
import pytest

from daemons import GatedEmbedder, eventually, is_ready, process, running
from database import MAJOR, MODELS, open_folder
from rowvec.embedded import EmbeddedPostgres
from rowvec.health import Part
from rowvec.postgres.administration import migrate_database

SLOW = {"ROWVEC_MODEL_FIRST_DELAY_SECONDS": "0.2", "ROWVEC_MODEL_SECOND_DELAY_SECONDS": "0.1"}


async def done(session: asyncpg.Connection) -> bool:
    return not await session.fetchval(
        "SELECT EXISTS (SELECT FROM rowvec.change) OR EXISTS (SELECT FROM rowvec.embedding_queue)"
    )


async def is_half_way(session: asyncpg.Connection) -> bool:
    return bool(await session.fetchval("SELECT count(*) BETWEEN 500 AND 4500 FROM rowvec.vector_first"))


async def daemons(session: asyncpg.Connection) -> int:
    return int(await session.fetchval("SELECT count(*) FROM rowvec.daemon WHERE beat_at > now() - interval '3 s'"))


async def wrong(session: asyncpg.Connection, model: str) -> list[asyncpg.Record]:
    """Rows that are missing, stale, double or orphaned."""
    return await session.fetch(f"""
        SELECT p.id, p.body, v.content_id, v.chunk_text FROM post p
        FULL JOIN rowvec.vector_{model} v ON v.content_id = p.id::text
        WHERE v.chunk_text IS DISTINCT FROM p.body
        UNION ALL
        SELECT NULL, NULL, content_id, 'double' FROM rowvec.vector_{model} GROUP BY content_id HAVING count(*) > 1
    """)


async def test_when_one_of_two_daemons_is_killed_the_other_has_it_all_done(post: asyncpg.Connection, dsn: str) -> None:
    async with process(dsn, **SLOW) as first, process(dsn, **SLOW) as second:

        async def both() -> bool:
            return await daemons(post) == 2

        await eventually(both)
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 5000) n")
        await eventually(lambda: is_half_way(post))
        await post.execute("UPDATE post SET body = body || '!' WHERE id % 7 = 0")
        await post.execute("DELETE FROM post WHERE id % 11 = 0")
        orphans: list[asyncpg.Record] = []

        async def holds_some() -> bool:
            """Stopped, so that none of what it holds is done before it dies."""
            first.send(signal.SIGSTOP)
            orphans[:] = await post.fetch("""
                SELECT token FROM rowvec.embedding_queue q WHERE status = 'processing'
                AND daemon = (SELECT id FROM rowvec.daemon WHERE pid = $1)
            """, first.pid)  # fmt: skip
            if not orphans:
                first.send(signal.SIGCONT)
            return bool(orphans)

        await eventually(holds_some)
        first.send(signal.SIGKILL)
        await first.wait()

        async def taken_over() -> bool:
            return not await post.fetchval(
                "SELECT EXISTS (SELECT FROM rowvec.embedding_queue WHERE token = ANY ($1))",
                [orphan["token"] for orphan in orphans],
            )

        await eventually(taken_over)
        await eventually(lambda: done(post))
        second.send(signal.SIGTERM)
        assert await second.wait() == 0
    assert await wrong(post, "first") == []
    assert await wrong(post, "second") == []


async def test_a_daemon_that_was_frozen_past_its_lease_overwrites_nothing(post: asyncpg.Connection, dsn: str) -> None:
    async with process(dsn, **SLOW) as frozen, process(dsn, **SLOW) as other:

        async def both() -> bool:
            return await daemons(post) == 2

        await eventually(both)
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 3000) n")
        await eventually(lambda: is_half_way(post))
        frozen.send(signal.SIGSTOP)
        await post.execute("UPDATE post SET body = body || '!'")

        async def stored() -> bool:
            return not await wrong(post, "first") and not await wrong(post, "second")

        await eventually(stored)
        frozen.send(signal.SIGCONT)
        await eventually(both)
        await eventually(lambda: done(post))
        assert await stored()
        for daemon in (frozen, other):
            daemon.send(signal.SIGTERM)
            assert await daemon.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_daemon_leaves_nothing_leased(
    post: asyncpg.Connection, dsn: str, number: signal.Signals
) -> None:
    slow = {"ROWVEC_MODEL_FIRST_DELAY_SECONDS": "0.5", "ROWVEC_DRAIN_SECONDS": "5"}
    async with process(dsn, **slow) as daemon:
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 1000) n")

        async def leased() -> bool:
            return bool(await post.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE status = 'processing'"))

        await eventually(leased)
        daemon.send(number)
        assert await daemon.wait() == 0
    counts = await post.fetch("SELECT DISTINCT status, retry_count FROM rowvec.embedding_queue")
    assert [tuple(row) for row in counts] == [("queued", 0)]


async def test_it_waits_for_a_database_that_is_not_there_and_survives_one_that_goes_away() -> None:
    with open_folder() as folder:
        with EmbeddedPostgres(folder, major=MAJOR) as postgres:
            dsn = postgres.dsn
            await migrate_database(dsn, MODELS)
            app = await asyncpg.connect(dsn)
            await app.execute("""
                CREATE TABLE post (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, author text);
                SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}');
            """)
            await app.close()

        await _work(dsn, postgres)


async def _work(dsn: str, postgres: EmbeddedPostgres) -> None:
    embedder = GatedEmbedder()
    async with asyncio.timeout(60):
        # The daemon comes first, the database later.
        daemon_runs = running(dsn, embedder)
        entering = asyncio.create_task(daemon_runs.__aenter__())
        await asyncio.sleep(0)
        postgres.start()
        daemon = await entering
        try:
            await eventually(lambda: is_ready(daemon))
            await _insert(dsn, "Before the restart")
            await eventually(lambda: _has(embedder, "Before the restart"))

            postgres.stop()

            async def away() -> bool:
                return not daemon.health.is_well(Part.DATABASE) and not daemon.health.is_ready

            await eventually(away)
            assert daemon.health.is_live
            postgres.start()
            await _insert(dsn, "After the restart")
            await eventually(lambda: _has(embedder, "After the restart"))
            await eventually(lambda: is_ready(daemon))
        finally:
            await daemon_runs.__aexit__(None, None, None)
            postgres.stop()


async def _has(embedder: GatedEmbedder, text: str) -> bool:
    return text in embedder.texts


async def _insert(dsn: str, body: str) -> None:
    session = await asyncpg.connect(dsn)
    await session.execute("INSERT INTO post (body) VALUES ($1)", body)
    await session.close()


async def test_vectors_stored_without_waiting_for_the_disk_survive_a_crash_of_postgres_or_are_made_again() -> None:
    with open_folder() as folder, EmbeddedPostgres(folder, major=MAJOR) as postgres:
        dsn = postgres.dsn
        await migrate_database(dsn, MODELS)
        app = await asyncpg.connect(dsn)
        await app.execute("""
            CREATE TABLE post (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, author text);
            SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}');
        """)
        async with running(dsn, GatedEmbedder()) as daemon:
            await app.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 3000) n")
            await eventually(lambda: is_half_way(app))
            _crash(postgres)
            postgres.start()
            app = await asyncpg.connect(dsn)
            await eventually(lambda: is_ready(daemon))

            async def first_done() -> bool:
                return not await wrong(app, "first")

            await eventually(first_done)
        await app.close()


def _crash(postgres: EmbeddedPostgres) -> None:
    """Kill the postmaster; its children end by themselves."""
    os.kill(postgres.pid, signal.SIGKILL)
    while postgres.poll() is None:
        time.sleep(0.01)
