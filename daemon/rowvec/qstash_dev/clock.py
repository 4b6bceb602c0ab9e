"""The time of the local QStash, which may run faster than that of its neighbours."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

FEW_TIMERS: Final = 1000


class Timer:
    """A call that is still to come."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Let the call not come."""
        self.callback = None


class Clock:
    """A clock that starts at the time of this machine and runs `speed` times as fast.

    Delays, retries, schedules, windows and quotas go by it. What others see and compare with clocks of their own, the
    times in signatures and in answers of 429, is in the machine's time (`wall`); how long others are waited for is too
    (`patience`), since they do not work any faster.

    Args:
        speed: seconds of this clock in a second of the machine.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._origin = time.time()
        self._started = time.monotonic()
        self._advanced = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._many = FEW_TIMERS

    def now(self) -> float:
        """Return the time, in unix seconds."""
        return self._origin + self._advanced + (time.monotonic() - self._started) * self.speed

    def milliseconds(self) -> int:
        """Return the time as QStash writes it, in unix milliseconds."""
        return int(self.now() * 1000)

    @staticmethod
    def wall() -> float:
        """Return the time of this machine, in unix seconds."""
        return time.time()

    def on_the_wall(self, moment: float) -> float:
        """Return when a moment of this clock comes, in unix seconds of this machine."""
        return self.wall() + (moment - self.now()) / self.speed

    def advance(self, seconds: float) -> None:
        """Let time pass at once; who slept until a moment in it wakes."""
        self._advanced += seconds
        self._ring()

    def call_at(self, moment: float, callback: Callable[[], None]) -> Timer:
        """Call at a moment of this clock, in unix seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (moment, next(self._numbers), timer))
        if len(self._timers) > self._many:
            self._forget_cancelled()
        self._arm()
        return timer

    async def sleep_until(self, moment: float) -> None:
        """Sleep until a moment of this clock, in unix seconds."""
        if moment <= self.now():
            return
        over = asyncio.Event()
        timer = self.call_at(moment, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    async def sleep(self, seconds: float) -> None:
        """Sleep for a time of this clock."""
        await self.sleep_until(self.now() + seconds)

    def patience(self, seconds: float) -> float:
        """Return the moment at which so many seconds of the machine, or a jump of this clock, are over."""
        return self.now() + seconds * self.speed

    @asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[None]:
        """Wait for others no longer than so many seconds of the machine.

        Raises:
            TimeoutError: it took longer.
        """
        async with asyncio.timeout(None) as limit:
            loop = asyncio.get_running_loop()
            timer = self.call_at(self.patience(seconds), lambda: limit.reschedule(loop.time()))
            try:
                yield
            finally:
                timer.cancel()

    @property
    def pending(self) -> int:
        """How many calls are kept, those among them that were cancelled not long ago."""
        return len(self._timers)

    def stop(self) -> None:
        """Ring no more."""
        self._timers.clear()
        self._arm()

    def _ring(self) -> None:
        while self._timers and self._timers[0][0] <= self.now():
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()
        self._arm()

    def _forget_cancelled(self) -> None:
        """Drop the limits of time that nobody ran into: they would stay for hours, one an attempt."""
        self._timers = [entry for entry in self._timers if entry[2].callback is not None]
        heapq.heapify(self._timers)
        self._many = max(FEW_TIMERS, 2 * len(self._timers))

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if self._timers:
            seconds = (self._timers[0][0] - self.now()) / self.speed
            self._handle = asyncio.get_running_loop().call_later(max(seconds, 0), self._ring)
