"""How rows stand, asked by their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from uuid import uuid4

import asyncpg
import pytest

from database import as_user
from rowvec.domain.errors import UsageError
from rowvec.domain.items import Key, Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.row_states import LaneCount, RowStanding
from rowvec.postgres.connections import Database
from rowvec.postgres.dispatches import PostgresDispatches
from rowvec.postgres.item_queue import PostgresItemQueue
from rowvec.postgres.roles import DAEMON_ROLE
from rowvec.postgres.row_states import PostgresRowStates
from worker import Worker

ONE: Final = Key("course", "1")


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """The pool of a daemon's own role."""
    pool = Database(as_user(dsn, DAEMON_ROLE))
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture
def states(database: Database) -> PostgresRowStates:
    return PostgresRowStates(database)


async def insert(course: asyncpg.Connection, *ids: int) -> None:
    await course.executemany("INSERT INTO course (id, title) VALUES ($1, 'Title')", [(id_,) for id_ in ids])


async def test_the_standing_of_a_row_on_its_way(
    course: asyncpg.Connection, worker: Worker, states: PostgresRowStates
) -> None:
    async def standing() -> RowStanding:
        return (await states.show([ONE]))[ONE]

    assert await standing() == RowStanding(watched=True)
    await insert(course, 1)
    assert await standing() == RowStanding(watched=True, unfolded=True)
    await worker.fold()
    assert await standing() == RowStanding(watched=True, statuses=frozenset({"queued"}))
    await course.execute("UPDATE rowvec.embedding_queue SET status = 'failed' WHERE model = 'first'")
    assert await standing() == RowStanding(watched=True, statuses=frozenset({"queued", "failed"}))
    await course.execute("DELETE FROM rowvec.embedding_queue")
    await course.execute("""
        INSERT INTO rowvec.vector_first (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                         provider_revision, prefix, embedding)
        VALUES ('course', '1', 0, 'x', 'hash', 0, 'r', '', array_fill(1, ARRAY[8])::public.vector)
    """)
    assert await standing() == RowStanding(watched=True, stored=True)
    pets = Key("pets", "1")
    assert await states.show([pets, ONE]) == {pets: RowStanding(watched=False), ONE: await standing()}
    assert await states.fingerprints("first", [ONE, pets]) == {ONE: frozenset({(b"hash", 0)})}
    assert await states.fingerprints("second", [ONE, pets]) == {}


async def test_rows_are_queued_with_their_priority_or_that_of_their_source(
    course: asyncpg.Connection, states: PostgresRowStates
) -> None:
    await insert(course, 1, 2)
    await course.execute("DELETE FROM rowvec.change")
    await states.enqueue({ONE: 4, Key("course", "2"): None})
    changes = await course.fetch("SELECT content_id, priority FROM rowvec.change ORDER BY 1")
    assert [tuple(row) for row in changes] == [("1", 4), ("2", 2)]
    with pytest.raises(UsageError):
        await states.enqueue({Key("pets", "1"): None})


async def test_what_is_answered_for_is_on_the_disk(course: asyncpg.Connection, database: Database) -> None:
    """All else that the pool writes is not waited for."""
    await insert(course, 1)
    async with database.connection() as connection:
        before = await connection.fetchval("SHOW synchronous_commit")
        async with connection.transaction():
            await connection.fetch(database.sql("enqueue_rows"), ["course"], ["1"], [None])
            assert (before, await connection.fetchval("SHOW synchronous_commit")) == ("off", "on")
        assert await connection.fetchval("SHOW synchronous_commit") == "off"


async def test_rows_are_taken_back_from_their_message_alone(
    course: asyncpg.Connection, worker: Worker, states: PostgresRowStates
) -> None:
    mine, others = uuid4(), uuid4()
    await insert(course, 1, 2, 3)
    await worker.fold()
    mark = """
        UPDATE rowvec.embedding_queue SET message_id = $1, scheduled_at = now() + interval '1 hour'
        WHERE content_id = $2 AND model = 'first'
    """
    for id_, message in (("1", mine), ("2", others), ("3", mine)):
        await course.execute(mark, message, id_)
    rows = [ONE, ONE, Key("course", "2"), Key("pets", "1")]
    assert await states.take_back(mine, rows) == [Slot("first", Lane.IMMEDIATE, "course")]
    assert await states.take_back(mine, rows) == []
    left = await course.fetch("""
        SELECT content_id, message_id, scheduled_at <= now() AS due FROM rowvec.embedding_queue
        WHERE model = 'first' ORDER BY 1
    """)
    assert [tuple(row) for row in left] == [("1", mine, True), ("2", others, False), ("3", mine, False)]


async def test_rows_that_wait_are_counted_once_whatever_the_number_of_models(
    course: asyncpg.Connection, worker: Worker, states: PostgresRowStates
) -> None:
    assert set((await states.count()).values()) == {LaneCount()}
    await insert(course, 1, 2, 3)
    await worker.fold()
    await insert(course, 4)
    await course.execute("UPDATE course SET title = 'New' WHERE id = 1")
    later = """
        UPDATE rowvec.embedding_queue SET scheduled_at = now() + interval '1 hour', priority = $2 WHERE content_id = $1
    """
    await course.execute(later, "2", 2)
    await course.execute(later, "3", 9)
    await course.execute("SELECT rowvec.enqueue('course', '5', 3, now() + interval '1 hour')")
    assert await states.count() == {
        Lane.IMMEDIATE: LaneCount(3, 2),
        Lane.STANDARD: LaneCount(1, 0),
        Lane.BULK: LaneCount(1, 0),
    }


async def test_what_a_message_claimed_is_due_when_it_is_given_back(
    course: asyncpg.Connection, worker: Worker, database: Database
) -> None:
    await insert(course, 1)
    await worker.fold()
    await course.execute(
        "UPDATE rowvec.embedding_queue SET message_id = $1, scheduled_at = now() + interval '1 hour'", uuid4()
    )
    daemon = uuid4()
    [claim] = await PostgresDispatches(database, daemon).claim_rows(["first"], [ONE], uuid4())
    await PostgresItemQueue(database, daemon).release(claim, [claim.items[0].id], 0.0)
    left = await course.fetch("SELECT model, scheduled_at <= now() FROM rowvec.embedding_queue ORDER BY 1")
    assert [tuple(row) for row in left] == [("first", True), ("second", False)]
