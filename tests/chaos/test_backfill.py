"""A long backfill: its daemon is killed again and again, its command is ended and given again, and people write."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from chaos.dice import SECONDS
from chaos.faults import has_begun
from daemons import Process, eventually, process
from database import Connect
from embedding_servers import API_KEY, SentenceTransformersServer
from rowvec.domain.lanes import AIM_SECONDS, Lane

ROWS = 100_000 if SECONDS >= 120 else 10_000
KILLS = 3
IN_FLIGHT = 1000
"""The most texts that a daemon has sent without storing their vectors: it claims 128 rows at a time, few at once."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 300)]


@asynccontextmanager
async def daemon(dsn: str, server: SentenceTransformersServer) -> AsyncIterator[Process]:
    settings = {
        "ROWVEC_MODEL_FIRST_PROVIDER": "sentence_transformers",
        "ROWVEC_MODEL_FIRST_URL": server.url,
        "ROWVEC_MODEL_FIRST_API_KEY": API_KEY,
        "ROWVEC_MODEL_FIRST_CONCURRENCY": "2",
    }
    async with process(dsn, **settings) as started:
        await eventually(lambda: has_begun(started), what="the daemon does not begin")
        yield started


async def write_and_wait(session: asyncpg.Connection, waits: list[float]) -> None:
    """Write urgent rows, one when the one before has its vectors, and note how long that took."""
    key = -1
    while True:
        await session.execute("INSERT INTO old VALUES ($1, $2)", key, f"Fresh {key}")
        began = time.monotonic()
        held = "SELECT count(*) = 2 FROM rowvec.vector WHERE content_type = 'old' AND content_id = $1"
        while not await session.fetchval(held, str(key)):  # noqa: ASYNC110 - another process acts
            await asyncio.sleep(0.02)
        waits.append(time.monotonic() - began)
        key -= 1
        await asyncio.sleep(0.2)


async def suffer(dsn: str, session: asyncpg.Connection, server: SentenceTransformersServer) -> None:
    """Kill the daemon whenever another part is done; the last one finishes."""
    for part in range(1, KILLS + 1):
        async with daemon(dsn, server) as victim:
            await reached(session, ROWS * part // (KILLS + 1))
            victim.send(signal.SIGKILL)
            await victim.wait()
    async with daemon(dsn, server):
        await asyncio.Event().wait()


async def reached(session: asyncpg.Connection, rows: int) -> None:
    """Wait until so many rows were looked at for both models."""

    async def enough() -> bool:
        looked_at = "SELECT coalesce(min(rows), 0) FROM rowvec.backfill WHERE content_type = 'old'"
        return bool(await session.fetchval(looked_at) >= rows)

    await eventually(enough, within=SECONDS + 120)


async def test_each_row_is_asked_for_once_and_fresh_rows_do_not_wait(connect: Connect, dsn: str) -> None:
    app, writer, watcher = await connect(), await connect(), await connect()
    await app.execute(f"""
        CREATE TABLE old (id bigint PRIMARY KEY, body text);
        INSERT INTO old SELECT n, 'Row ' || n FROM generate_series(1, {ROWS}) n;
        SELECT rowvec.watch('old', 'old', ARRAY['body'], 2, template => '{{body}}');
    """)
    waits: list[float] = []
    async with SentenceTransformersServer(8).serving() as server:
        background = [
            asyncio.create_task(suffer(dsn, watcher, server)),
            asyncio.create_task(write_and_wait(writer, waits)),
        ]
        try:
            async with process(dsn, ("-m", "rowvec", "backfill", "old")) as first:
                await reached(app, 1000)
                first.send(signal.SIGINT)
                assert await first.wait() == 130
                assert "It goes on in the background" in first.log.read_text()
            async with process(dsn, ("-m", "rowvec", "backfill", "--json")) as command:
                assert await command.wait(SECONDS + 240) == 0
                told = command.log.read_text()
        finally:
            for task in background:
                task.cancel()
            results = await asyncio.gather(*background, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    for row in json.loads(told[told.index("[") :]):
        assert (row["done"], row["waiting"], row["failed"]) == (True, 0, 0)
        assert ROWS <= row["rows"] <= ROWS + len(waits) + 1, "a killed page leaves no trace, a finished one stays"
    for model in ("first", "second"):
        held = await app.fetch(f"SELECT content_id FROM rowvec.vector_{model} WHERE content_id::bigint > 0")
        assert sorted(int(row["content_id"]) for row in held) == list(range(1, ROWS + 1))
    sent = Counter(text for request in server.requests for text in request.texts)
    assert sent.total() - len(sent) <= KILLS * IN_FLIGHT, "only what was under way at a kill is sent again"
    assert len(waits) > KILLS
    print(f"{ROWS} rows; fresh ones waited {max(waits):.1f} s at most")  # noqa: T201 - to be noted
    assert max(waits) < AIM_SECONDS[Lane.IMMEDIATE]
