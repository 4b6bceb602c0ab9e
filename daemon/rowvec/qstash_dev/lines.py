"""Queues: their messages are carried in order, as many at a time as the queue allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from rowvec.qstash_dev.messages import Journey
from rowvec.qstash_dev.tasks import Tasks
from rowvec.qstash_dev.world import World


class Line:
    """A queue. Whoever is carried keeps its place until all its retries and callbacks are over.

    Args:
        name: of the queue.
        carry: carries one message to its end.
        tasks: where messages are carried.
        world: the circumstances.

    Attributes:
        parallelism: messages at a time.
        paused: whether no other is begun.
        created_at: unix seconds.
        updated_at: unix seconds.
    """

    def __init__(self, name: str, carry: Callable[[Journey], Awaitable[None]], tasks: Tasks, world: World) -> None:
        self.name = name
        self.parallelism = 1
        self.paused = False
        self.created_at = self.updated_at = world.clock.now()
        self._carry = carry
        self._tasks = tasks
        self._world = world
        self._waiting: deque[Journey] = deque()
        self._active = 0

    @property
    def lag(self) -> int:
        """Messages that are not through."""
        return len(self._waiting) + self._active

    def add(self, journey: Journey) -> None:
        """Let a message stand in line."""
        self._waiting.append(journey)
        self._begin()

    def remove(self, journey: Journey) -> None:
        """Take a message out that still stands in line."""
        self._waiting.remove(journey)

    def change(self, parallelism: int | None = None, *, paused: bool | None = None) -> None:
        """Change what is given."""
        self.parallelism = parallelism or self.parallelism
        self.paused = self.paused if paused is None else paused
        self.updated_at = self._world.clock.now()
        self._begin()

    def empty(self) -> list[Journey]:
        """Take all out that still stand in line."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def _begin(self) -> None:
        while self._waiting and not self.paused and self._active < self.parallelism:
            journey = self._next()
            self._active += 1
            journey.task = self._tasks.start(self._through(journey))
            journey.task.add_done_callback(self._leave)

    def _next(self) -> Journey:
        if self._world.mishaps.faults.reorder:
            self._waiting.rotate(self._world.mishaps.dice.randrange(len(self._waiting)))
        return self._waiting.popleft()

    async def _through(self, journey: Journey) -> None:
        await self._carry(journey)
        if told := [callback.task for callback in journey.callbacks if callback.task is not None]:
            await asyncio.wait(told)

    def _leave(self, _: asyncio.Task[None]) -> None:
        self._active -= 1
        if not self._tasks.stopping:
            self._begin()
