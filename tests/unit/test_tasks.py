"""The daemons' clock, each step of it; that a task is done once among them is shown in tests/sql."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
import structlog

from clocks import NOON, FakeClock, settle
from rowvec.domain.errors import DatabaseUnavailableError, RowvecError, UsageError
from rowvec.domain.tasks import Cron, Task
from rowvec.pipeline.tasks import LOOK_SECONDS, Duty, TaskClock, Tasks

FIVE = timedelta(minutes=5)


class Book:
    """As one daemon alone sees `rowvec.task`.

    Attributes:
        ran_at: when each task was last begun.
        begun: those that have not ended.
        away: whether Postgres is.
    """

    def __init__(self) -> None:
        self.ran_at: dict[Task, datetime] = dict.fromkeys(Task, NOON)
        self.begun: set[Task] = set()
        self.away = False

    async def begin(self, task: Task, due_at: datetime) -> bool:
        if self.away:
            raise DatabaseUnavailableError("Postgres can't be reached.")
        if self.ran_at[task] >= due_at and task not in self.begun:
            return False
        self.ran_at[task] = max(due_at, self.ran_at[task])
        self.begun.add(task)
        return True

    async def end(self, task: Task) -> None:
        self.begun.discard(task)


class Work:
    """Attributes:
    done: at which minutes after noon it was done.
    broken: raised while set.
    gate: closed, the work takes longer.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.done: list[float] = []
        self.broken: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Mapping[str, int]:
        await self.gate.wait()
        if self.broken:
            raise self.broken
        self.done.append((self._clock.now() - NOON).total_seconds() / 60)
        return {"things": 3}


class Stage:
    """One daemon's clock, with a monitor each five minutes and a cleanup each ten."""

    def __init__(self) -> None:
        self.clock, self.book = FakeClock(), Book()
        self.monitor, self.cleanup = Work(self.clock), Work(self.clock)
        duties = {
            Task.MONITOR: Duty(Cron("*/5 * * * *"), [self.monitor]),
            Task.CLEANUP: Duty(Cron("*/10 * * * *"), [self.cleanup]),
        }
        self.tasks = Tasks(self.book, duties, self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        room = asyncio.create_task(TaskClock(self.tasks, self.clock).run())
        await settle()
        yield
        assert not room.done(), room
        room.cancel()
        await asyncio.wait([room])


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_each_task_is_done_at_its_times(stage: Stage) -> None:
    async with stage.running():
        assert (stage.monitor.done, stage.cleanup.done) == ([], [])
        await stage.clock.pass_by(20 * 60)
    assert (stage.monitor.done, stage.cleanup.done) == ([5, 10, 15, 20], [10, 20])


async def test_a_time_at_which_nobody_ran_is_made_up_for_once(stage: Stage) -> None:
    await stage.clock.pass_by(17 * 60)
    async with stage.running():
        assert (stage.monitor.done, stage.cleanup.done) == ([17], [17])
        await stage.clock.pass_by(4 * 60)
    assert (stage.monitor.done, stage.cleanup.done) == ([17, 20], [17, 20])


async def test_what_another_daemon_has_done_is_not_done_again(stage: Stage) -> None:
    async with stage.running():
        stage.book.ran_at[Task.MONITOR] = NOON + FIVE
        await stage.clock.pass_by(9 * 60)
    assert stage.monitor.done == []


async def test_a_task_that_takes_long_keeps_no_other_waiting(stage: Stage) -> None:
    async with stage.running():
        stage.cleanup.gate.clear()
        await stage.clock.pass_by(20 * 60)
        assert (stage.monitor.done, stage.cleanup.done) == ([5, 10, 15, 20], [])


async def test_with_postgres_away_it_goes_on_trying(stage: Stage) -> None:
    async with stage.running():
        stage.book.away = True
        await stage.clock.pass_by(6 * 60)
        assert stage.monitor.done == []
        stage.book.away = False
        await stage.clock.pass_by(LOOK_SECONDS)
    assert stage.monitor.done == [pytest.approx(6 + LOOK_SECONDS / 60)]


async def test_what_an_outage_cut_off_is_done_again_soon(stage: Stage) -> None:
    async with stage.running():
        stage.monitor.broken = DatabaseUnavailableError("Postgres can't be reached.")
        await stage.clock.pass_by(5 * 60)
        assert stage.book.begun == {Task.MONITOR}
        stage.monitor.broken = None
        await stage.clock.pass_by(LOOK_SECONDS)
    assert stage.monitor.done == [pytest.approx(5 + LOOK_SECONDS / 60)]
    assert stage.book.begun == set()


async def test_a_task_that_fails_is_told_and_waits_for_its_next_time(stage: Stage) -> None:
    with structlog.testing.capture_logs() as logs:
        async with stage.running():
            stage.monitor.broken = RowvecError("It can't be done.")
            await stage.clock.pass_by(5 * 60)
            stage.monitor.broken = None
            await stage.clock.pass_by(5 * 60)
    assert stage.monitor.done == [10]
    (told,) = [line for line in logs if line["event"] == "task.failed"]
    assert (told["task"], told["error"], told["log_level"]) == ("monitor", "It can't be done.", "warning")


async def test_who_asks_has_it_done_at_once_and_the_clock_goes_on(stage: Stage) -> None:
    with structlog.testing.capture_logs() as logs:
        assert await stage.tasks.run("monitor") == {"things": 3}
    assert {"event": "task.done", "task": "monitor", "things": 3, "log_level": "info"} in logs
    assert stage.book.ran_at[Task.MONITOR] == NOON


async def test_who_asks_for_what_there_is_not_is_told_what_there_is(stage: Stage) -> None:
    with pytest.raises(UsageError, match=r'no task "tidy".*monitor, cleanup'):
        await stage.tasks.run("tidy")


async def test_who_asks_is_told_what_went_wrong(stage: Stage) -> None:
    stage.monitor.broken = RowvecError("It can't be done.")
    with pytest.raises(RowvecError, match="It can't be done"):
        await stage.tasks.run("monitor")


async def test_a_tick_from_outside_does_what_is_due_and_nothing_twice(stage: Stage) -> None:
    assert await stage.tasks.tick(Task.MONITOR) is None
    await stage.clock.pass_by(301)
    stage.monitor.gate.clear()
    both = asyncio.gather(stage.tasks.tick(Task.MONITOR), stage.tasks.tick(Task.MONITOR))
    await settle()
    stage.monitor.gate.set()
    first, second = await both
    assert (first, second) == ({"things": 3}, None)
    assert len(stage.monitor.done) == 1


async def test_the_steps_of_a_task_are_done_in_their_order_and_told_together() -> None:
    order = []

    async def first() -> Mapping[str, int]:
        order.append("first")
        return {"released": 1}

    async def second() -> Mapping[str, int]:
        order.append("second")
        return {"dead_letters": 2}

    duties = {Task.MONITOR: Duty(Cron("* * * * *"), [first, second])}
    assert await Tasks(Book(), duties, FakeClock()).run("monitor") == {"released": 1, "dead_letters": 2}
    assert order == ["first", "second"]
