"""A semaphore whose permits are handed out by lanes, and no faster than the model's pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Final

from rowvec.domain.errors import StoppingError
from rowvec.domain.lanes import Lane, LaneTurns
from rowvec.pipeline.pace import Pace
from rowvec.ports import Clock, Timer

LENT_SECONDS: Final = 0.25
"""While others hold their permits for no longer, the immediate lane lends them its own: so long it may wait for one."""
FIRST_GUESS_SECONDS: Final = 1.0
FORGOTTEN: Final = 0.1
"""What passes out of mind of the longest hold with every shorter one: a hold of a second with the next 14."""


class LaneSemaphore:
    """Permits for a model's requests: waiting lanes take turns by their shares and lend what they don't use.

    With two permits or more, one is kept free for the immediate lane: its share while nobody waits. It is lent while
    the others have shown that they give permits back soon. Whose turn it is is decided when the pace allows the next
    start, so whoever comes meanwhile from a more urgent lane goes first.

    Args:
        permits: how many may be held at once, at least 1.
        pace: how fast they are handed out.
        clock: wakes when the next may be.
        note_wait: is called for each who has to wait because of the pace.
    """

    def __init__(self, permits: int, pace: Pace, clock: Clock, note_wait: Callable[[], None] = lambda: None) -> None:
        self._permits = permits
        self._pace = pace
        self._clock = clock
        self._note_wait = note_wait
        self._held = dict.fromkeys(Lane, 0)
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in Lane}
        self._turns = LaneTurns()
        self._timer: Timer | None = None
        self._longest_seconds = FIRST_GUESS_SECONDS
        self._closed = False

    @property
    def held(self) -> int:
        """How many permits are held."""
        return sum(self._held.values())

    @asynccontextmanager
    async def permit(self, lane: Lane) -> AsyncIterator[Callable[[], None]]:
        """Hold a permit for the time of the block, or until what is yielded is called to give it back.

        Raises:
            StoppingError: the semaphore was closed: no new requests begin.
            Exception: what the waiting were turned away with.
        """
        await self._acquire(lane)
        with ExitStack() as held:
            held.callback(self._give_back, lane, self._clock.seconds())
            yield held.close

    def give_start_back(self) -> None:
        """Say that a permit's holder sends nothing: another may start in its place."""
        self._pace.give_back()

    def turn_away(self, error: Exception) -> None:
        """Let all who wait end with an error."""
        for queue in self._waiting.values():
            for waiter in queue:
                if not waiter.done():
                    waiter.set_exception(error)
            queue.clear()

    def close(self) -> None:
        """Refuse all who wait and all who come."""
        self._closed = True
        self.turn_away(_closing())

    async def _acquire(self, lane: Lane) -> None:
        if self._closed:
            raise _closing()
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(waiter)
        self._hand_out()
        if self._timer is not None and not waiter.done():
            self._note_wait()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._held[lane] -= 1
                self._pace.give_back()
            self._hand_out()
            raise

    def _give_back(self, lane: Lane, began: float) -> None:
        self._held[lane] -= 1
        if lane is not Lane.IMMEDIATE:
            self._learn(self._clock.seconds() - began)
        self._hand_out()

    def _hand_out(self) -> None:
        self._sleep_no_more()
        while waiting := [lane for lane in Lane if self._pending(lane) and self._may_hold(lane)]:
            if (seconds := self._pace.wait_seconds()) > 0:
                self._timer = self._clock.call_later(seconds, self._hand_out)
                return
            lane = self._turns.next(waiting)
            self._waiting[lane].popleft().set_result(None)
            self._held[lane] += 1
            self._pace.start()

    def _sleep_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pending(self, lane: Lane) -> bool:
        queue = self._waiting[lane]
        while queue and queue[0].done():
            queue.popleft()
        return bool(queue)

    def _may_hold(self, lane: Lane) -> bool:
        return self.held + self._reserved_from(lane) < self._permits

    def _reserved_from(self, lane: Lane) -> int:
        """Return how many permits are kept free of this lane for the immediate one."""
        lent = self._permits == 1 or self._longest_seconds <= LENT_SECONDS
        return 0 if lent or lane is Lane.IMMEDIATE or self._held[Lane.IMMEDIATE] else 1

    def _learn(self, seconds: float) -> None:
        """Take note of how long a permit was held: a longer time counts at once, shorter ones little by little."""
        self._longest_seconds = max(seconds, self._longest_seconds * (1 - FORGOTTEN))


def _closing() -> StoppingError:
    return StoppingError("The daemon is stopping.")
