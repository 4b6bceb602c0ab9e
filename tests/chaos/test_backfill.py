"""A long backfill: its daemon is killed again and again, its command is ended and given again, and people write."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

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


@dataclass
class Life:
    """The daemons, one after another.

    Attributes:
        ready: is set while one is there.
        deaths: how many were killed.
    """

    ready: asyncio.Event = field(default_factory=asyncio.Event)
    deaths: int = 0


@dataclass
class Waits:
    """How long fresh rows waited for their vectors, in seconds."""

    undisturbed: list[float] = field(default_factory=list)
    over_a_death: list[float] = field(default_factory=list)


async def write_and_wait(session: asyncpg.Connection, life: Life, waits: Waits) -> None:
    """Write urgent rows, one when the one before has its vectors, and note how long that took."""
    for key in count(-1, -1):
        await life.ready.wait()
        deaths, began = life.deaths, time.monotonic()
        await session.execute("INSERT INTO old VALUES ($1, $2)", key, f"Fresh {key}")
        held = "SELECT count(*) = 2 FROM rowvec.vector WHERE content_type = 'old' AND content_id = $1"
        while not await session.fetchval(held, str(key)):  # noqa: ASYNC110 - another process acts
            await asyncio.sleep(0.02)
        waited = waits.undisturbed if deaths == life.deaths else waits.over_a_death
        waited.append(time.monotonic() - began)
        await asyncio.sleep(0.2)


async def suffer(dsn: str, session: asyncpg.Connection, server: SentenceTransformersServer, life: Life) -> None:
    """Kill the daemon whenever another part is done; the last one finishes."""
    for part in range(1, KILLS + 1):
        async with daemon(dsn, server) as victim:
            life.ready.set()
            await reached(session, ROWS * part // (KILLS + 1))
            life.ready.clear()
            life.deaths += 1
            victim.send(signal.SIGKILL)
            await victim.wait()
    async with daemon(dsn, server):
        life.ready.set()
        await asyncio.Event().wait()


async def reached(session: asyncpg.Connection, rows: int) -> None:
    """Wait until so many rows were looked at for both models."""

    async def enough() -> bool:
        looked_at = "SELECT coalesce(min(rows), 0) FROM rowvec.backfill WHERE content_type = 'old'"
        return bool(await session.fetchval(looked_at) >= rows)

    await eventually(enough, within=SECONDS + 120)


async def has_waited(waits: Waits) -> bool:
    return bool(waits.undisturbed)


async def waits_for_a_daemon(command: Process) -> bool:
    return "No daemon is running" in command.log.read_text()


async def test_each_row_is_asked_for_once_and_fresh_rows_do_not_wait(connect: Connect, dsn: str) -> None:
    app, writer, watcher = await connect(), await connect(), await connect()
    await app.execute(f"""
        CREATE TABLE old (id bigint PRIMARY KEY, body text);
        INSERT INTO old SELECT n, 'Row ' || n FROM generate_series(1, {ROWS}) n;
        SELECT rowvec.watch('old', 'old', ARRAY['body'], 2, template => '{{body}}');
    """)
    life, waits = Life(), Waits()
    async with process(dsn, ("-m", "rowvec", "backfill", "old")) as first:
        await eventually(lambda: waits_for_a_daemon(first), what="the command says nothing")
        first.send(signal.SIGINT)
        assert await first.wait() == 130
        assert "It goes on in the background" in first.log.read_text()
    async with (
        SentenceTransformersServer(8).serving() as server,
        process(dsn, ("-m", "rowvec", "backfill", "--json")) as command,
    ):
        await eventually(lambda: waits_for_a_daemon(command), what="the command says nothing")
        background = [
            asyncio.create_task(suffer(dsn, watcher, server, life)),
            asyncio.create_task(write_and_wait(writer, life, waits)),
        ]
        try:
            assert await command.wait(SECONDS + 240) == 0
            told = command.log.read_text()
            await eventually(lambda: has_waited(waits), what="no fresh row was embedded while its daemon lived")
        finally:
            for task in background:
                task.cancel()
            results = await asyncio.gather(*background, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    for row in json.loads(told[told.index("[") :]):
        assert (row["done"], row["waiting"], row["failed"]) == (True, 0, 0)
        fresh = len(waits.undisturbed) + len(waits.over_a_death) + 1
        assert ROWS <= row["rows"] <= ROWS + fresh, "a killed page leaves no trace, a finished one stays"
    for model in ("first", "second"):
        held = await app.fetch(f"SELECT content_id FROM rowvec.vector_{model} WHERE content_id::bigint > 0")
        assert sorted(int(row["content_id"]) for row in held) == list(range(1, ROWS + 1))
    sent = Counter(text for request in server.requests for text in request.texts)
    assert sent.total() - len(sent) <= KILLS * IN_FLIGHT, "only what was under way at a kill is sent again"
    longest = [max(waited, default=0.0) for waited in (waits.undisturbed, waits.over_a_death)]
    told = "{:.1f} s at most, {:.1f} s where their daemon was killed".format(*longest)
    print(f"{ROWS} rows; fresh ones waited {told}")  # noqa: T201 - to be noted
    assert max(waits.undisturbed) < AIM_SECONDS[Lane.IMMEDIATE]
