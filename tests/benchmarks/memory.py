"""The resident memory of a daemon: with nothing to do, and with a million waiting items."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from benchmarks.figures import Figure, Ratio
from benchmarks.linux import memory
from benchmarks.scratch import INSTANT, database, drained, plant, ready, session_of
from daemons import process
from database import FILL
from rowvec.embedded import EmbeddedPostgres

WARM_UP_ROWS = 5_000
AIM_MEGABYTES = 30


async def measure_memory(postgres: EmbeddedPostgres, items: int, seconds: float) -> list[Figure]:
    async with database(postgres, "memory") as dsn, session_of(dsn) as session:
        await session.execute(FILL)
        async with process(dsn, **INSTANT) as daemon:
            await ready(dsn)
            await asyncio.sleep(2)
            idle = memory(daemon.pid).resident
            await session.execute(f"INSERT INTO post (body) SELECT 'x' || n FROM generate_series(1, {WARM_UP_ROWS}) n")
            await drained(session)
            warm = memory(daemon.pid).resident
            await queue_up(session, items)
            peak = await highest(daemon.pid, seconds)
            left = await session.fetchval("SELECT count(*) FROM rowvec.embedding_queue")
    return figures(items, items - left, idle, warm, peak)


async def queue_up(session: asyncpg.Connection, items: int) -> None:
    """Put rows and their items; the daemon sees them all at once."""
    await plant(session, WARM_UP_ROWS + 1, WARM_UP_ROWS + items)
    await session.execute(
        f"""
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation)
        SELECT 'post', n::text, 'first', 5, nextval('rowvec.generation')
        FROM generate_series({WARM_UP_ROWS + 1}, {WARM_UP_ROWS + items}) n
        """
    )


async def highest(pid: int, seconds: float) -> float:
    """The most that was resident over a time."""
    peak, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        peak = max(peak, memory(pid).resident)
        await asyncio.sleep(0.1)
    return peak


def figures(items: int, done: int, idle: float, warm: float, peak: float) -> list[Figure]:
    aim = f"aim at most {AIM_MEGABYTES}"
    return [
        Figure("idle, nothing done yet", idle, "MB"),
        Figure(f"idle again after {WARM_UP_ROWS:,} rows", warm, "MB", (Ratio(round(warm / idle, 3), "idle"),)),
        Figure(
            f"peak with {items:,} waiting items",
            peak,
            "MB",
            (Ratio(round(peak / idle, 3), "idle"),),
            f"{done:,} were worked off meanwhile",
        ),
        Figure("peak over idle", round(peak - idle, 1), "MB", note=aim),
        Figure("peak over idle again", round(peak - warm, 1), "MB"),
    ]
