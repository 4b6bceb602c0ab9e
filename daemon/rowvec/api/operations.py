"""What operators and schedules ask for: to look at everything now, to count, to do a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from rowvec.api.answers import Bearer, answer
from rowvec.api.messages import TaskRequest, UnreadableError, read
from rowvec.api.signed import Handler, SignedRequests, Work, finished
from rowvec.domain.errors import StatementTimeoutError
from rowvec.domain.lanes import Lane
from rowvec.domain.row_states import LaneCount
from rowvec.domain.tasks import Task
from rowvec.ports import RowStates, Tasks

COUNT_SECONDS: Final = 10.0
TASKS: Final = (Task.CLEANUP, Task.RETRY_FAILED)


@dataclass(frozen=True, slots=True)
class Operations:
    """The pages for operators and schedules.

    Attributes:
        bearer: lets operators through.
        signed: lets QStash through.
        states: counts.
        look: has everything looked at that is due.
        tasks: does tasks.
        batch_items: the most rows that are claimed together.
    """

    bearer: Bearer
    signed: SignedRequests
    states: RowStates
    look: Callable[[], None]
    tasks: Tasks
    batch_items: int

    def routes(self) -> list[web.RouteDef]:
        """Return the pages by their paths."""
        return [
            web.post("/api/embeddings/trigger", self._for_operators(self.trigger)),
            web.get("/api/embeddings/queue-monitor", self._for_operators(self.show)),
            web.post("/api/embeddings/queue-monitor", self.signed.or_bearer(self.bearer, self.release)),
            web.post("/api/embeddings/maintenance", self.signed.or_bearer(self.bearer, self.maintain, self.tick)),
        ]

    async def trigger(self, _: bytes) -> web.Response:
        """Claim what is due in every lane; rows by lane."""
        counts = await self._count_and_look()
        return answer(HTTPStatus.OK, {"triggered": {lane.value: count.due for lane, count in counts.items()}})

    async def show(self, _: bytes) -> web.Response:
        """How many rows wait."""
        return answer(HTTPStatus.OK, _monitored(await self._count(), 0))

    async def release(self, _: bytes) -> web.Response:
        """Claim what is due, and say how much that is."""
        return answer(HTTPStatus.OK, await self.released())

    async def released(self) -> Mapping[str, Any]:
        """Have what is due looked at; return what `release` answers."""
        return _monitored(await self._count_and_look(), self.batch_items)

    async def maintain(self, body: bytes) -> web.Response:
        """Do a task."""
        task = _task(body)
        return answer(HTTPStatus.OK, {"task": task, "done": await self.tasks.run(task)})

    async def tick(self, body: bytes) -> web.Response:
        """Do a task if its time has come and no daemon has done it: a schedule may be late, or double."""
        task = _task(body)
        return answer(HTTPStatus.OK, {"task": task, "done": await self.tasks.tick(task)})

    def _for_operators(self, work: Work) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            return self.bearer.refusal(request) or await finished(work, b"", HTTPStatus.BAD_REQUEST)

        return handle

    async def _count_and_look(self) -> Mapping[Lane, LaneCount]:
        """Count what is due before it is looked at; also where it can't be counted, it is looked at."""
        try:
            return await self._count()
        finally:
            self.look()

    async def _count(self) -> Mapping[Lane, LaneCount]:
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                return await self.states.count()
        except TimeoutError:
            raise StatementTimeoutError("Postgres takes too long to count.", "Ask again later.") from None


def _monitored(counts: Mapping[Lane, LaneCount], batch_items: int) -> dict[str, Any]:
    """Return what the monitor of the original application answered; with 0 items a batch nothing is released."""
    due = sum(count.due for count in counts.values()) if batch_items else 0
    batches = sum(-(-count.due // batch_items) for count in counts.values()) if batch_items else 0
    queued = sum(count.queued for count in counts.values())
    return {"queuedCount": queued, "triggered": bool(due), "batches": batches, "items": due}


def _task(body: bytes) -> Task:
    """Return the task that is asked for.

    Raises:
        UnreadableError: there is none of that name.
    """
    name = read(TaskRequest, body).task
    if name not in TASKS:
        raise UnreadableError(f"task: one of {', '.join(TASKS)}")
    return Task(name)
