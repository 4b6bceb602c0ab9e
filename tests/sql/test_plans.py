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
    "lock_fold": ("", "ARRAY[0, 0, 0]"),
    "fold_changes": ("", "ARRAY[0, 0, 0], 250"),
    "probe_items": ("", "ARRAY['first'], '-infinity'"),
    "claim_items": ("", f"'first', 'immediate', 'course', '-infinity', 128, {UUID}, {UUID}, 60"),
    "claim_rows": ("", f"ARRAY['first'], ARRAY['course', 'course'], ARRAY['1', '2'], {UUID}, {UUID}, 60"),
    "dispatch_items": ("", f"ARRAY[1, 2, 3], {UUID}, {UUID}, 30, ARRAY['first'], 30"),
    "recall_items": ("", f"ARRAY[1, 2, 3], {UUID}"),
    "count_dispatched": ("", ""),
    "show_held": ("", "'bulk', ARRAY['first'], 64"),
    "lock_items": ("", f"ARRAY[1, 2, 3], {UUID}"),
    "complete_items": ("", f"ARRAY[1, 2, 3], {UUID}"),
    "release_items": ("", f"ARRAY[1, 2, 3], {UUID}, 0"),
    "fail_items": ("", f"ARRAY[1], {UUID}, ARRAY[1], ARRAY[1], 'why', ''"),
    "renew_leases": ("", f"{UUID}, ARRAY[{UUID}]::uuid[], 60, 3"),
    "release_lost_items": ("", ""),
    "show_rows": ("", "ARRAY['course'], ARRAY['1']"),
    "list_fingerprints": (TABLE, "ARRAY['course'], ARRAY['1']"),
    "take_back_rows": ("", f"{UUID}, ARRAY['course'], ARRAY['1']"),
    "lock_vectors": (TABLE, "ARRAY['course'], ARRAY['1']"),
    "find_vectors": (TABLE, "ARRAY['\\x00'::bytea], 'r', ''"),
    "delete_rows": ("rowvec.vector", "ARRAY['course'], ARRAY['1']"),
}
CUSTOM_PLANS = 5
"""That many does `auto` make before it compares them with a generic one (plancache.c)."""

LARGE = re.compile(r"Seq Scan on (embedding_queue|change|vector_)|Sort Key: embedding_queue")


@pytest.fixture(params=["force_generic_plan", "force_custom_plan", "auto"])
def plan_cache_mode(request: pytest.FixtureRequest) -> str:
    """The first is the daemon's; a pooler or a role's settings must not make another one ruinous."""
    return str(request.param)


async def open_planner(dsn: str, plan_cache_mode: str) -> asyncpg.Connection:
    """A session as the daemon's, but for the mode."""
    return await asyncpg.connect(dsn, server_settings={**PLANNING, "plan_cache_mode": plan_cache_mode})


async def explain(session: asyncpg.Connection, name: str, options: str = "") -> str:
    arguments = HOT[name][1]
    rows = await session.fetch(f"EXPLAIN {options} EXECUTE {name}{f'({arguments})' if arguments else ''}")
    return "\n".join(row[0] for row in rows)


async def plan_all(session: asyncpg.Connection) -> None:
    """Have every statement planned, more often than `auto` tries before it keeps a plan."""
    for name, (table, _) in HOT.items():
        await session.execute(f"PREPARE {name} AS {statement(name, table=table)}")
        for _ in range(CUSTOM_PLANS + 1):
            await explain(session, name)


@pytest.fixture
async def planner(course: asyncpg.Connection, dsn: str, plan_cache_mode: str) -> AsyncIterator[asyncpg.Connection]:
    """A session whose statements were planned on vacuumed, empty tables."""
    await course.execute("VACUUM ANALYZE rowvec.embedding_queue")
    await course.execute("VACUUM ANALYZE rowvec.change")
    session = await open_planner(dsn, plan_cache_mode)
    await plan_all(session)
    yield session
    await session.close()


async def load(session: asyncpg.Connection) -> None:
    """Many items of two sources, and many changes, without telling the planner."""
    await session.execute("""
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation)
        SELECT type, n::text, 'first', 2, n FROM generate_series(1, 20000) n, unnest(ARRAY['other', 'course']) type;
        INSERT INTO rowvec.change (urgency, content_type, content_id, priority, kind)
        SELECT 3, 'course', n::text, 5, 'write' FROM generate_series(20001, 40000) n;
        INSERT INTO rowvec.vector_first (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                         provider_revision, prefix, embedding)
        SELECT 'course', n::text, 0, '', sha256(n::text::bytea), 0, 'r', '', '[1,2,3,4,5,6,7,8]'
        FROM generate_series(1, 20000) n;
    """)


async def test_they_go_through_the_index(course: asyncpg.Connection, planner: asyncpg.Connection) -> None:
    await load(course)
    plans = {name: await explain(planner, name) for name in HOT}
    assert {name: plan for name, plan in plans.items() if LARGE.search(plan)} == {}


async def test_a_claim_reads_no_more_than_it_takes(course: asyncpg.Connection, planner: asyncpg.Connection) -> None:
    await load(course)
    plan = await explain(planner, "claim_items", "(ANALYZE, TIMING OFF)")
    assert re.search(r"Index Scan using embedding_queue_due .*rows=128(\.00)? ", plan), plan


async def test_a_claim_that_was_planned_on_a_few_items_is_good_for_many(
    course: asyncpg.Connection, dsn: str, plan_cache_mode: str
) -> None:
    # 220 short keys still fit a single page of their index, the entries of the due items no longer do.
    await course.execute("ALTER TABLE rowvec.embedding_queue SET (autovacuum_enabled = off)")
    await course.execute("VACUUM ANALYZE rowvec.embedding_queue")
    await course.execute("""
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation)
        SELECT 'course', n::text, 'first', 2, n FROM generate_series(1, 220) n
    """)
    session = await open_planner(dsn, plan_cache_mode)
    await plan_all(session)
    plan = await explain(session, "claim_items")
    await session.close()
    assert "Sort" not in plan, plan
