"""A clock that stands still until a test lets time pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = 1000.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def settle(turns: int = 30) -> None:
    """Let all tasks that can go on do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


class FakeTimer:
    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """See `ports.Clock`; called, it is the monotonic time.

    Attributes:
        time: can be set, which wakes nobody; `pass_by` does.
    """

    def __init__(self) -> None:
        self.time = START
        self._timers: list[FakeTimer] = []

    def __call__(self) -> float:
        return self.time

    def seconds(self) -> float:
        return self.time

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.time - START)

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        timer = self.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.time + seconds, callback)
        self._timers.append(timer)
        return timer

    @property
    def pending(self) -> int:
        """How many calls are still to come."""
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        return len(self._timers)

    def next_in(self) -> float:
        """Return in how many seconds the next call comes."""
        assert self.pending
        return min(timer.due for timer in self._timers) - self.time

    async def pass_by(self, seconds: float) -> None:
        """Let time pass; whoever waits for a moment in it runs at that moment."""
        end = self.time + seconds
        await settle()
        while self.pending and (first := min(self._timers, key=lambda timer: timer.due)).due <= end:
            self._timers.remove(first)
            self.time = max(self.time, first.due)
            first.callback()
            await settle()
        self.time = end
        await settle()
