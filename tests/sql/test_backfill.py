"""Backfills, by source and model: truth in whatever order watches, models and pages commit."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from database import Connect
from rowvec.domain.errors import LockedError
from rowvec.domain.lanes import Lane
from rowvec.postgres.administration import administration
from worker import Worker

OLD = """
    CREATE TABLE old (id bigint PRIMARY KEY, body text, views integer NOT NULL DEFAULT 0);
    INSERT INTO old SELECT n, 'Text ' || n FROM generate_series(1, {rows}) n;
    SELECT rowvec.watch('old', 'old', ARRAY['body'], 2);
"""


async def unfilled(session: asyncpg.Connection) -> set[tuple[str, str]]:
    rows = await session.fetch("SELECT content_type, model FROM rowvec.unfilled WHERE content_type <> 'document'")
    return {(row["content_type"], row["model"]) for row in rows}


async def vectors(session: asyncpg.Connection, model: str) -> int:
    return int(await session.fetchval(f"SELECT count(*) FROM rowvec.vector_{model}"))


async def is_blocked(session: asyncpg.Connection) -> None:
    """Return when somebody waits for a lock."""
    while not await session.fetchval("SELECT count(*) FROM pg_locks, pg_sleep(0.001) WHERE NOT granted"):
        pass


async def fill(worker: Worker) -> None:
    while content_types := await worker.unfilled():
        for content_type in content_types:
            await worker.append_page(content_type)
        await worker.settle()
    await worker.settle()


async def test_a_page_asks_for_one_model_alone(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute(OLD.format(rows=3))
    assert await worker.log.append_backfill("old", "second") == 3
    await worker.settle()
    assert (await vectors(app, "first"), await vectors(app, "second")) == (0, 3)
    assert await unfilled(app) == {("old", "first"), ("old", "second")}
    assert await worker.log.append_backfill("old", "second") == 0
    assert await unfilled(app) == {("old", "first")}


async def test_a_write_and_a_page_of_the_same_row_are_for_all_models(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute(OLD.format(rows=2))
    await worker.log.append_backfill("old", "second")
    await app.execute("UPDATE old SET body = 'New' WHERE id = 1")
    await worker.fold()
    rows = await app.fetch("SELECT content_id, model, priority FROM rowvec.embedding_queue ORDER BY 1, 2")
    assert [tuple(row) for row in rows] == [("1", "first", 2), ("1", "second", 2), ("2", "second", 5)]


async def test_a_model_that_is_away_holds_up_its_own_backfill_alone(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute(OLD.format(rows=2500))
    for model in ("first", "second"):
        assert await worker.log.append_backfill("old", model) == 1000
    while (await worker.fold()).folded:
        pass
    claim = await worker.claim(Lane.BULK, "old", "first")
    await worker.store(claim, await worker.read(claim))
    assert await worker.log.unfilled(500) == [("old", "first")]
    waiting = "SELECT count(*) FROM rowvec.embedding_queue WHERE model = 'second'"
    while ("old", "first") in await worker.log.unfilled(500):
        await worker.log.append_backfill("old", "first")
        await worker.fold()
        claim = await worker.claim(Lane.BULK, "old", "first")
        await worker.store(claim, await worker.read(claim))
    assert await vectors(app, "first") == 2500
    assert await app.fetchval(waiting) == 1000, "never more than were let in"


async def test_each_model_has_its_own_place(app: asyncpg.Connection, worker: Worker, other: Worker) -> None:
    await app.execute(OLD.format(rows=2500))
    assert [await worker.log.append_backfill("old", "first") for _ in range(4)] == [1000, 1000, 500, 0]
    assert [await other.log.append_backfill("old", "second") for _ in range(4)] == [1000, 1000, 500, 0]
    rows = await app.fetch("SELECT model, done, rows, after FROM rowvec.backfill WHERE content_type = 'old' ORDER BY 1")
    assert [tuple(row) for row in rows] == [("first", True, 2500, "2500"), ("second", True, 2500, "2500")]


async def test_stopped_and_gone_on_with_it_takes_each_row_once(
    app: asyncpg.Connection, dsn: str, worker: Worker, other: Worker
) -> None:
    await app.execute(OLD.format(rows=2500))
    async with administration(dsn) as database:
        assert await worker.append_page("old") == 1000
        await database.stop_backfill("old", None)
        assert await worker.unfilled() == []
        assert await worker.log.append_backfill("old", "first") == 0
        await database.stop_backfill("old", None)
        await database.begin_backfill("old", "first", again=False)
        # The daemon that goes on may be another one.
        assert await other.log.append_backfill("old", "first") == 1000
        assert await other.log.append_backfill("old", "second") == 0
        await database.begin_backfill(None, None, again=False)
        await fill(other)
    assert (await vectors(app, "first"), await vectors(app, "second")) == (2500, 2500)
    rows = await app.fetch("SELECT rows FROM rowvec.backfill WHERE content_type = 'old'")
    assert [row["rows"] for row in rows] == [2500, 2500]


async def test_a_stop_before_the_first_page_holds(app: asyncpg.Connection, dsn: str, worker: Worker) -> None:
    await app.execute(OLD.format(rows=10))
    async with administration(dsn) as database:
        await database.stop_backfill(None, "second")
        await fill(worker)
        assert (await vectors(app, "first"), await vectors(app, "second")) == (10, 0)
        await database.begin_backfill("old", None, again=False)
        await fill(worker)
    assert await vectors(app, "second") == 10


async def test_what_has_come_to_its_end_begins_anew_and_sends_nothing_twice(
    app: asyncpg.Connection, dsn: str, worker: Worker
) -> None:
    await app.execute(OLD.format(rows=10))
    await fill(worker)
    before = await app.fetch("SELECT xmin, content_id FROM rowvec.vector_first ORDER BY content_id")
    async with administration(dsn) as database:
        await database.begin_backfill("old", "first", again=False)
        assert await unfilled(app) == {("old", "first")}
        assert await worker.append_page("old") == 10
        await database.begin_backfill("old", "first", again=False)
        assert (
            await app.fetchval("SELECT rows FROM rowvec.backfill WHERE model = 'first' AND content_type = 'old'") == 10
        )
        await database.begin_backfill("old", "first", again=True)
        assert await app.fetchval("SELECT count(*) FROM rowvec.backfill WHERE content_type = 'old'") == 1
        await fill(worker)
    assert await app.fetch("SELECT xmin, content_id FROM rowvec.vector_first ORDER BY content_id") == before


async def test_a_restart_waits_for_the_page_under_way_and_takes_its_place_back(
    app: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await app.execute(OLD.format(rows=2500))
    assert await worker.append_page("old") == 1000
    busy = await connect()
    async with busy.transaction():
        assert await busy.fetchval("SELECT rowvec.append_backfill('old', 'first')") == 1000
        await app.execute("SET lock_timeout = '100ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await app.execute("SELECT rowvec.begin_backfill('old', NULL, true)")
    await app.execute("SELECT rowvec.begin_backfill('old', NULL, true)")
    assert await app.fetchval("SELECT count(*) FROM rowvec.backfill WHERE content_type = 'old'") == 0
    assert await worker.append_page("old") == 1000


async def test_a_model_that_sleeps_has_no_items_and_catches_up_when_it_wakes(
    app: asyncpg.Connection, dsn: str, worker: Worker
) -> None:
    await app.execute(OLD.format(rows=3))
    await fill(worker)
    async with administration(dsn) as database:
        await app.execute("UPDATE old SET body = 'Queued' WHERE id = 1")
        await worker.fold()
        assert await database.deactivate_models(["second"]) == ["second"]
        assert await database.deactivate_models(["second"]) == []
        assert await app.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE model = 'second'") == 0
        await app.execute("UPDATE old SET body = 'Unseen' WHERE id = 2; DELETE FROM old WHERE id = 3")
        await worker.settle()
        assert await app.fetchval("SELECT count(*) FROM rowvec.embedding_queue") == 0
        assert {row["model"] for row in await database.backfills()} == {"first"}
        # Removals are for every model, awake or not.
        assert await vectors(app, "second") == 2
        with pytest.raises(asyncpg.PostgresError, match='The model "second" is inactive'):
            await app.fetch("SELECT * FROM rowvec.search('x', '[1,1,1,1]', NULL, model => 'second')")
        assert await database.activate_models(["first", "second"]) == ["second"]
        assert await database.activate_models(["second"]) == []
        assert await unfilled(app) == {("old", "second")}
        await fill(worker)
    texts = await app.fetch("SELECT chunk_text FROM rowvec.vector_second ORDER BY content_id")
    assert [row["chunk_text"] for row in texts] == ["body: Queued", "body: Unseen"]


async def test_the_default_of_search_is_an_active_model(app: asyncpg.Connection, dsn: str) -> None:
    default = "SELECT name FROM rowvec.model WHERE is_default"
    async with administration(dsn) as database:
        assert await app.fetchval(default) == "first"
        await database.deactivate_models(["first"])
        assert await app.fetchval(default) == "second"
        await database.activate_models(["first"])
        assert await app.fetchval(default) == "second", "the one that has all vectors stays"
        await database.deactivate_models(["first", "second"])
        assert await app.fetchval(default) is None
        await database.activate_models(["first"])
        assert await app.fetchval(default) == "first"


async def test_of_models_that_wake_and_sleep_at_once_one_is_the_default(
    app: asyncpg.Connection, connect: Connect, dsn: str
) -> None:
    other = await connect()
    default = "SELECT name FROM rowvec.model WHERE is_default AND active"

    async def wake_second_while(statement: str) -> None:
        async with app.transaction():
            await app.execute(statement)
            waking = asyncio.create_task(other.fetchval("SELECT rowvec.activate_model('second')"))
            await asyncio.sleep(0.2)
        assert await waking

    async with administration(dsn) as database:
        await database.deactivate_models(["first", "second"])
        await wake_second_while("SELECT rowvec.activate_model('first')")
        assert await app.fetchval(default) == "first"
        await database.deactivate_models(["second"])
        await wake_second_while("SELECT rowvec.deactivate_model('first')")
        assert await app.fetchval(default) == "second"


async def test_a_model_added_asleep_gets_its_items_when_it_wakes(
    app: asyncpg.Connection, dsn: str, worker: Worker
) -> None:
    await app.execute(OLD.format(rows=3))
    await fill(worker)
    await app.execute("SELECT rowvec.add_model('third', 4, active => false)")
    assert await unfilled(app) == set()
    async with administration(dsn) as database:
        assert await database.activate_models(["third"]) == ["third"]
    assert await unfilled(app) == {("old", "third")}


async def test_a_model_is_switched_off_behind_no_writer(
    app: asyncpg.Connection, connect: Connect, dsn: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer has locked an item: whoever waits for it too long gives up, and the writer never does."""
    monkeypatch.setattr("rowvec.postgres.locks.LOCK_TRIES", 2)
    await app.execute(OLD.format(rows=3))
    await fill(worker)
    await app.execute("UPDATE old SET body = 'Queued'")
    await worker.fold()
    writer = await connect()
    async with administration(dsn) as database, writer.transaction():
        await writer.execute("DELETE FROM old WHERE id = 1")
        with pytest.raises(LockedError):
            await database.deactivate_models(["second"])
        await writer.execute("DELETE FROM old WHERE id = 2")
    async with administration(dsn) as database:
        assert await database.deactivate_models(["second"]) == ["second"]


