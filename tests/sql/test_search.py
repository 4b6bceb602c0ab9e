"""rowvec.search: what is found, in which order, and for whom."""

from __future__ import annotations

import hashlib

import asyncpg
import pytest

from database import Connect
from worker import Worker

Found = list[tuple[str, str]]


async def put(
    session: asyncpg.Connection, key: str, direction: str, *, owner: str | None = None, chunk: int = 0,
    content_type: str = "course", table: str = "vector_first",
) -> None:  # fmt: skip
    """Store one chunk with an embedding that begins with `direction` and is filled up with zeros."""
    length = {"vector_first": 8, "vector_second": 4}[table]
    embedding = "[" + ",".join([*direction.split(), *["0"] * length][:length]) + "]"
    text = f"{content_type} {key} chunk {chunk}"
    await session.execute(
        f"""
        INSERT INTO rowvec.{table} (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat, owner,
                                    provider_revision, prefix, embedding)
        VALUES ($1, $2, $3, $4, $5, 0, $6, 'test-1', '', $7::text::public.vector)
        """,
        *(content_type, key, chunk, text, hashlib.sha256(text.encode()).digest(), owner, embedding),
    )


async def search(session: asyncpg.Connection, arguments: str = "owner => NULL", direction: str = "1 0") -> Found:
    """Search for a direction in the first two dimensions."""
    embedding = "[" + ",".join([*direction.split(), *["0"] * 8][:8]) + "]"
    rows = await session.fetch(
        f"SELECT * FROM rowvec.search(query => '', embedding => $1::text::public.vector, {arguments})", embedding
    )
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    return [(row["content_type"], row["content_id"]) for row in rows]


async def test_the_nearest_comes_first_with_its_similarity(app: asyncpg.Connection) -> None:
    for key, direction in {"far": "-1 0", "near": "1 0.1", "beside": "0 1", "same": "5 0"}.items():
        await put(app, key, direction)
    assert await search(app) == [("course", key) for key in ("same", "near", "beside", "far")]
    rows = await app.fetch("SELECT * FROM rowvec.search('', '[1,0,0,0,0,0,0,0]'::public.vector, NULL)")
    assert [round(row["score"], 3) for row in rows] == [1.0, 0.995, 0.0, -1.0]
    assert [(row["chunk_index"], row["chunk_text"]) for row in rows][:1] == [(0, "course same chunk 0")]


async def test_equal_scores_come_in_a_fixed_order(app: asyncpg.Connection) -> None:
    for key in ("b", "c", "a"):
        await put(app, key, "1 0")
    assert await search(app) == [("course", "a"), ("course", "b"), ("course", "c")]


async def test_only_rows_of_the_owner(app: asyncpg.Connection) -> None:
    await put(app, "1", "1 0", owner="ada")
    await put(app, "2", "1 0.1", owner="bob")
    await put(app, "3", "1 0.2")
    assert await search(app, "owner => 'ada'") == [("course", "1")]
    assert await search(app, "owner => 'bob'") == [("course", "2")]
    assert await search(app, "owner => 'nobody'") == []
    assert await search(app, "owner => ''") == []
    assert len(await search(app, "owner => NULL")) == 3


