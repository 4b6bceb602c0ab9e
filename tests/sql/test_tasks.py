"""The clock of all daemons, and what tasks do to the tables."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from clocks import FakeClock
from daemons import eventually
from database import Connect, as_user
from rowvec.domain.tasks import Cron, Task
from rowvec.pipeline.tasks import Duty, TaskClock, Tasks
from rowvec.postgres.administration import administration
from rowvec.postgres.connections import Database
from rowvec.postgres.presence import PostgresPresence
from rowvec.postgres.roles import DAEMON_ROLE
from rowvec.postgres.statements import statement
from rowvec.postgres.tasks import PostgresTaskBook, PostgresUpkeep

MINUTE = timedelta(minutes=1)


@dataclass
class Clockwork:
    """One of several daemons, as far as their clock is concerned."""

    database: Database
    id: UUID = field(default_factory=uuid.uuid4)

    @property
    def book(self) -> PostgresTaskBook:
        return PostgresTaskBook(self.database, self.id)

    @property
    def presence(self) -> PostgresPresence:
        return PostgresPresence(self.database, self.id, "test", [])

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[Clockwork]:
        await self.presence.beat([], {})
        yield self
        await self.presence.leave()


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def one(pool: Database) -> AsyncIterator[Clockwork]:
    async with Clockwork(pool).alive() as found:
        yield found


@pytest.fixture
async def other(pool: Database) -> AsyncIterator[Clockwork]:
    async with Clockwork(pool).alive() as found:
        yield found


async def test_what_was_never_heard_of_waits_for_its_next_time(app: asyncpg.Connection, one: Clockwork) -> None:
    due = await app.fetchval("SELECT now() - interval '1 min'")
    assert not await one.book.begin(Task.MONITOR, due)
    assert await one.book.begin(Task.MONITOR, await app.fetchval("SELECT now() + interval '1 s'"))


async def test_a_time_is_taken_once(app: asyncpg.Connection, one: Clockwork, other: Clockwork) -> None:
    due = await app.fetchval("SELECT now() + interval '10 s'")
    await one.book.begin(Task.MONITOR, due - MINUTE)
    assert await one.book.begin(Task.MONITOR, due)
    assert not await other.book.begin(Task.MONITOR, due), "one daemon's clock is ahead of Postgres's"
    await one.book.end(Task.MONITOR)
    assert not await one.book.begin(Task.MONITOR, due)
    assert not await other.book.begin(Task.MONITOR, due)
    assert await other.book.begin(Task.MONITOR, due + MINUTE)
    assert not await other.book.begin(Task.CLEANUP, due - MINUTE), "each task has times of its own"


async def test_a_clock_that_is_far_ahead_takes_nothing_and_holds_nobody_up(
    app: asyncpg.Connection, one: Clockwork, other: Clockwork
) -> None:
    due = await app.fetchval("SELECT now() + interval '1 s'")
    await one.book.begin(Task.CLEANUP, due - MINUTE)
    assert not await one.book.begin(Task.CLEANUP, due + timedelta(days=365))
    await app.execute("UPDATE rowvec.task SET ran_at = now() + interval '1 year'")
    assert await other.book.begin(Task.CLEANUP, due)
    await other.book.end(Task.CLEANUP)
    assert not await other.book.begin(Task.CLEANUP, due)


async def test_what_a_dead_daemon_began_is_taken_over(
    app: asyncpg.Connection, one: Clockwork, other: Clockwork
) -> None:
    due = await app.fetchval("SELECT now() + interval '1 s'")
    await one.book.begin(Task.CLEANUP, due - MINUTE)
    assert await one.book.begin(Task.CLEANUP, due)
    assert await one.book.begin(Task.CLEANUP, due), "what it has not ended is its own"
    assert not await other.book.begin(Task.CLEANUP, due)
    await app.execute("UPDATE rowvec.daemon SET beat_at = now() - interval '4 s' WHERE id = $1", one.id)
    assert not await one.book.begin(Task.CLEANUP, due), "the silent daemon itself"
    assert await other.book.begin(Task.CLEANUP, due)
    await one.book.end(Task.CLEANUP)
    assert await other.book.begin(Task.CLEANUP, due), "who has lost it can't end it"


async def test_no_row_is_locked_while_a_task_is_done(app: asyncpg.Connection, one: Clockwork) -> None:
    due = await app.fetchval("SELECT now() + interval '1 s'")
    await one.book.begin(Task.CLEANUP, due - MINUTE)
    assert await one.book.begin(Task.CLEANUP, due)
    assert await app.fetchval("SELECT count(*) FROM (SELECT FROM rowvec.task FOR UPDATE NOWAIT) AS t") == 1


class ClockAt(FakeClock):
    """A clock that begins at a given time of day."""

    def __init__(self, start: datetime) -> None:
        super().__init__()
        self._ahead = start - super().now()

    def now(self) -> datetime:
        return super().now() + self._ahead


async def test_three_clocks_do_each_tick_once(app: asyncpg.Connection, dsn: str) -> None:
    """Three daemons, each with a pool of its own, look at the same moment, tick after tick."""
    start = await app.fetchval("SELECT date_trunc('minute', now()) + interval '1 min'")
    clocks, done = [ClockAt(start) for _ in range(3)], list[datetime]()

    async def work() -> Mapping[str, int]:
        done.append(clocks[0].now())
        return {}

    async def all_wait() -> bool:
        return all(clock.pending for clock in clocks)

    async with contextlib.AsyncExitStack() as stack:
        for clock in clocks:
            database = Database(dsn)
            await database.open()
            stack.push_async_callback(database.close)
            daemon = Clockwork(database)
            await daemon.presence.beat([], {})
            tasks = Tasks(daemon.book, {Task.MONITOR: Duty(Cron("* * * * *"), [work])}, clock)
            room = asyncio.create_task(TaskClock(tasks, clock).run())
            stack.push_async_callback(asyncio.wait, [room])
            stack.callback(room.cancel)
        await eventually(all_wait)
        done.clear()
        for tick in range(1, 21):
            await app.execute("UPDATE rowvec.daemon SET beat_at = now()")
            for clock in clocks:
                clock.time += 60
            await asyncio.gather(*(clock.pass_by(0) for clock in clocks))
            await eventually(all_wait)
            assert len(done) == tick


# What tasks do to the tables.


async def give_up(app: asyncpg.Connection, count: int, priority: int = 2) -> None:
    await app.execute(
        """
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, status, retry_count,
                                            error_message, error_detail)
        SELECT 'course', n::text, 'first', $2, 1, 'failed', 5, 'It broke.', 'Here.' FROM generate_series(1, $1) n
        """,
        count,
        priority,
    )


async def test_the_weekly_retry_queues_all_that_failed_as_bulk(app: asyncpg.Connection, pool: Database) -> None:
    await give_up(app, 2500)
    await app.execute("UPDATE rowvec.embedding_queue SET priority = 9 WHERE content_id = '1'")
    assert await PostgresUpkeep(pool, 7).requeue_failed() == {"items": 2500}
    rows = await app.fetch(
        """
        SELECT status, lane, priority, retry_count, error_message, error_detail, scheduled_at <= now() AS due, count(*)
        FROM rowvec.embedding_queue GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY priority
        """
    )
    assert [tuple(row) for row in rows] == [
        ("queued", "bulk", 5, 0, None, None, True, 2499),
        ("queued", "bulk", 9, 0, None, None, True, 1),
    ]
    assert await PostgresUpkeep(pool, 7).requeue_failed() == {"items": 0}


async def test_the_retry_waits_for_no_row_that_somebody_holds(
    app: asyncpg.Connection, connect: Connect, pool: Database
) -> None:
    await give_up(app, 3)
    holder = await connect()
    async with holder.transaction():
        await holder.execute("SELECT FROM rowvec.embedding_queue WHERE content_id = '2' FOR UPDATE")
        assert await PostgresUpkeep(pool, 7).requeue_failed() == {"items": 2}
    assert await PostgresUpkeep(pool, 7).requeue_failed() == {"items": 1}


async def test_what_fails_again_during_the_retry_stays_failed(app: asyncpg.Connection) -> None:
    await give_up(app, 2)
    page = statement("requeue_failed")
    (first,) = await app.fetch(page, None, 1)
    await app.execute("UPDATE rowvec.embedding_queue SET status = 'failed', updated_at = now() WHERE status = 'queued'")
    assert len(await app.fetch(page, first["asked_at"], 10)) == 1
    assert await app.fetch(page, first["asked_at"], 10) == []


async def test_days_that_are_long_over_are_forgotten(app: asyncpg.Connection, pool: Database) -> None:
    await app.execute(
        "INSERT INTO rowvec.sent SELECT (now() AT TIME ZONE 'UTC')::date - n, n, n FROM generate_series(0, 9) n"
    )
    assert await PostgresUpkeep(pool, 7).clean_up() == {"days_sent": 2}
    assert await app.fetchval("SELECT max(messages) FROM rowvec.sent") == 7
    assert await PostgresUpkeep(pool, 7).clean_up() == {"days_sent": 0}


async def test_what_was_sent_today_is_told(app: asyncpg.Connection, dsn: str) -> None:
    async with administration(dsn) as database:
        assert await database.sent_today() == {"messages": 0, "items": 0}
        await app.execute(
            "INSERT INTO rowvec.sent SELECT (now() AT TIME ZONE 'UTC')::date - n, 3, 40 FROM generate_series(0, 1) n"
        )
        assert await database.sent_today() == {"messages": 3, "items": 40}


async def test_a_daemons_role_may_do_all_of_it(dsn: str) -> None:
    """The pool of a daemon's own role: each statement runs, whatever it finds."""
    database = Database(as_user(dsn, DAEMON_ROLE))
    await database.open()
    try:
        daemon = Clockwork(database)
        await daemon.presence.beat([], {})
        await daemon.book.begin(Task.MONITOR, datetime.now(UTC))
        await daemon.book.end(Task.MONITOR)
        await PostgresUpkeep(database, 7).requeue_failed()
        await PostgresUpkeep(database, 7).clean_up()
    finally:
        await database.close()
