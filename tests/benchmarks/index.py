"""An HNSW index that is there from the start, beside one that is built when the rows have their vectors."""

from __future__ import annotations

import time
from dataclasses import dataclass

import asyncpg

from benchmarks.figures import Figure, Ratio
from benchmarks.scratch import INSTANT, database, drained, ready, session_of
from daemons import process
from rowvec.embedded import EmbeddedPostgres

BUILD = "CREATE INDEX vector_hnsw ON rowvec.vector_first USING hnsw (embedding vector_cosine_ops)"
BUILD_MEMORY = "256MB"
"""Enough for the graph: beyond it the build goes on many times slower."""
LONGEST_SECONDS = 3600.0


@dataclass(frozen=True)
class Took:
    """Seconds of both parts, and how large the index became."""

    backfill: float
    build: float
    megabytes: float


async def measure_index(postgres: EmbeddedPostgres, rows: int) -> list[Figure]:
    after = await fill_and_build(postgres, rows, index_first=False)
    before = await fill_and_build(postgres, rows, index_first=True)
    together = after.backfill + after.build
    return [
        Figure(f"backfill of {rows:,} rows, no index", round(after.backfill, 2), "s"),
        Figure("index built afterwards", round(after.build, 2), "s", note=f"{after.megabytes:.0f} MB"),
        Figure("both together", round(together, 2), "s"),
        Figure(
            f"backfill of {rows:,} rows, the index there from the start",
            round(before.backfill, 2),
            "s",
            (
                Ratio(round(before.backfill / after.backfill, 2), "the backfill without"),
                Ratio(round(before.backfill / together, 2), "both together"),
            ),
            f"{before.megabytes:.0f} MB",
        ),
    ]


async def fill_and_build(postgres: EmbeddedPostgres, rows: int, *, index_first: bool) -> Took:
    async with database(postgres, "hnsw") as dsn, session_of(dsn, maintenance_work_mem=BUILD_MEMORY) as session:
        build = await seconds_to_build(session) if index_first else 0.0
        backfill = await seconds_to_fill(dsn, session, rows)
        if not index_first:
            build = await seconds_to_build(session)
        size = await session.fetchval("SELECT pg_relation_size('rowvec.vector_hnsw')")
    return Took(backfill, build, size / 1e6)


async def seconds_to_fill(dsn: str, session: asyncpg.Connection, rows: int) -> float:
    async with process(dsn, **INSTANT):
        await ready(dsn)
        await session.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, $1::int) n", rows)
        began = time.perf_counter()
        await drained(session, LONGEST_SECONDS)
        return time.perf_counter() - began


async def seconds_to_build(session: asyncpg.Connection) -> float:
    began = time.perf_counter()
    await session.execute(BUILD)
    return time.perf_counter() - began
