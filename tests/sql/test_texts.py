"""Texts that are queued by hand: the source `document`."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from database import Connect
from rowvec.domain.lanes import Lane
from worker import Worker


async def items(session: asyncpg.Connection) -> list[tuple[str, str, int, str]]:
    rows = await session.fetch("""
        SELECT content_type, content_id, priority, lane FROM rowvec.embedding_queue WHERE model = 'first' ORDER BY 2
    """)
    return [tuple(row) for row in rows]


async def texts(session: asyncpg.Connection) -> dict[str, str]:
    rows = await session.fetch("SELECT content_id, chunk_text FROM rowvec.vector_first")
    return {row["content_id"]: row["chunk_text"] for row in rows}


async def test_a_text_by_hand_goes_all_the_way(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("SELECT rowvec.enqueue_text('note', '1', 'Buy milk')")
    await app.execute("SELECT rowvec.enqueue_text('note', '2', 'Urgent', 2)")
    await worker.fold()
    assert await items(app) == [
        ("document", '["note", "1"]', 5, "bulk"),
        ("document", '["note", "2"]', 2, "immediate"),
    ]
    await worker.settle()
    assert await texts(app) == {'["note", "1"]': "Buy milk", '["note", "2"]': "Urgent"}


async def test_a_text_is_replaced_and_removed(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("SELECT rowvec.enqueue_text('note', '1', 'Buy milk', content_hash => 'abc')")
    await worker.settle()
    await app.execute("SELECT rowvec.enqueue_text('note', '1', 'Buy bread')")
    await worker.settle()
    assert await texts(app) == {'["note", "1"]': "Buy bread"}
    assert await app.fetchval("SELECT content_hash FROM rowvec.document") is None
    await app.execute("DELETE FROM rowvec.document")
    assert await texts(app) == {}
    await worker.settle()
    assert await items(app) == []


async def test_the_same_text_again_is_asked_for_again(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("SELECT rowvec.enqueue_text('note', '1', 'Buy milk')")
    await worker.settle()
    await app.execute("SELECT rowvec.enqueue_text('note', '1', 'Buy milk', 1)")
    await worker.fold()
    claim = await worker.claim(Lane.IMMEDIATE, "document")
    assert [item.content_id for item in claim.items] == ['["note", "1"]']


async def test_a_new_model_gets_the_texts_too(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("SELECT rowvec.enqueue_text('note', '1', 'Buy milk')")
    await worker.settle()
    await app.execute("SELECT rowvec.add_model('third', 4)")
    assert await worker.log.append_backfill("document", "third") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'course', '1', 'Text'", 'The text of "course" comes from its table.'),
        ("'document', '1', 'Text'", 'The text of "document" comes from its table.'),
        ("'note', '1', NULL", "There is no text"),
        ("'note', '1', E' \\n'", "There is no text"),
        ("'', '1', 'Text'", "1 to 100 bytes"),
        ("'note', NULL, 'Text'", "1 to 100 bytes"),
        ("'note', repeat('x', 501), 'Text'", "1 to 500"),
        ("'note', '1', 'Text', 0", "priority must be 1 to 100"),
    ],
)
async def test_refused(course: asyncpg.Connection, arguments: str, message: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match=message) as caught:
        await course.execute(f"SELECT rowvec.enqueue_text({arguments})")
    assert caught.value.sqlstate == "RV001"
    assert await course.fetchval("SELECT count(*) FROM rowvec.document") == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("rowvec.unwatch('document')", "rowvec's own source"),
        (
            "rowvec.watch('note', 'document', ARRAY['body'])",
            '"document" is already the content type of rowvec.document',
        ),
        ("rowvec.watch('rowvec.document', 'mine', '{content_text}')", "document is one of rowvec's own tables"),
        ("rowvec.watch('note', 'memo', ARRAY['body'])", 'There are texts queued by hand as "memo"'),
    ],
)
async def test_its_own_source_is_left_as_it_is(app: asyncpg.Connection, call: str, message: str) -> None:
    await app.execute("CREATE TABLE note (id bigint PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.enqueue_text('memo', '1', 'Text')")
    with pytest.raises(asyncpg.PostgresError, match=message) as caught:
        await app.execute(f"SELECT {call}")
    assert caught.value.sqlstate == "RV001"


async def test_a_name_is_a_source_s_or_a_text_s_whichever_comes_first(
    app: asyncpg.Connection, connect: Connect
) -> None:
    other = await connect()
    text = "SELECT rowvec.enqueue_text('note', '1', 'Milk')"
    watch = "SELECT rowvec.watch('note', 'note', ARRAY['body'])"
    await app.execute("CREATE TABLE note (id bigint PRIMARY KEY, body text)")
    for first, second, message in (
        (text, watch, 'texts queued by hand as "note"'),
        (watch, text, 'The text of "note" comes from its table'),
    ):
        async with app.transaction():
            await app.execute(first)
            late = asyncio.create_task(other.execute(second))
            await asyncio.sleep(0.2)
        with pytest.raises(asyncpg.PostgresError, match=message):
            await late
        await app.execute("DELETE FROM rowvec.document")


async def test_ids_and_texts_of_any_letters(app: asyncpg.Connection, worker: Worker) -> None:
    odd = 'a "quoted" id, \\ with 鍵 and {braces}'
    await app.execute("SELECT rowvec.enqueue_text($1, $1, $1)", odd)
    await worker.settle()
    assert list((await texts(app)).values()) == [odd]
    await app.execute("DELETE FROM rowvec.document WHERE content_id = $1", odd)
    assert await texts(app) == {}
