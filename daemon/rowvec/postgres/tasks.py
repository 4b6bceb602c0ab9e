"""The tasks of all daemons: whose turn it is, and what they do to the tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from rowvec.domain.tasks import Task
from rowvec.postgres.connections import Database

PAGE_ITEMS: Final = 1000
"""Of what one statement queues again: it holds its locks for some ten milliseconds."""


class PostgresTaskBook:
    """`rowvec.task`.

    Args:
        database: an open pool.
        daemon: this daemon's id; it takes tasks while its heart beats.
    """

    def __init__(self, database: Database, daemon: UUID) -> None:
        self._database = database
        self._daemon = daemon

    async def begin(self, task: Task, due_at: datetime) -> bool:
        """See `ports.TaskBook.begin`."""
        return bool(await self._database.fetch("begin_task", task.value, due_at, self._daemon))

    async def end(self, task: Task) -> None:
        """See `ports.TaskBook.end`."""
        await self._database.fetch("end_task", task.value, self._daemon)


class PostgresUpkeep:
    """What is put in order now and then.

    Args:
        database: an open pool.
        keep_sent_days: for how many days it is known how many messages were sent.
    """

    def __init__(self, database: Database, keep_sent_days: int) -> None:
        self._database = database
        self._keep_sent_days = keep_sent_days

    async def requeue_failed(self) -> Mapping[str, int]:
        """Queue all failed items again, as bulk; what fails once more meanwhile stays failed."""
        items, failed_before = 0, None
        while rows := await self._database.fetch("requeue_failed", failed_before, PAGE_ITEMS):
            failed_before = failed_before or rows[0]["asked_at"]
            items += len(rows)
        await self._database.fetch("notify_daemons")
        return {"items": items}

    async def clean_up(self) -> Mapping[str, int]:
        """Forget what nobody will ask for any more."""
        return {"days_sent": len(await self._database.fetch("forget_sent", self._keep_sent_days))}
