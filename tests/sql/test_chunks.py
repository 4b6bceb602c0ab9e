"""Chunks as they are stored: where each begins, what it stands under, and what an edit writes."""

from __future__ import annotations

import asyncpg
import pytest

from worker import Worker

TEXT = "\n\n".join(
    ("" if n % 10 else f"# Part {n}\n\n") + f"Paragraph {n} says nothing else than this, " + "and that. " * (n % 4)
    for n in range(60)
)


@pytest.fixture
async def page(app: asyncpg.Connection, worker: Worker) -> asyncpg.Connection:
    """A session beside a watched table with one row in Markdown that has its vectors."""
    await app.execute("""
        CREATE TABLE page (id bigint PRIMARY KEY, body text);
        SELECT rowvec.watch('page', 'page', ARRAY['body'], 2, '{body}', chunking => 'markdown',
                            chunk_characters => 120, chunk_overlap => 20);
    """)
    await app.execute("INSERT INTO page VALUES (1, $1)", TEXT)
    await worker.settle()
    return app


async def starts(session: asyncpg.Connection, model: str = "first") -> list[int | None]:
    rows = await session.fetch("SELECT chunk_start FROM rowvec.chunk WHERE model = $1 ORDER BY chunk_index", model)
    return [row["chunk_start"] for row in rows]


async def strangers(session: asyncpg.Connection) -> int:
    """How many chunks are not what stands at their place in their row."""
    return int(
        await session.fetchval("""
            SELECT count(*) FROM rowvec.chunk c JOIN page p ON p.id = c.content_id::bigint
            WHERE substr(btrim(p.body, E' \\n'), c.chunk_start + 1, length(c.chunk_text)) IS DISTINCT FROM c.chunk_text
        """)
    )


EDITS = [
    "UPDATE page SET body = 'A new beginning. ' || body",
    "UPDATE page SET body = replace(body, 'Paragraph 30 ', 'The paragraph of the number 30 ')",
    "UPDATE page SET body = regexp_replace(body, 'Paragraph 17 [^#]*?Paragraph 19', 'Paragraph 19')",
    "UPDATE page SET body = body || E'\\n\\nAnd the end of it. ' || repeat('More. ', 20)",
    "UPDATE page SET body = replace(body, E'\\n\\nParagraph 41', E'\\n   \\nParagraph 41')",
    "UPDATE page SET body = replace(body, '# Part 20', '## 学习 👩\u200d👩\u200d👧 e\u0301')",
    "UPDATE page SET body = 'Short.'",
]


async def test_after_any_edit_each_chunk_is_what_stands_at_its_place(page: asyncpg.Connection, worker: Worker) -> None:
    assert (await starts(page))[0] == 0
    assert await strangers(page) == 0
    for edit in EDITS:
        await page.execute(edit)
        await worker.settle()
        assert await strangers(page) == 0, edit
        assert await starts(page) == await starts(page, "second")


async def test_a_longer_chunk_writes_no_chunk_behind_it(page: asyncpg.Connection, worker: Worker) -> None:
    # The version of a row has its own place in the table: whoever is written anew gets another one.
    held = "SELECT chunk_hash, repeat, ctid::text FROM rowvec.vector_first"
    before, places = {tuple(row) for row in await page.fetch(held)}, await starts(page)
    await page.execute("UPDATE page SET body = replace(body, 'Paragraph 1 ', 'The first of the paragraphs ')")
    await worker.settle()
    after = {tuple(row) for row in await page.fetch(held)}
    assert await starts(page) != places
    assert 1 <= len(before - after) <= 2
    assert 1 <= len(after - before) <= 2


async def test_chunks_know_what_they_stand_under(page: asyncpg.Connection) -> None:
    rows = await page.fetch("SELECT DISTINCT heading FROM rowvec.chunk WHERE chunk_text LIKE '%and that.'")
    assert {row["heading"] for row in rows} == {f"Part {n}" for n in range(0, 60, 10)}
    assert await page.fetchval("SELECT heading FROM rowvec.chunk WHERE model = 'first' AND chunk_index = 0") == ""


async def test_places_of_older_chunks_are_not_known_until_their_row_is_embedded_again(
    page: asyncpg.Connection, worker: Worker
) -> None:
    known = await starts(page)
    await page.execute("UPDATE rowvec.vector_first SET chunk_step = NULL WHERE chunk_index = 2")
    assert await starts(page) == [*known[:3], *[None] * (len(known) - 3)]
    await page.execute("SELECT rowvec.enqueue('page', '1')")
    await worker.settle()
    assert await starts(page) == known


async def test_the_same_text_with_another_part_of_it_as_heading_is_stored_anew(
    page: asyncpg.Connection, worker: Worker
) -> None:
    rows = "SELECT chunk_index, chunk_hash, heading, chunk_text FROM rowvec.vector_first ORDER BY chunk_index"
    before = await page.fetch(rows)
    await page.execute("""
        UPDATE rowvec.vector_first SET heading = '', chunk_text = heading || E'\\n\\n' || chunk_text WHERE heading > ''
    """)
    await page.execute("SELECT rowvec.enqueue('page', '1')")
    await worker.settle()
    assert await page.fetch(rows) == before


async def test_the_chunks_of_a_row_are_found_through_its_key(page: asyncpg.Connection) -> None:
    await page.execute("""
        INSERT INTO rowvec.vector_first (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                         provider_revision, prefix, embedding)
        SELECT 'page', n::text, 0, '', sha256(n::text::bytea), 0, 'r', '', '[1,2,3,4,5,6,7,8]'
        FROM generate_series(2, 20000) n;
        ANALYZE rowvec.vector_first;
    """)
    plan = await page.fetch("""
        EXPLAIN SELECT chunk_start FROM rowvec.chunk
        WHERE model = 'first' AND content_type = 'page' AND content_id = '77' AND chunk_index = 0
    """)
    assert not [row for row in plan if "Seq Scan on vector_first" in row[0]]
