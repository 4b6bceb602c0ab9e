"""From commit to vector: the daemon asleep, and under a steady flow of writes."""

from __future__ import annotations

import asyncio
import functools
import time

import asyncpg

from benchmarks.figures import Latency, latency
from benchmarks.scratch import INSTANT, database, ready, until
from daemons import process
from rowvec.embedded import EmbeddedPostgres


class Watcher:
    """Sees vectors appear, on a session of its own, as tightly as a session can ask."""

    def __init__(self, session: asyncpg.Connection) -> None:
        self._session = session
        self.seen: dict[str, float] = {}

    async def run(self, total: int) -> None:
        """Note when each new vector is first visible, until there are so many."""
        since = "epoch"
        while len(self.seen) < total:
            rows = await self._session.fetch(
                "SELECT content_id, updated_at::text AS at FROM rowvec.vector_first "
                "WHERE updated_at >= $1::text::timestamptz - interval '1 s'",
                since,
            )
            now = time.perf_counter()
            for row in rows:
                self.seen.setdefault(row["content_id"], now)
                since = max(since, row["at"]) if since != "epoch" else row["at"]
            await asyncio.sleep(0.0005)


async def measure_idle(postgres: EmbeddedPostgres, samples: int) -> Latency:
    """Insert a row, wait for its vector, rest, again: the daemon sleeps before each."""
    async with database(postgres, "idle") as dsn, process(dsn, **INSTANT):
        await ready(dsn)
        writer, reader = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        found = await reader.prepare(
            "SELECT EXISTS (SELECT FROM rowvec.vector_first WHERE content_type = 'post' AND content_id = $1)"
        )
        seconds = []
        for n in range(samples):
            key = await writer.fetchval("INSERT INTO post (body) VALUES ($1) RETURNING id::text", f"Post {n}")
            committed = time.perf_counter()
            await until(functools.partial(found.fetchval, key), 0.0003)
            seconds.append(time.perf_counter() - committed)
            await asyncio.sleep(0.1)
        await writer.close()
        await reader.close()
    return latency(seconds[1:])


async def measure_flow(postgres: EmbeddedPostgres, per_second: int, for_seconds: int) -> Latency:
    """Insert single rows at a steady rate from four sessions, each its own transaction."""
    total = per_second * for_seconds
    committed: dict[str, float] = {}
    async with database(postgres, "flow") as dsn, process(dsn, **INSTANT):
        await ready(dsn)
        writers = [await asyncpg.connect(dsn) for _ in range(4)]
        watcher = Watcher(await asyncpg.connect(dsn))
        watching = asyncio.create_task(watcher.run(total))
        began = time.perf_counter()

        async def write(number: int) -> None:
            for n in range(number, total, len(writers)):
                await asyncio.sleep(max(0.0, began + n / per_second - time.perf_counter()))
                key = await writers[number].fetchval(
                    "INSERT INTO post (body) VALUES ($1) RETURNING id::text", f"Post {n}"
                )
                committed[key] = time.perf_counter()

        await asyncio.gather(*(write(number) for number in range(len(writers))))
        await asyncio.wait_for(watching, 60)
        for writer in writers:
            await writer.close()
    return latency([watcher.seen[key] - at for key, at in committed.items()])
