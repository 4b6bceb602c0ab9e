"""The whole way, in one process, with a model that the test holds in its hand."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from daemons import GatedEmbedder, eventually, finished, is_ready, running, waiting
from rowvec.app.daemon import CLAIMS_AHEAD
from rowvec.domain.errors import ModelUnavailableError
from rowvec.pipeline.gate import HARMLESS


async def texts(session: asyncpg.Connection, model: str = "first") -> list[str]:
    rows = await session.fetch(f"SELECT chunk_text FROM rowvec.vector_{model} ORDER BY content_id::bigint, chunk_index")
    return [row["chunk_text"] for row in rows]


async def test_insert_update_and_delete(post: asyncpg.Connection, dsn: str) -> None:
    async with running(dsn, GatedEmbedder()):
        await post.execute("INSERT INTO post (body) VALUES ('One'), ('Two'), ('Three')")
        await eventually(lambda: finished(post))
        assert await texts(post) == ["One", "Two", "Three"]
        await post.execute("UPDATE post SET body = 'Zwei' WHERE body = 'Two'")
        await eventually(lambda: finished(post))
        assert await texts(post) == ["One", "Zwei", "Three"]
        await post.execute("DELETE FROM post WHERE body = 'One'")
        assert await texts(post) == ["Zwei", "Three"]
        await eventually(lambda: finished(post))
        assert await texts(post) == ["Zwei", "Three"]


async def test_a_row_whose_text_becomes_empty_leaves_search(post: asyncpg.Connection, dsn: str) -> None:
    async with running(dsn, GatedEmbedder()):
        await post.execute("INSERT INTO post (body) VALUES ('One'), ('Two')")
        await eventually(lambda: finished(post))
        await post.execute("UPDATE post SET body = NULL WHERE body = 'One'")
        await eventually(lambda: finished(post))
        assert await texts(post) == ["Two"]


async def test_rows_from_before_the_watch_are_filled_in(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
    await app.execute("INSERT INTO post SELECT n, 'Post ' || n FROM generate_series(1, 2500) n")
    embedder = GatedEmbedder()
    async with running(dsn, embedder) as daemon:
        await eventually(lambda: is_ready(daemon))
        await app.execute("SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}')")

        async def filled() -> bool:
            return await finished(app) and bool(await app.fetchval("SELECT NOT EXISTS (SELECT FROM rowvec.unfilled)"))

        await eventually(filled)
    assert await texts(app) == [f"Post {n}" for n in range(1, 2501)]
    assert sorted(embedder.texts) == sorted(set(embedder.texts))


async def test_no_transaction_is_open_and_no_row_locked_while_a_model_works(post: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    embedder.gate.clear()
    async with running(dsn, embedder):
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 20) n")

        async def working() -> bool:
            return embedder.working > 0

        await eventually(working)
        # Beats and sweeps go on meanwhile: what counts is what stays open.
        for _ in range(20):
            still = await post.fetch("""
                SELECT a.query, a.state, a.xact_start FROM pg_stat_activity a, pg_sleep(0.05)
                WHERE a.application_name = 'rowvec' AND a.datname = current_database()
                  AND a.xact_start < clock_timestamp() - interval '0.5 s'
            """)
            assert still == []
        held = await post.fetchval("""
            SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE a.application_name = 'rowvec' AND a.datname = current_database() AND a.state = 'idle'
        """)
        assert held == 0
        async with post.transaction():
            locked = await post.fetch(
                "SELECT id FROM rowvec.embedding_queue WHERE model = 'first' FOR UPDATE SKIP LOCKED"
            )
            assert len(locked) == 20
            assert await post.fetchval("SELECT count(*) FROM post") == 20
        embedder.gate.set()
        await eventually(lambda: finished(post))


async def test_a_row_that_changes_faster_than_its_model_answers_is_searchable(
    post: asyncpg.Connection, dsn: str
) -> None:
    embedder = GatedEmbedder()
    async with running(dsn, embedder):
        await post.execute("INSERT INTO post (body) VALUES ('Version 0')")
        await eventually(lambda: finished(post))
        for n in range(1, 6):
            embedder.gate.clear()
            await post.execute("UPDATE post SET body = $1", f"Version {n}, sent")

            async def working() -> bool:
                return embedder.working > 0

            await eventually(working)
            await post.execute("UPDATE post SET body = $1", f"Version {n}, too late")
            assert len(await texts(post)) == 1
            embedder.gate.set()
            await eventually(lambda: finished(post))
            assert await texts(post) == [f"Version {n}, too late"]
    assert "Version 3, sent" in embedder.texts


async def test_an_outage_of_a_model_counts_no_retry_and_ends_by_itself(post: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    embedder.broken = ModelUnavailableError("The model server is down.")
    async with running(dsn, embedder):
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 200) n")

        async def tried() -> bool:
            return embedder.requests >= 3

        await eventually(tried)
        embedder.broken = None
        await eventually(lambda: finished(post))
    assert len(await texts(post)) == 200
    assert await post.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE model = 'first'") == 0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_daemon_claims_a_little_ahead_of_its_model_and_no_more(
    post: asyncpg.Connection, dsn: str, concurrency: int
) -> None:
    embedder = GatedEmbedder()
    embedder.concurrency = concurrency
    embedder.gate.clear()
    await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 200) n")
    claims = "SELECT count(DISTINCT token) FROM rowvec.embedding_queue WHERE model = 'first'"
    async with running(dsn, embedder, ROWVEC_BATCH_ITEMS=5):

        async def ahead() -> bool:
            return bool(await post.fetchval(claims) >= concurrency + CLAIMS_AHEAD)

        await eventually(ahead)
        beaten = await post.fetchval("SELECT max(beat_at) FROM rowvec.daemon")

        async def had_time_for_more() -> bool:
            later = "SELECT max(beat_at) >= $1::timestamptz + interval '1 s' FROM rowvec.daemon"
            return bool(await post.fetchval(later, beaten))

        await eventually(had_time_for_more)
        assert await post.fetchval(claims) == concurrency + CLAIMS_AHEAD
        embedder.gate.set()
        await eventually(lambda: finished(post))


async def test_one_poison_text_fails_alone(post: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 300) n")
    await post.execute("UPDATE post SET body = 'POISON' WHERE id = 137")
    async with running(dsn, embedder, ROWVEC_BATCH_ITEMS=300):

        async def settled() -> bool:
            # The backfill asks for every row once more, the failed one too.
            return bool(
                await post.fetchval(
                    """
                    SELECT NOT EXISTS (SELECT FROM rowvec.unfilled) AND NOT EXISTS (SELECT FROM rowvec.change)
                       AND (SELECT array_agg(status) = '{failed}' FROM rowvec.embedding_queue WHERE model = 'first')
                    """
                )
            )

        await eventually(settled)
    failed = await post.fetch(
        "SELECT content_id, status, error_message, error_detail FROM rowvec.embedding_queue WHERE model = 'first'"
    )
    assert [tuple(row) for row in failed] == [("137", "failed", "The model refuses this text.", "It is poison.")]
    assert len(await texts(post)) == 299
    sent = [text for text in embedder.texts if text != HARMLESS]
    assert len(sent) == len(set(sent)) == 299


async def test_models_are_independent(post: asyncpg.Connection, dsn: str) -> None:
    first, second = GatedEmbedder("first", 8), GatedEmbedder("second", 4)
    second.gate.clear()
    async with running(dsn, first, second):
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 500) n")
        await eventually(lambda: finished(post, "first"))
        assert len(await texts(post, "first")) == 500
        assert await texts(post, "second") == []
        second.gate.set()
        await eventually(lambda: finished(post, "second"))
        assert len(await texts(post, "second")) == 500


async def test_a_full_bulk_lane_does_not_delay_an_immediate_row(post: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    await post.execute("CREATE TABLE log (id bigint PRIMARY KEY, line text)")
    await post.execute("SELECT rowvec.watch('log', 'log', ARRAY['line'], 9, template => '{line}')")
    await post.execute("INSERT INTO log SELECT n, 'Line ' || n FROM generate_series(1, 5000) n")
    async with running(dsn, embedder):

        async def busy() -> bool:
            return len(embedder.texts) > 500

        await eventually(busy)
        before = embedder.requests
        await post.execute("INSERT INTO post (body) VALUES ('Urgent')")

        async def done() -> bool:
            return "Urgent" in embedder.texts

        await eventually(done)
        assert embedder.requests - before <= 20
        assert await waiting(post) > 500
    assert "Urgent" in embedder.texts


async def test_a_graceful_stop_gives_its_leases_back_and_counts_no_attempt(post: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    embedder.gate.clear()
    async with running(dsn, embedder, ROWVEC_DRAIN_SECONDS=0.1) as daemon:
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 200) n")

        async def working() -> bool:
            return embedder.working > 0

        await eventually(working)
        daemon.stop.set()
    rows = await post.fetch("SELECT DISTINCT status, retry_count FROM rowvec.embedding_queue")
    assert [tuple(row) for row in rows] == [("queued", 0)]
    assert await post.fetchval("SELECT count(*) FROM rowvec.daemon") == 0


async def test_a_stop_lets_requests_under_way_finish_and_be_stored(post: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    embedder.gate.clear()
    async with running(dsn, embedder) as daemon:
        await post.execute("INSERT INTO post (body) VALUES ('Under way')")

        async def working() -> bool:
            return embedder.working > 0

        await eventually(working)
        daemon.stop.set()
        await asyncio.sleep(0)
        embedder.gate.set()
    assert await texts(post) == ["Under way"]


async def test_cut_connections_lose_nothing(post: asyncpg.Connection, dsn: str) -> None:
    async with running(dsn, GatedEmbedder()):
        for n in range(10):
            await post.execute("INSERT INTO post (body) SELECT $1 || n FROM generate_series(1, 50) n", f"Round {n}, ")
            await post.execute("""
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'rowvec' AND datname = current_database()
            """)
        await eventually(lambda: finished(post))
    assert len(await texts(post)) == 500
