"""How fast a pile of waiting rows is worked off, beside the mere writing of the same vectors."""

from __future__ import annotations

import time

import asyncpg
from pgvector import Vector
from pgvector.asyncpg import register_vector

from benchmarks.figures import Throughput
from benchmarks.scratch import DIMENSIONS, INSTANT, database, until
from daemons import process
from database import FILL
from rowvec.embedded import EmbeddedPostgres
from rowvec.models.deterministic import deterministic_embedding


async def measure_throughput(postgres: EmbeddedPostgres, rows: int) -> Throughput:
    """Let a daemon start on waiting rows; beside it write the same vectors with plain batched upserts."""
    async with database(postgres, "throughput") as dsn:
        session = await asyncpg.connect(dsn)
        await session.execute(FILL)
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
