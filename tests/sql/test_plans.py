"""The hot statements keep the plan through the index, also one that was made while the tables were empty."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from rowvec.postgres.connections import PLANNING
from rowvec.postgres.statements import statement, vector_table

UUID = "'00000000-0000-0000-0000-000000000000'"
TABLE = vector_table("first")
HOT = {
    "lock_fold": ("", "0"),
    "fold_changes": ("", "0, 250"),
    "probe_items": ("", "ARRAY['first'], '-infinity'"),
    "claim_items": ("", f"'first', 'immediate', 'course', '-infinity', 128, {UUID}, {UUID}, 60"),
    "lock_items": ("", f"ARRAY[1, 2, 3], {UUID}"),
    "complete_items": ("", f"ARRAY[1, 2, 3], {UUID}"),
    "release_items": ("", f"ARRAY[1, 2, 3], {UUID}, 0"),
    "fail_items": ("", f"ARRAY[1], {UUID}, ARRAY[1], ARRAY[1], 'why', ''"),
    "renew_leases": ("", f"{UUID}, ARRAY[{UUID}]::uuid[], 60, 3"),
    "release_lost_items": ("", ""),
    "lock_vectors": (TABLE, "ARRAY['course'], ARRAY['1']"),
    "find_vectors": (TABLE, "ARRAY['\\x00'::bytea], 'r', ''"),
    "delete_rows": ("rowvec.vector", "ARRAY['course'], ARRAY['1']"),
}
LARGE = re.compile(r"Seq Scan on (embedding_queue|change|vector_)|Sort Key: embedding_queue")


@pytest.fixture
async def planner(course: asyncpg.Connection, dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A session as the daemon's, whose statements were planned on vacuumed, empty tables."""
    await course.execute("VACUUM ANALYZE rowvec.embedding_queue")
    await course.execute("VACUUM ANALYZE rowvec.change")
    session = await asyncpg.connect(dsn, server_settings=PLANNING)
    for name, (table, arguments) in HOT.items():
        await session.execute(f"PREPARE {name} AS {statement(name, table=table)}")
        await session.execute(f"EXPLAIN EXECUTE {name}{f'({arguments})' if arguments else ''}")
    yield session
    await session.close()


async def load(session: asyncpg.Connection) -> None:
    """Many items of two sources, and many changes, without telling the planner."""
    await session.execute("""
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation)
        SELECT type, n::text, 'first', 2, n FROM generate_series(1, 20000) n, unnest(ARRAY['other', 'course']) type;
        INSERT INTO rowvec.change (content_type, content_id, priority, kind)
        SELECT 'course', n::text, 5, 'write' FROM generate_series(20001, 40000) n;
        INSERT INTO rowvec.vector_first (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                         provider_revision, prefix, embedding)
        SELECT 'course', n::text, 0, '', sha256(n::text::bytea), 0, 'r', '', '[1,2,3,4,5,6,7,8]'
        FROM generate_series(1, 20000) n;
    """)


@pytest.mark.parametrize("name", HOT)
async def test_it_goes_through_the_index(course: asyncpg.Connection, planner: asyncpg.Connection, name: str) -> None:
    await load(course)
    arguments = HOT[name][1]
    rows = await planner.fetch(f"EXPLAIN EXECUTE {name}{f'({arguments})' if arguments else ''}")
    plan = "\n".join(row[0] for row in rows)
    assert not LARGE.search(plan), plan


async def test_a_claim_reads_no_more_than_it_takes(course: asyncpg.Connection, planner: asyncpg.Connection) -> None:
    await load(course)
    rows = await planner.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) EXECUTE claim_items({HOT['claim_items'][1]})")
    plan = "\n".join(row[0] for row in rows)
    assert re.search(r"Index Scan using embedding_queue_due .*rows=128(\.00)? ", plan), plan
