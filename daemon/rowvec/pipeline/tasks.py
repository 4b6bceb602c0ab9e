"""Tasks: what the daemons do by the clock, each time one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog

from rowvec.domain.errors import DatabaseUnavailableError, RowvecError, UsageError
from rowvec.domain.tasks import Cron, Task
from rowvec.ports import Clock, TaskBook

LOOK_SECONDS: Final = 3.0
"""The longest between looks: what a daemon leaves undone is taken over then, and a clock that was set is noticed."""

LEAST_SECONDS: Final = 0.1
"""The shortest: whatever a cron line and a time zone come to."""

Step: TypeAlias = Callable[[], Awaitable[Mapping[str, int]]]
"""Does something that may be done twice, and returns how much of what it did."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Duty:
    """A task as it is set.

    Attributes:
        cron: when it is due.
        steps: what is done, in this order.
    """

    cron: Cron
    steps: Sequence[Step]


class Tasks:
    """Does tasks: by the clock once among all daemons, and for whoever asks at once.

    Args:
        book: tells all daemons whose turn it is.
        duties: what there is to do.
        clock: the time.
    """

    def __init__(self, book: TaskBook, duties: Mapping[Task, Duty], clock: Clock) -> None:
        self._book = book
        self._duties = duties
        self._clock = clock
        self._turns = {task: asyncio.Lock() for task in duties}

    @property
    def names(self) -> Collection[Task]:
        """What there is to do."""
        return self._duties.keys()

    async def run(self, name: str) -> Mapping[str, int]:
        """Do a task now, whatever the clock says; return how much was done, by what it was.

        Raises:
            UsageError: there is none of that name.
            RowvecError: it could not be done to its end.
        """
        if name not in self._duties:
            raise UsageError(f'There is no task "{name}".', f"There are: {', '.join(self._duties)}.")
        task, done = Task(name), dict[str, int]()
        for step in self._duties[task].steps:
            done.update(await step())
        log.info("task.done", task=name, **done)
        return done

    async def tick(self, task: Task) -> Mapping[str, int] | None:
        """Do a task if its time has come and no daemon has done it; return how much was done, None otherwise.

        Raises:
            DatabaseUnavailableError: it is to be done again.
        """
        async with self._turns[task]:
            if not await self._book.begin(task, self._duties[task].cron.last_at(self._clock.now())):
                return None
            done = await self._try(task)
            await self._book.end(task)
            return done

    async def _try(self, task: Task) -> Mapping[str, int]:
        try:
            return await self.run(task)
        except DatabaseUnavailableError:
            raise  # it stays begun: at the next look it is done again, here or by another daemon
        except RowvecError as error:
            log.warning("task.failed", task=task, error=str(error))
        except Exception:
            # Whatever somebody else's answer has in it is no reason to end: at the next start it would be there again.
            log.exception("task.failed", task=task)
        return {}

    def seconds_ahead(self, task: Task) -> float:
        """Return in how many seconds the task is due next."""
        now = self._clock.now()
        return (self._duties[task].cron.next_at(now) - now).total_seconds()


class TaskClock:
    """The daemons' clock. A time at which no daemon ran is made up for once.

    Args:
        tasks: what there is to do.
        clock: the time.
    """

    def __init__(self, tasks: Tasks, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock

    async def run(self) -> None:
        """Do each task at its times, for ever; none waits for another."""
        async with asyncio.TaskGroup() as group:
            for task in self._tasks.names:
                group.create_task(self._keep(task))

    async def _keep(self, task: Task) -> None:
        while True:
            try:
                await self._tasks.tick(task)
            except DatabaseUnavailableError as error:
                log.debug("task.interrupted", task=task, error=str(error))
            await self._clock.sleep(min(max(self._tasks.seconds_ahead(task), LEAST_SECONDS), LOOK_SECONDS))
