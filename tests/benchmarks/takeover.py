"""A daemon is killed while it holds leases: how long until the other has given all of them back."""

from __future__ import annotations

import contextlib
import signal
import time
from uuid import UUID

import asyncpg

from benchmarks.figures import Figure, middle_and_worst
from benchmarks.scratch import INSTANT, database, empty_out, ready, session_of, until
from daemons import process
from rowvec.embedded import EmbeddedPostgres

SLOW = {**INSTANT, "ROWVEC_MODEL_FIRST_DELAY_SECONDS": "60"}
"""Longer than a sample: nothing is ever finished, so a token changes only by being given back."""


async def measure_takeover(postgres: EmbeddedPostgres, samples: int) -> list[Figure]:
    async with database(postgres, "takeover") as dsn, session_of(dsn) as session:
        seconds = [await one_takeover(dsn, session) for _ in range(samples)]
    return middle_and_worst("from the kill until its leases are given back", seconds, "s", "at most 5 s")


async def one_takeover(dsn: str, session: asyncpg.Connection) -> float:
    await session.execute("TRUNCATE rowvec.daemon")
    async with contextlib.AsyncExitStack() as stack:
        killed = await stack.enter_async_context(process(dsn, **SLOW))
        await stack.enter_async_context(process(dsn, **SLOW))
        await ready(dsn, daemons=2)
        await session.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 5000) n")
        await until(lambda: has_leases(session, killed.pid))
        killed.send(signal.SIGKILL)
        began = time.perf_counter()
        await killed.wait()
        tokens = await leased(session, killed.pid)

        async def given_back() -> bool:
            return not await session.fetchval(
                "SELECT EXISTS (SELECT FROM rowvec.embedding_queue WHERE token = ANY ($1))", tokens
            )

        await until(given_back)
        seconds = time.perf_counter() - began
    await empty_out(session)
    return seconds


async def has_leases(session: asyncpg.Connection, pid: int) -> bool:
    return bool(await leased(session, pid))


async def leased(session: asyncpg.Connection, pid: int) -> list[UUID]:
    rows = await session.fetch(
        """
        SELECT DISTINCT q.token FROM rowvec.embedding_queue q JOIN rowvec.daemon d ON d.id = q.daemon
        WHERE q.status = 'processing' AND d.pid = $1
        """,
        pid,
    )
    return [row["token"] for row in rows]
