"""Rules whose breach costs speed or rows only later: plans that stay, pages that fill, snapshots that are held."""

from __future__ import annotations

import re

import asyncpg
import pytest

from database import Connect
from rowvec.postgres.connections import PLANNING
from rowvec.postgres.statements import statement
from worker import Worker

SCANS = """
    SELECT relname, seq_scan FROM pg_stat_xact_all_tables
    WHERE relname IN ('course', 'embedding_queue', 'vector_first', 'vector_second')
"""
VECTORS = """
    INSERT INTO rowvec.vector_first (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                     provider_revision, prefix, embedding)
    SELECT 'course', n::text, 0, '', sha256(n::text::bytea), 0, 'r', '', '[1,2,3,4,5,6,7,8]'
    FROM generate_series(1, 20000) n
"""


async def scanned(session: asyncpg.Connection, sql: str, *arguments: object) -> set[str]:
    """Run a statement, and return the tables that it read from end to end."""
    async with session.transaction():
        before = {row["relname"]: row["seq_scan"] for row in await session.fetch(SCANS)}
        await session.execute(sql, *arguments)
        after = {row["relname"]: row["seq_scan"] for row in await session.fetch(SCANS)}
    return {name for name, scans in after.items() if scans > before.get(name, 0)}


async def test_a_single_delete_after_a_bulk_one_keeps_its_plan(course: asyncpg.Connection) -> None:
    # Joining the transition table would cache the plan of the bulk statement in the session.
    await course.execute("INSERT INTO course (id, title) SELECT n, 'Course' FROM generate_series(1, 20000) n")
    await course.execute("DELETE FROM rowvec.change")
    await course.execute(VECTORS)
    await course.execute("ANALYZE course; ANALYZE rowvec.vector_first")
    for _ in range(6):  # the sixth call of a statement is the first that may take a cached plan
        await course.execute("DELETE FROM course WHERE id IN (SELECT id FROM course LIMIT 3000)")
    assert await scanned(course, "DELETE FROM course WHERE id = 20000") == set()


async def test_a_first_delete_is_planned_for_the_rows_that_will_come(course: asyncpg.Connection) -> None:
    # A session whose plans were made on empty tables keeps them.
    for n in range(8):
        await course.execute("INSERT INTO course (id, title) VALUES ($1, 'Course')", n)
        await course.execute("DELETE FROM course")
    await course.execute("INSERT INTO course (id, title) SELECT n, 'Course' FROM generate_series(1, 20000) n")
    await course.execute(VECTORS)
    assert await scanned(course, "DELETE FROM course WHERE id = 7") == set()


async def test_types_that_call_different_texts_equal_hide_nothing(app: asyncpg.Connection) -> None:
    await app.execute("""
        CREATE TABLE price (id bigint PRIMARY KEY, amount numeric, facts jsonb);
        SELECT rowvec.watch('price', 'price', ARRAY['amount', 'facts']);
        INSERT INTO price VALUES (1, 1.5, '{"a": 1.0}');
        DELETE FROM rowvec.change;
    """)
    await app.execute("UPDATE price SET amount = 1.50")
    await app.execute("""UPDATE price SET facts = '{"a": 1.00}'""")
    assert await app.fetchval("SELECT count(*) FROM rowvec.change") == 2
    await app.execute("""UPDATE price SET amount = 1.50, facts = '{"a":   1.00}'""")
    assert await app.fetchval("SELECT count(*) FROM rowvec.change") == 2


@pytest.mark.parametrize("type_", ["bigint", "text", "uuid"])
async def test_rows_are_read_through_their_key(app: asyncpg.Connection, type_: str) -> None:
    # Comparing the key as text would scan the table.
    value = "md5(n::text)::uuid" if type_ == "uuid" else f"n::{type_}"
    await app.execute(f"""
        CREATE TABLE course (id {type_} PRIMARY KEY, title text);
        INSERT INTO course SELECT {value}, 'Course' FROM generate_series(1, 20000) n;
        ANALYZE course;
        SELECT rowvec.watch('course', 'course', ARRAY['title']);
    """)
    some = await app.fetchval("SELECT array_agg(id::text) FROM (SELECT id FROM course LIMIT 64) AS c")
    assert len(await app.fetch("SELECT rowvec.read_rows('course', $1)", some)) == 64
    assert await scanned(app, "SELECT rowvec.read_rows('course', $1)", some) == set()


async def test_rows_are_read_through_a_key_of_several_columns(app: asyncpg.Connection) -> None:
    await app.execute("""
        CREATE TABLE course (a bigint, b text, title text, PRIMARY KEY (a, b));
        INSERT INTO course SELECT n, n::text, 'Course' FROM generate_series(1, 20000) n;
        ANALYZE course;
        SELECT rowvec.watch('course', 'course', ARRAY['title']);
    """)
    some = [f'[{n}, "{n}"]' for n in range(1, 65)]
    for name, setting in PLANNING.items():
        await app.execute("SELECT set_config($1, $2, false)", name, setting)
    assert len(await app.fetch("SELECT rowvec.read_rows('course', $1)", some)) == 64
    assert await scanned(app, "SELECT rowvec.read_rows('course', $1)", some) == set()


