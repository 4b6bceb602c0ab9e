"""Measurements: `make bench`. Prints what it measured; nothing here passes or fails.

Everything runs on one machine against an embedded Postgres with fsync on; the model answers at once, so what is
measured is rowvec. Machines differ and are noisy: compare within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg
import uvloop
from pgvector import Vector
from pgvector.asyncpg import register_vector

from daemons import process
from database import MAJOR, open_folder
from rowvec.embedded import EmbeddedPostgres
from rowvec.models.deterministic import deterministic_embedding
from rowvec.postgres.administration import migrate_database

DIMENSIONS = 384
INSTANT = {
    "ROWVEC_MODEL_FIRST_PROVIDER": "deterministic",
    "ROWVEC_MODEL_FIRST_DIMENSIONS": str(DIMENSIONS),
    "ROWVEC_MODEL_FIRST_CONCURRENCY": "2",
    "ROWVEC_MODEL_SECOND_PROVIDER": "off",
    "ROWVEC_LOG_LEVEL": "warning",
}
POST = """
    CREATE TABLE post (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
    SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}');
"""


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the return of COMMIT to the moment another session sees the vector."""

    samples: int
    p50: float
    p99: float
    worst: float


@dataclass(frozen=True)
class Throughput:
    """Rows a second, and how rowvec compares with nothing but the writing of the same vectors."""

    rows: int
    items_per_second: float
    plain_upserts_per_second: float
    ratio: float


def latency(seconds: Sequence[float]) -> Latency:
    ordered = sorted(second * 1000 for second in seconds)
    p99 = statistics.quantiles(ordered, n=100)[98]
    return Latency(len(ordered), round(statistics.median(ordered), 2), round(p99, 2), round(ordered[-1], 2))


@contextlib.asynccontextmanager
async def database(postgres: EmbeddedPostgres, name: str) -> AsyncIterator[str]:
    """Yield the DSN of a new, migrated database with an empty watched table `post`."""
    admin = await asyncpg.connect(postgres.dsn_for("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    dsn = postgres.dsn_for(name)
    await migrate_database(dsn, {"first": DIMENSIONS})
    session = await asyncpg.connect(dsn)
    await session.execute(POST)
    await session.close()
    yield dsn
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def until(check: Callable[[], Awaitable[bool]], pause_seconds: float = 0.01, within: float = 300.0) -> None:
    async with asyncio.timeout(within):
        while not await check():  # noqa: ASYNC110 - the condition is in another process
            await asyncio.sleep(pause_seconds)


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


async def ready(dsn: str) -> None:
    session = await asyncpg.connect(dsn)

    async def one_daemon_asleep() -> bool:
        return bool(
            await session.fetchval(
                "SELECT bool_and(backfilled) FROM rowvec.source HAVING (SELECT count(*) FROM rowvec.daemon) = 1"
            )
        )

    await until(one_daemon_asleep)
    await session.close()


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


async def measure_throughput(postgres: EmbeddedPostgres, rows: int) -> Throughput:
    """Let a daemon start on waiting rows; beside it write the same vectors with plain batched upserts."""
    async with database(postgres, "throughput") as dsn:
        session = await asyncpg.connect(dsn)
        await session.execute("UPDATE rowvec.source SET backfilled = true")
        await session.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, $1::int) n", rows)
        plain = await _plain_upserts(dsn, rows)
        async with process(dsn, **INSTANT):

            async def begun() -> bool:
                return bool(await session.fetchval("SELECT count(*) FROM rowvec.daemon"))

            async def done() -> bool:
                return bool(await session.fetchval("SELECT count(*) = $1 FROM rowvec.vector_first", rows))

            await until(begun, 0.001)
            began = time.perf_counter()
            await until(done)
            seconds = time.perf_counter() - began
        await session.close()
    return Throughput(rows, round(rows / seconds), round(rows / plain), round(plain / seconds, 3))


async def _plain_upserts(dsn: str, rows: int, batch: int = 256) -> float:
    """Seconds to write vectors, texts and hashes into a table like the model's own."""
    session = await asyncpg.connect(dsn)
    await register_vector(session)
    await session.execute("CREATE TABLE plain (LIKE rowvec.vector_first INCLUDING ALL)")
    await session.execute("SET synchronous_commit = off")
    vectors = [Vector(list(deterministic_embedding(f"Post {n}", DIMENSIONS))) for n in range(1, rows + 1)]
    began = time.perf_counter()
    for start in range(0, rows, batch):
        numbers = range(start, min(start + batch, rows))
        await session.execute(
            """
            INSERT INTO plain (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                               provider_revision, prefix, embedding)
            SELECT 'post', n::text, 0, 'Post ' || n, sha256(n::text::bytea), 0, 'plain', '', v
            FROM unnest($1::int[], $2::vector[]) AS given (n, v)
            ON CONFLICT (content_type, content_id, chunk_hash, repeat) DO UPDATE SET embedding = EXCLUDED.embedding
            """,
            [number + 1 for number in numbers],
            [vectors[number] for number in numbers],
        )
    seconds = time.perf_counter() - began
    await session.execute("DROP TABLE plain")
    await session.close()
    return seconds


async def measure(names: Sequence[str], quick: bool) -> dict[str, Any]:  # noqa: FBT001 - a flag of the command
    with open_folder() as folder, EmbeddedPostgres(folder, major=MAJOR) as postgres:
        runs: dict[str, Callable[[], Awaitable[Latency | Throughput]]] = {
            "commit_to_vector_idle_ms": lambda: measure_idle(postgres, 30 if quick else 200),
            "commit_to_vector_at_500_per_second_ms": lambda: measure_flow(postgres, 500, 3 if quick else 20),
            "throughput_20000_waiting": lambda: measure_throughput(postgres, 20_000),
        }
        found: dict[str, Any] = {"postgres": MAJOR, "dimensions": DIMENSIONS}
        for name in names or runs:
            found[name] = asdict(await runs[name]())
            sys.stderr.write(f"{name}: {found[name]}\n")
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which measurements (all)")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    given = parser.parse_args()
    sys.stdout.write(json.dumps(uvloop.run(measure(given.names, given.quick)), indent=2) + "\n")


if __name__ == "__main__":
    main()