async def test_rows_are_counted_or_taken_from_the_statistics(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute(OLD.format(rows=30))
    await app.execute("""
        CREATE TABLE many (id bigint PRIMARY KEY, body text);
        INSERT INTO many SELECT n FROM generate_series(1, 100001) n;
        ANALYZE many;
        SELECT rowvec.watch('many', 'many', ARRAY['body'], condition => 'id > 5');
        SELECT rowvec.watch('old', 'half', ARRAY['body'], condition => 'id > 15');
        SELECT rowvec.watch('old', 'paused', ARRAY['body']);
        SELECT rowvec.pause('paused');
    """)
    async with administration(dsn) as database:
        found = await database.estimate_rows(["old", "half", "many", "paused", "nobody"])
    assert found == {"old": 30, "half": 15, "many": 100001, "paused": None}


async def test_a_source_that_goes_while_its_rows_are_counted_has_no_number(
    app: asyncpg.Connection, connect: Connect, dsn: str
) -> None:
    await app.execute(OLD.format(rows=30))
    async with administration(dsn) as database:
        async with app.transaction():
            await app.execute("SELECT rowvec.unwatch('old')")
            counting = asyncio.create_task(database.estimate_rows(["old"]))
            await is_blocked(await connect())
        assert await counting == {"old": None}


async def test_what_is_written_after_the_last_page_is_none_of_its_items(
    app: asyncpg.Connection, dsn: str, worker: Worker
) -> None:
    await app.execute(OLD.format(rows=10).replace("['body'], 2", "['body'], 7"))
    assert [await worker.log.append_backfill("old", "first") for _ in range(2)] == [10, 0]
    async with administration(dsn) as database:
        (row, _) = await database.backfills()
        assert (row["done"], row["unfolded"], row["waiting"]) == (True, 10, 0)
        await worker.fold()
        last = await database.last_item()
        await app.execute("INSERT INTO old VALUES (11, 'New'), (12, 'New')")
        await worker.fold()
        (row, _) = await database.backfills()
        assert (row["unfolded"], row["waiting"]) == (0, 12)
        (row, _) = await database.backfills(last)
        assert row["waiting"] == 10