async def test_chunks_that_only_move_stay_in_their_pages(app: asyncpg.Connection, worker: Worker) -> None:
    # Or a new first paragraph would insert every later chunk into all indexes again, the vectors' among them.
    body = "\n\n".join(f"Paragraph {n} says nothing else than this." for n in range(200))
    await app.execute("""
        CREATE TABLE course (id bigint PRIMARY KEY, body text);
        SELECT rowvec.watch('course', 'course', ARRAY['body'], 2, '{body}', chunking => 'characters',
                            chunk_characters => 60);
    """)
    await app.execute("INSERT INTO course VALUES (1, $1)", body)
    await worker.settle()
    updates = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_all_tables WHERE relname = 'vector_first'"
    before = tuple(await app.fetchrow(updates) or (0, 0))
    async with app.transaction():
        await app.execute(
            "UPDATE rowvec.vector_first SET chunk_index = chunk_index + 1, chunk_step = chunk_step + 1 "
            "WHERE chunk_index % 4 = 0"
        )
        after = tuple(await app.fetchrow(updates) or (0, 0))
    moved, in_place = (new - old for new, old in zip(after, before, strict=True))
    assert (moved, in_place) == (50, 50)
    indexed = await app.fetch("""
        SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indexrelid
        WHERE i.indrelid = 'rowvec.vector_first'::regclass
    """)
    assert not {"chunk_index", "chunk_step", "heading", "owner", "updated_at"} & {row["attname"] for row in indexed}


async def test_an_edit_writes_the_chunks_that_changed_and_moves_the_others(
    app: asyncpg.Connection, worker: Worker
) -> None:
    paragraphs = [f"Paragraph {n} says nothing else than this." for n in range(50)]
    await app.execute("""
        CREATE TABLE course (id bigint PRIMARY KEY, body text);
        SELECT rowvec.watch('course', 'course', ARRAY['body'], 2, '{body}', chunking => 'characters',
                            chunk_characters => 60);
    """)
    await app.execute("INSERT INTO course VALUES (1, $1)", "\n\n".join([*paragraphs, paragraphs[0], paragraphs[0]]))
    await worker.settle()
    created = "SELECT chunk_hash, repeat, updated_at FROM rowvec.vector_first"
    before = {tuple(row)[:2] for row in await app.fetch(created)}
    assert len(before) == 52
    await app.execute("UPDATE course SET body = 'A new beginning, long enough to stand alone.' || E'\n\n' || body")
    await worker.settle()
    after = {tuple(row)[:2] for row in await app.fetch(created)}
    assert before < after
    assert len(after - before) == 1
    rows = await app.fetch("SELECT chunk_text FROM rowvec.vector_first ORDER BY chunk_index")
    assert [row["chunk_text"] for row in rows][1:] == [*paragraphs, paragraphs[0], paragraphs[0]]


async def test_markdown_is_cut_before_its_headings(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE course (id bigint PRIMARY KEY, body text);
        SELECT rowvec.watch('course', 'course', ARRAY['body'], 2, '{body}', chunking => 'markdown',
                            chunk_characters => 60);
    """)
    parts = [f"## Part {n}\n\nWhat part {n} has to say in a line." for n in range(20)]
    await app.execute("INSERT INTO course VALUES (1, $1)", "\n\n".join(parts))
    await worker.settle()
    rows = await app.fetch("SELECT chunk_text FROM rowvec.vector_first ORDER BY chunk_index")
    assert [row["chunk_text"] for row in rows] == parts


async def test_a_model_table_can_be_dropped_without_breaking_a_writer(
    course: asyncpg.Connection, worker: Worker
) -> None:
    # Triggers that named each model would fail here.
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.settle()
    await course.execute("DELETE FROM course WHERE id = 1")
    await course.execute("DROP TABLE rowvec.vector_second")
    await course.execute("DELETE FROM course WHERE id = 2")
    await course.execute("TRUNCATE course")
    assert await course.fetchval("SELECT count(*) FROM rowvec.vector") == 0


async def test_a_long_held_snapshot_does_not_make_the_claim_crawl(
    course: asyncpg.Connection, connect: Connect, dsn: str
) -> None:
    # The rows of finished items stay in the index for as long as somebody may see them: the floor jumps over them.
    held = await connect()
    await held.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM rowvec.embedding_queue")
    await course.execute("""
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, scheduled_at)
        SELECT 'course', n::text, 'first', 2, n, now() - interval '1 hour' FROM generate_series(1, 20000) n;
        DELETE FROM rowvec.embedding_queue;
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation)
        SELECT 'course', n::text, 'first', 2, n FROM generate_series(1, 200) n;
    """)
    daemon = await asyncpg.connect(dsn, server_settings=PLANNING)
    uuid = "'00000000-0000-0000-0000-000000000000'"

    async def pages(since: str) -> int:
        claim = statement("claim_items")
        for number, value in enumerate(
            ("'first'", "'immediate'", "'course'", f"({since})", "64", uuid, uuid, "60"), start=1
        ):  # fmt: skip
            claim = claim.replace(f"${number}::", f"{value}::")
        transaction = daemon.transaction()
        await transaction.start()
        plan = [row[0] for row in await daemon.fetch(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {claim}")]
        await transaction.rollback()
        scan = next(number for number, line in enumerate(plan) if "embedding_queue_due" in line)
        return sum(map(int, re.findall(r"(?:hit|read)=(\d+)", next(line for line in plan[scan:] if "Buffers" in line))))

    crawling, jumping = await pages("'-infinity'"), await pages("now() - interval '1 minute'")
    assert jumping < 200
    assert crawling > jumping * 5
    await daemon.close()
    await held.execute("ROLLBACK")


async def test_what_floods_goes_back_as_bulk_and_counts_no_attempt(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.fold()
    claim = await worker.claim()
    await worker.queue.demote(claim, [claim.items[0].id])
    rows = await course.fetch("SELECT lane, status, retry_count FROM rowvec.embedding_queue WHERE model = 'first'")
    assert sorted(tuple(row) for row in rows) == [("bulk", "queued", 0), ("immediate", "processing", 0)]