async def test_an_owner_must_be_named(app: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await app.fetch("SELECT * FROM rowvec.search('', '[1,0,0,0,0,0,0,0]'::public.vector)")


async def test_only_the_content_types_asked_for(app: asyncpg.Connection) -> None:
    for content_type in ("course", "lesson", "post"):
        await put(app, "1", "1 0", content_type=content_type)
    two = await search(app, "owner => NULL, content_types => ARRAY['course', 'post']")
    assert two == [("course", "1"), ("post", "1")]
    assert await search(app, "owner => NULL, content_types => ARRAY['nothing']") == []
    assert await search(app, "owner => NULL, content_types => ARRAY[]::text[]") == []
    assert len(await search(app, "owner => NULL, content_types => NULL")) == 3


async def test_filters_narrow_before_the_limit(app: asyncpg.Connection) -> None:
    for key in range(100):
        await put(app, str(key), "1 0", owner="ada")
    await put(app, "wanted", "-1 0", owner="bob", content_type="lesson")
    assert await search(app, "owner => 'bob', max_results => 1") == [("lesson", "wanted")]
    wanted = await search(app, "owner => NULL, content_types => ARRAY['lesson'], max_results => 1")
    assert wanted == [("lesson", "wanted")]


@pytest.mark.parametrize(("limit", "found"), [("", 10), (", max_results => 3", 3), (", max_results => 0", 0)])
async def test_as_many_rows_as_asked_for(app: asyncpg.Connection, limit: str, found: int) -> None:
    for key in range(15):
        await put(app, f"{key:02}", f"1 0.{key:02}")
    assert await search(app, f"owner => NULL{limit}") == [("course", f"{key:02}") for key in range(found)]


async def test_a_row_of_several_chunks_is_answered_once_by_its_nearest(app: asyncpg.Connection) -> None:
    await put(app, "long", "0 1", chunk=0)
    await put(app, "long", "1 0", chunk=1)
    await put(app, "long", "1 1", chunk=2)
    await put(app, "short", "1 0.5")
    rows = await app.fetch("SELECT * FROM rowvec.search('', '[1,0,0,0,0,0,0,0]'::public.vector, NULL)")
    assert [(row["content_id"], row["chunk_index"]) for row in rows] == [("long", 1), ("short", 0)]
    assert await search(app, "owner => NULL, max_results => 2") == [("course", "long"), ("course", "short")]


async def test_a_model_can_be_named_and_the_first_is_the_default(app: asyncpg.Connection) -> None:
    await put(app, "1", "1 0")
    await put(app, "2", "1 0", table="vector_second")
    assert await search(app) == [("course", "1")]
    assert await search(app, "owner => NULL, model => 'first'") == [("course", "1")]
    rows = await app.fetch("SELECT * FROM rowvec.search('', '[1,0,0,0]'::public.vector, NULL, NULL, 'second')")
    assert [row["content_id"] for row in rows] == ["2"]


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        ("'', '[1,2,3]'::public.vector, NULL", 'The model "first" has 8 dimensions, the given embedding has 3.', ""),
        (
            "'', '[1,2,3]'::public.vector, NULL, model => 'second'",
            'The model "second" has 4 dimensions, the given embedding has 3.',
            "",
        ),
        ("'words', NULL, NULL", "A search needs the embedding of its query.", "`rowvec search` embeds the text"),
        ("'', '[1]'::public.vector, NULL, model => 'third'", 'There is no model "third".', ""),
    ],
)
async def test_a_search_that_makes_no_sense_is_refused(
    app: asyncpg.Connection, call: str, message: str, hint: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await app.fetch(f"SELECT * FROM rowvec.search({call})")
    assert (caught.value.sqlstate, caught.value.args[0]) == ("RV001", message)
    assert hint in (caught.value.hint or "")


async def test_without_any_model_it_is_told(app: asyncpg.Connection) -> None:
    await app.execute("UPDATE rowvec.model SET is_default = false")
    with pytest.raises(asyncpg.PostgresError, match=r'There is no model "\(default\)"'):
        await search(app)


@pytest.mark.parametrize(
    "removal",
    [
        "DELETE FROM course WHERE id = 1",
        "UPDATE course SET id = 3 WHERE id = 1",
        "UPDATE course SET teacher = 'bob' WHERE id = 1",
        "WITH gone AS (DELETE FROM course WHERE id = 1 RETURNING id) SELECT * FROM gone",
    ],
)
async def test_a_removed_row_is_not_found_in_the_same_transaction(
    course: asyncpg.Connection, connect: Connect, worker: Worker, removal: str
) -> None:
    await course.execute("INSERT INTO course (id, title, teacher) VALUES (1, 'One', 'ada'), (2, 'Two', 'ada')")
    await worker.settle()
    assert len(await search(course)) == 2
    other = await connect()
    transaction = course.transaction()
    await transaction.start()
    await course.execute(removal)
    assert await search(course) == [("course", "2")]
    assert len(await search(other)) == 2
    await transaction.rollback()
    assert len(await search(course)) == 2
    await course.execute(removal)
    assert await search(other) == [("course", "2")]


async def test_a_role_may_search_only_when_it_was_granted(app: asyncpg.Connection, connect: Connect) -> None:
    await put(app, "1", "1 0")
    await app.execute("CREATE ROLE rowvec_test_searcher; GRANT USAGE ON SCHEMA rowvec TO rowvec_test_searcher")
    try:
        guest = await connect()
        await guest.execute("SET ROLE rowvec_test_searcher")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await search(guest)
        await app.execute("GRANT EXECUTE ON FUNCTION rowvec.search TO rowvec_test_searcher")
        assert await search(guest) == [("course", "1")]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await guest.fetch("SELECT * FROM rowvec.vector_first")
        await guest.close()
    finally:
        await app.execute("DROP OWNED BY rowvec_test_searcher; DROP ROLE rowvec_test_searcher")
