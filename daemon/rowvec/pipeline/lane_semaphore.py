"""A semaphore whose permits are handed out by lanes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rowvec.domain.errors import StoppingError
from rowvec.domain.lanes import Lane, LaneTurns


class LaneSemaphore:
    """Permits for a model's requests: waiting lanes take turns by their shares and lend what they don't use.

    With two permits or more, one is kept free for the immediate lane: its share while nobody waits.

    Args:
        permits: how many may be held at once, at least 1.
    """

    def __init__(self, permits: int) -> None:
        self._permits = permits
        self._held = dict.fromkeys(Lane, 0)
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in Lane}
        self._turns = LaneTurns()
        self._closed = False

    @asynccontextmanager
    async def permit(self, lane: Lane) -> AsyncIterator[None]:
        """Hold a permit for the time of the block.

        Raises:
            StoppingError: the semaphore was closed: no new requests begin.
        """
        await self._acquire(lane)
        try:
            yield
        finally:
            self._held[lane] -= 1
            self._hand_out()

    def close(self) -> None:
        """Refuse all who wait and all who come."""
        self._closed = True
        for queue in self._waiting.values():
            for waiter in queue:
                if not waiter.done():
                    waiter.set_exception(_closing())
            queue.clear()

    async def _acquire(self, lane: Lane) -> None:
        if self._closed:
            raise _closing()
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(waiter)
        self._hand_out()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._held[lane] -= 1
                self._hand_out()
            raise

    def _hand_out(self) -> None:
        while waiting := [lane for lane in Lane if self._pending(lane) and self._may_hold(lane)]:
            lane = self._turns.next(waiting)
            self._waiting[lane].popleft().set_result(None)
            self._held[lane] += 1

    def _pending(self, lane: Lane) -> bool:
        queue = self._waiting[lane]
        while queue and queue[0].done():
            queue.popleft()
        return bool(queue)

    def _may_hold(self, lane: Lane) -> bool:
        reserved = 1 if lane is not Lane.IMMEDIATE and self._permits > 1 and not self._held[Lane.IMMEDIATE] else 0
        return sum(self._held.values()) + reserved < self._permits


def _closing() -> StoppingError:
    return StoppingError("The daemon is stopping.")
