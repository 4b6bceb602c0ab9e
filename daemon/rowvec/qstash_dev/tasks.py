"""All that goes on at once, in one task group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


class Tasks:
    """What is being carried.

    Attributes:
        stopping: whether nothing is begun any more.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.stopping = False
        self._group = group
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin something."""
        task = self._group.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def stop(self) -> None:
        """End everything."""
        self.stopping = True
        for task in self._running:
            task.cancel()


@asynccontextmanager
async def running_tasks() -> AsyncIterator[Tasks]:
    """Yield what begins tasks; at the end all are ended.

    The group has a task of its own: what is raised inside the block leaves it as it is, in no group of exceptions.

    Raises:
        ExceptionGroup: a task has crashed, and so all have ended.
    """
    begun: asyncio.Future[Tasks] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()
    keeper = asyncio.create_task(_keep(begun, over))
    tasks = await begun
    try:
        yield tasks
    finally:
        tasks.stop()
        over.set()
        await keeper


async def _keep(begun: asyncio.Future[Tasks], over: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        begun.set_result(Tasks(group))
        await over.wait()
